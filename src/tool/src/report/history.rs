//! /var/lib/nextkernel: the facts that outlive a boot. They are a line for each boot, the handoffs that were
//! staged for this boot and last, and when the system began to go down.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nextkernel_plan::{HandoffId, Record};
use serde::{Deserialize, Serialize};

use super::boot::{Asked, Boot, LONGEST_MS, is_id, is_plain};
use super::clock::Then;
use crate::image::cmdline;
use crate::machine::root::Root;

/// The directory of these files.
pub const DIRECTORY: &str = "/var/lib/nextkernel";
/// The history: one line for each boot, the oldest first.
pub const HISTORY: &str = "/var/lib/nextkernel/history";
const STOPPED: &str = "/var/lib/nextkernel/stopped";
const STAGED: &str = "/var/lib/nextkernel/staged";
const SEEN: &str = "/var/lib/nextkernel/seen";

/// Maximum number of boots that are kept.
pub const BOOTS_MAX: usize = 200;
/// Maximum length of a line, in bytes.
const LINE_MAX: usize = 4096;
/// Maximum number of bytes that are read from a file.
const FILE_MAX: u64 = 1 << 20;

/// The boots that were recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The boots, the oldest first.
    pub boots: Vec<Boot>,
    /// Number of lines that could not be read.
    pub damaged: usize,
}

impl History {
    /// Parses a history. Any bytes give one, because a damaged line costs only itself.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> History {
        let mut history = History::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let boot = (line.len() <= LINE_MAX).then(|| serde_json::from_slice::<Boot>(line).ok()).flatten();
            match boot.filter(Boot::is_sound) {
                Some(boot) => history.boots.push(boot),
                None => history.damaged += 1,
            }
        }
        history
    }

    /// Reads the history, which is empty if nothing was written yet.
    pub fn read(root: &Root) -> io::Result<History> {
        Ok(History::parse(&bounded(root, HISTORY)?))
    }

    /// Adds a boot. Removes the oldest beyond the maximum, but not the last baseline.
    pub fn push(&mut self, boot: Boot) {
        self.boots.push(boot);
        while self.boots.len() > BOOTS_MAX {
            let kept = self.boots.iter().rposition(Boot::is_yardstick);
            self.boots.remove(usize::from(kept == Some(0)));
        }
    }

    /// Replaces the file as a whole; on an error the old one stays as it was.
    pub fn write(&self, root: &Root) -> io::Result<()> {
        let lines = self.boots.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        replace(root, HISTORY, (lines.join("\n") + "\n").as_bytes())
    }

    /// Returns the boots at which a handoff was meant to start and failed, the newest first. They are those
    /// since the last successful handoff, and since the last one that a person has acknowledged.
    pub fn failed(&self, seen: Option<&str>) -> impl Iterator<Item = &Boot> {
        let since = self
            .boots
            .iter()
            .rev()
            .take_while(move |boot| !boot.is_by_handoff() && Some(boot.boot_id.as_str()) != seen);
        since.filter(|boot| boot.failed.is_some())
    }

    /// Returns the baseline for handoffs: the last full reboot that was measured as a whole.
    #[must_use]
    pub fn yardstick(&self) -> Option<&Boot> {
        self.boots.iter().rev().find(|boot| boot.is_yardstick())
    }
}

/// When a system began to go down, and on which request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The id of that boot.
    pub boot_id: String,
    /// The request on which it went down.
    pub asked: Asked,
    /// The time in milliseconds since the epoch.
    pub realtime_ms: u64,
    /// The handoff that was to be carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<String>,
    /// The processor's counter at that time. The next kernel judges whether it went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
}

impl Stopped {
    /// Parses the record; `None` if it is damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Stopped> {
        serde_json::from_slice::<Stopped>(bytes).ok().filter(|stopped| is_id(&stopped.boot_id))
    }

    /// Reads the record that an earlier boot left.
    #[must_use]
    pub fn read(root: &Root) -> Option<Stopped> {
        Stopped::parse(&bounded(root, STOPPED).ok()?)
    }

    /// Leaves the record for the next boot.
    pub fn write(&self, root: &Root) -> io::Result<()> {
        replace(root, STOPPED, (serde_json::to_string(self)? + "\n").as_bytes())
    }

    /// Removes the record once it was used.
    pub fn remove(root: &Root) {
        let _ = fs::remove_file(root.path(STOPPED));
    }

    /// Returns the moment of the record.
    #[must_use]
    pub fn then(&self) -> Then {
        Then { counter: self.counter, realtime_ms: self.realtime_ms }
    }
}

/// A handoff that was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The handoff's id.
    pub handoff: String,
    /// The entry's name.
    pub entry: String,
    /// The loading syscall: `verified` or `direct`.
    pub loader: String,
    /// How long the test load took, in milliseconds; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<u64>,
}

impl Staged {
    /// Parses a line; `None` if it is damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Staged> {
        let staged = serde_json::from_slice::<Staged>(bytes).ok()?;
        let plain =
            is_plain(&staged.entry, nextkernel_plan::limits::ENTRY_MAX) && is_plain(&staged.loader, 16);
        (plain && staged.load_ms.is_none_or(|ms| ms <= LONGEST_MS)).then_some(staged)
    }

    /// Returns the record of this handoff, if there is one.
    #[must_use]
    pub fn of(root: &Root, handoff: HandoffId) -> Option<Staged> {
        let (all, handoff) = (bounded(root, STAGED).ok()?, handoff.to_string());
        let mut lines = all.split(|byte| *byte == b'\n').filter_map(Staged::parse);
        lines.find(|staged| staged.handoff == handoff)
    }
}

/// Returns the id of the last boot whose failed handoff a person has acknowledged.
#[must_use]
pub fn seen(root: &Root) -> Option<String> {
    let text = bounded(root, SEEN).ok()?;
    Some(String::from_utf8_lossy(&text).trim_end().to_owned()).filter(|boot_id| !boot_id.is_empty())
}

/// Records that a person has acknowledged the failed handoffs up to this boot.
pub fn see(root: &Root, boot_id: &str) -> io::Result<()> {
    replace(root, SEEN, format!("{boot_id}\n").as_bytes())
}

/// Records facts about a staged handoff that the next kernel's report cannot find out otherwise. `nextkernel
/// stage` calls this once its plan is active. `load` is how long the test load took, if there was one. The
/// record of the handoff that started the running kernel is kept, because the next one may be staged before
/// anybody asks for the report.
pub fn staged(
    root: &Root,
    handoff: HandoffId,
    entry: &str,
    loader: &str,
    load: Option<Duration>,
) -> io::Result<()> {
    let staged = Staged {
        handoff: handoff.to_string(),
        entry: entry.to_owned(),
        loader: loader.to_owned(),
        load_ms: load.and_then(|load| u64::try_from(load.as_millis()).ok()),
    };
    let record = cmdline::running(root).ok().and_then(|line| Record::find(&line));
    let running = record.and_then(|record| Staged::of(root, record.handoff));
    let lines = running.iter().chain([&staged]).map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    replace(root, STAGED, (lines.join("\n") + "\n").as_bytes())
}

fn bounded(root: &Root, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match root.open(path) {
        Ok(file) => file.take(FILE_MAX).read_to_end(&mut bytes).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }?;
    Ok(bytes)
}

/// Writes a file that everybody can read, whole or not at all, in our directory, which is created if it is
/// missing.
fn replace(root: &Root, path: &str, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(root.path(DIRECTORY))?;
    write_whole(&root.path(path), bytes)
}

/// Writes a file that everybody can read, whole or not at all, and syncs it. The temporary name has another
/// suffix, because some programs read all files of a directory that have a certain suffix.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new);
    let written = options.and_then(|mut file| {
        // Independently of the umask, which is strict if a unit stages.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(bytes).and_then(|()| file.sync_all())
    });
    written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    let directory = path.parent().filter(|directory| *directory != Path::new("")).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use crate::report::boot::tests::{boot, firmware};

    #[test]
    fn what_is_written_is_read_again() {
        let scratch = Scratch::new();
        assert_eq!(History::read(&scratch.root).unwrap(), History::default());
        let mut history = History::default();
        history.push(boot());
        history.push(firmware());
        history.write(&scratch.root).unwrap();
        assert_eq!(History::read(&scratch.root).unwrap(), history);

        let stopped = Stopped {
            boot_id: boot().boot_id,
            asked: Asked::Kexec,
            realtime_ms: 5,
            handoff: None,
            counter: Some(7),
        };
        stopped.write(&scratch.root).unwrap();
        assert_eq!(Stopped::read(&scratch.root), Some(stopped));
        Stopped::remove(&scratch.root);
        assert_eq!(Stopped::read(&scratch.root), None);

        staged(&scratch.root, HandoffId(7), "6.12", "direct", Some(Duration::from_millis(400))).unwrap();
        let of = |handoff| Staged::of(&scratch.root, HandoffId(handoff));
        assert_eq!((of(7).unwrap().load_ms, of(8)), (Some(400), None));
        let left = fs::read_dir(scratch.root.path(DIRECTORY)).unwrap().count();
        assert_eq!(left, 2, "nothing is left over");
    }

    #[test]
    fn what_started_this_kernel_is_known_however_often_another_is_staged_since() {
        let scratch = Scratch::new();
        let stage = |handoff| staged(&scratch.root, HandoffId(handoff), "6.12", "direct", None).unwrap();
        let known = || (1..=4).filter(|number| Staged::of(&scratch.root, HandoffId(*number)).is_some());
        stage(1);
        stage(2);
        assert_eq!(known().collect::<Vec<_>>(), [2]);
        scratch.put("/proc/cmdline", "root=x nextkernel.record=0000000000000002:kexec:1:2:s5.l6:m\n");
        stage(3);
        stage(4);
        assert_eq!(known().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_damaged_line_costs_only_itself() {
        let whole = serde_json::to_string(&boot()).unwrap();
        let long = whole.replace("6.12", &"6".repeat(LINE_MAX));
        let steering = whole.replace("6.12", "\\u001b[2J");
        let twice = whole.replace("{\"phase\":\"sync\"", "{\"phase\":\"stop\"");
        for damaged in ["{", "\u{0}", "null", "[]", &long, &steering, &twice, &whole.replace("kexec", "")] {
            let history = History::parse(format!("{whole}\n{damaged}\n\n{whole}").as_bytes());
            assert_eq!((history.boots.len(), history.damaged), (2, 1), "{damaged:?}");
        }
    }

    #[test]
    fn everybody_may_read_it_whoever_wrote_it() {
        let scratch = Scratch::new();
        let cut_off = format!("{HISTORY}.new");
        scratch.put(&cut_off, "half");
        fs::set_permissions(scratch.root.path(&cut_off), Permissions::from_mode(0o600)).unwrap();
        History::default().write(&scratch.root).unwrap();
        assert_eq!(scratch.root.path(HISTORY).metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn the_history_is_bounded_and_the_last_yardstick_stays() {
        let mut history = History::default();
        history.push(boot());
        history.push(firmware());
        for started_at in 0..u64::try_from(BOOTS_MAX).unwrap() {
            history.push(Boot { started_at, ..boot() });
        }
        assert_eq!(history.boots.len(), BOOTS_MAX);
        assert_eq!(history.yardstick(), Some(&firmware()));
        assert_eq!(history.boots.get(1).unwrap().started_at, 1);
        history.push(Boot { started_at: 9, ..firmware() });
        history.push(boot());
        assert_eq!(history.yardstick().unwrap().started_at, 9);
        assert_eq!(history.boots.iter().filter(|boot| boot.is_yardstick()).count(), 1);
    }
}
