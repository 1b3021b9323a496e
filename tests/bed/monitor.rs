//! QMP: what QEMU knows about the machine and the guest cannot tell itself.

use crate::feed::Feed;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A kernel needs longer than this from a reset to its own next one.
const ONE_RESET: Duration = Duration::from_secs(2);
/// QEMU draws and writes a few megabytes.
const PICTURE_LIMIT: Duration = Duration::from_secs(20);

/// The monitor of one machine.
pub struct Monitor {
    feed: Feed,
    stream: UnixStream,
}

/// What was on a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// How many pixels there are.
    pub pixels: usize,
    /// How many of them are white.
    pub white: usize,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `RESET`, `SHUTDOWN`, `GUEST_PANICKED`, `WATCHDOG` ...
    pub name: String,
    /// `guest-reset`, `guest-shutdown`, `host-qmp-quit` ...; the action of a watchdog or a panic.
    pub reason: String,
    /// When, since 1970.
    pub time: Duration,
    /// The guest did it, not the bed.
    pub guest: bool,
}

impl Monitor {
    /// Takes over the monitor of a machine that was started with `-S`, and lets it run.
    pub fn start(stream: UnixStream) -> Result<Self, String> {
        let reader = stream.try_clone().map_err(|e| format!("the monitor's socket: {e}"))?;
        let mut monitor = Self { feed: Feed::of(reader), stream };
        monitor.command("qmp_capabilities")?;
        monitor.command("cont")?;
        Ok(monitor)
    }

    /// Gives a command without arguments, such as `system_reset` or `inject-nmi`.
    pub fn command(&mut self, name: &str) -> Result<(), String> {
        writeln!(self.stream, "{{\"execute\": \"{name}\"}}")
            .map_err(|e| format!("monitor command {name}: {e}"))
    }

    /// Writes what is on the screen to a file.
    pub fn screendump(&mut self, file: &Path) -> Result<(), String> {
        // The one command that is waited for: its answer is known by its id.
        let command = json!({"execute": "screendump", "arguments": {"filename": file}, "id": file});
        let before = self.feed.text().len();
        writeln!(self.stream, "{command}").map_err(|e| format!("monitor command screendump: {e}"))?;
        let answer = self.feed.wait(PICTURE_LIMIT, |text| {
            let messages = text.get(before..)?.lines().filter_map(|line| serde_json::from_str(line).ok());
            messages.into_iter().find(|message: &Value| message.get("id") == Some(&json!(file)))
        });
        match answer.map(|answer| answer.get("error").cloned()) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(format!("no picture: {error}")),
            Err(silence) => Err(format!("no picture: the monitor is silent ({silence:?})")),
        }
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let text = self.feed.text();
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        messages
            .filter_map(|message| {
                let data = message.get("data");
                let field = |name| data.and_then(|data| data.get(name));
                let time = message.get("timestamp")?;
                let time = |name| time.get(name).and_then(Value::as_u64).unwrap_or_default();
                let reason = field("reason").or_else(|| field("action")).and_then(Value::as_str);
                Some(Event {
                    name: message.get("event")?.as_str()?.into(),
                    reason: reason.unwrap_or_default().into(),
                    time: Duration::from_secs(time("seconds")) + Duration::from_micros(time("microseconds")),
                    guest: field("guest").and_then(Value::as_bool).unwrap_or_default(),
                })
            })
            .collect()
    }

    /// How many times the machine went through its firmware again. `SeaBIOS` answers a reset with
    /// resets of its own at once, so those that follow each other closely are one.
    #[must_use]
    pub fn resets(&self) -> usize {
        let (mut count, mut last) = (0, Duration::ZERO);
        for event in self.events().iter().filter(|event| event.name == "RESET") {
            if event.time.saturating_sub(last) > ONE_RESET {
                count += 1;
            }
            last = event.time;
        }
        count
    }
}

impl Picture {
    /// Reads what `screendump` writes, ppm(5): a header of four words, three bytes for each pixel.
    pub fn read(file: &Path) -> Result<Self, String> {
        let bytes = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let pixels = bytes.splitn(5, u8::is_ascii_whitespace).nth(4).unwrap_or_default().chunks_exact(3);
        Ok(Self { pixels: pixels.len(), white: pixels.filter(|pixel| *pixel == [0xff; 3]).count() })
    }
}
