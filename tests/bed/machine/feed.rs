//! The text from a socket of the machine. A thread collects it, and callers wait for a part of it with a
//! deadline.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// All text received so far. Clones share it.
#[derive(Clone)]
pub struct Feed(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    text: String,
    closed: bool,
}

/// The reason why a wait ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The deadline passed.
    Deadline,
    /// The stream has ended.
    Closed,
}

impl Feed {
    /// Starts a thread that reads the stream to its end.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        Self::after(String::new(), stream)
    }

    /// Starts a thread that reads the stream, as if `text` had been received before.
    pub fn after(text: String, mut stream: impl Read + Send + 'static) -> Self {
        let feed = Self(Arc::default());
        feed.lock().text = text;
        let writer = feed.clone();
        thread::spawn(move || {
            let (mut chunk, mut pending) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                pending.extend(chunk.iter().take(read));
                // A character can be split between two reads. Its first part waits for the rest.
                let whole = match std::str::from_utf8(&pending) {
                    Err(error) if error.error_len().is_none() => error.valid_up_to(),
                    _ => pending.len(),
                };
                let bytes: Vec<u8> = pending.drain(..whole).collect();
                writer.lock().text += &String::from_utf8_lossy(&bytes);
                writer.0.1.notify_all();
            }
            writer.lock().closed = true;
            writer.0.1.notify_all();
        });
        feed
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all text received so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Waits until `find` returns something for the whole text.
    pub fn wait<T>(&self, limit: Duration, mut find: impl FnMut(&str) -> Option<T>) -> Result<T, Silence> {
        let deadline = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            if let Some(found) = find(&heard.text) {
                return Ok(found);
            }
            if heard.closed {
                return Err(Silence::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Deadline);
            }
            heard = self.0.1.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
