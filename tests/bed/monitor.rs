//! QMP: what QEMU knows about the machine and the guest cannot tell itself.

use crate::feed::Feed;
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A kernel needs longer than this from a reset to its own next one.
const ONE_RESET: Duration = Duration::from_secs(2);

/// The monitor of one machine.
pub struct Monitor {
    feed: Feed,
    stream: UnixStream,
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
