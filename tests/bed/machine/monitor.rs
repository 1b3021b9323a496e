//! QMP: facts that QEMU knows about the machine and that the guest itself cannot report.

use crate::machine::feed::Feed;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The longest time between resets that count as one. A kernel needs longer from a reset to its own next reset.
const ONE_RESET: Duration = Duration::from_secs(2);
/// The limit for an answer. The longest commands write some megabytes.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The monitor of one machine.
pub struct Monitor {
    feed: Feed,
    stream: UnixStream,
    /// The number of commands given so far that have an answer.
    asked: usize,
}

/// The content of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The number of pixels.
    pub pixels: usize,
    /// The number of white pixels.
    pub white: usize,
}

/// An event that QEMU reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `RESET`, `SHUTDOWN`, `GUEST_PANICKED`, `WATCHDOG` ...
    pub name: String,
    /// `guest-reset`, `guest-shutdown`, `host-qmp-quit` ...; the action of a watchdog or a panic.
    pub reason: String,
    /// The time of the event, since 1970.
    pub time: Duration,
    /// Whether the guest caused it, and not the bed.
    pub guest: bool,
}

impl Monitor {
    /// Takes over the monitor of a machine that was started with `-S` and does not run yet.
    pub fn start(stream: UnixStream) -> Result<Self, String> {
        let reader = stream.try_clone().map_err(|e| format!("the monitor's socket: {e}"))?;
        let mut monitor = Self { feed: Feed::of(reader), stream, asked: 0 };
        monitor.command("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Gives a command without arguments, such as `cont`, `system_reset` or `inject-nmi`.
    pub fn command(&mut self, name: &str) -> Result<(), String> {
        writeln!(self.stream, "{{\"execute\": \"{name}\"}}")
            .map_err(|e| format!("monitor command {name}: {e}"))
    }

    /// Gives a command, and returns its answer.
    pub fn ask(&mut self, name: &str, arguments: &Value) -> Result<Value, String> {
        self.asked += 1;
        let id = json!(self.asked);
        let command = json!({"execute": name, "arguments": arguments, "id": id});
        let before = self.feed.text().len();
        writeln!(self.stream, "{command}").map_err(|e| format!("monitor command {name}: {e}"))?;
        let answer = self.feed.wait(ANSWER_LIMIT, |text| {
            let messages = text.get(before..)?.lines().filter_map(|line| serde_json::from_str(line).ok());
            messages.into_iter().find(|message: &Value| message.get("id") == Some(&id))
        });
        let answer = answer.map_err(|silence| format!("monitor command {name}: no answer ({silence:?})"))?;
        match answer.get("error") {
            None => Ok(answer.get("return").cloned().unwrap_or_default()),
            Some(error) => Err(format!("monitor command {name}: {error}")),
        }
    }

    /// Writes the screen's content to a file.
    pub fn screendump(&mut self, file: &Path) -> Result<(), String> {
        self.ask("screendump", &json!({"filename": file})).map(drop)
    }

    /// Stops the machine for good, and writes its state to a file. Memory that is a shared file stays where it
    /// is.
    pub fn save(&mut self, file: &Path) -> Result<(), String> {
        self.ask("stop", &json!({}))?;
        self.leave_out_shared_memory()?;
        self.ask("migrate", &json!({"uri": format!("exec:cat >'{}'", file.display())}))?;
        self.await_migration()
    }

    /// Reads the state from such a file, into a machine that was started with `-incoming defer`. The machine
    /// continues at `cont`.
    pub fn restore(&mut self, file: &Path) -> Result<(), String> {
        self.leave_out_shared_memory()?;
        self.ask("migrate-incoming", &json!({"uri": format!("exec:cat '{}'", file.display())}))?;
        self.await_migration()
    }

    fn await_migration(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let state = self.ask("query-migrate", &json!({}))?;
            match state.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => return Err(format!("the machine's state: {state}")),
                _ if Instant::now() > deadline => return Err(format!("the machine's state: {state}")),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn leave_out_shared_memory(&mut self) -> Result<(), String> {
        let out = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
        self.ask("migrate-set-capabilities", &out).map(drop)
    }

    /// Returns all events so far.
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

    /// Returns how many times the machine has gone through its firmware again. `SeaBIOS` answers a reset with
    /// resets of its own at once, so resets that follow each other closely count as one.
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
    /// Reads a file that `screendump` has written, ppm(5): a header of four words, and three bytes for each
    /// pixel.
    pub fn read(file: &Path) -> Result<Self, String> {
        let bytes = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let pixels = bytes.splitn(5, u8::is_ascii_whitespace).nth(4).unwrap_or_default().chunks_exact(3);
        Ok(Self { pixels: pixels.len(), white: pixels.filter(|pixel| *pixel == [0xff; 3]).count() })
    }
}
