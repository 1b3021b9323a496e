//! What a socket of the machine says, collected by a thread and waited for with a deadline.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everything heard so far. Clones share it.
#[derive(Clone)]
pub struct Feed(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    text: String,
    closed: bool,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The deadline passed.
    Deadline,
    /// The other end is gone.
    Closed,
}

impl Feed {
    /// Starts to listen.
    pub fn of(stream: impl Read + Send + 'static) -> Self {
        Self::after(String::new(), stream)
    }

    /// Starts to listen, with a text that counts as heard already.
    pub fn after(text: String, mut stream: impl Read + Send + 'static) -> Self {
        let feed = Self(Arc::default());
        feed.lock().text = text;
        let writer = feed.clone();
        thread::spawn(move || {
            let (mut chunk, mut pending) = ([0; 4096], Vec::new());
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                pending.extend(chunk.iter().take(read));
                // A character can be cut in two by the reads: its first half waits.
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

    /// All the text so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().text.clone()
    }

    /// Waits until `find` finds something in the whole text.
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
