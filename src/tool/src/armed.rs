//! Arming: an init that cannot be asked for another kernel is asked for a restart, and this file tells the hook that
//! the staged kernel is meant by it, this once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nextkernel_plan::{Armed, HandoffId};
use nix::fcntl::{Flock, FlockArg};

use crate::root::Root;

const PATH: &str = "/run/nextkernel/armed";

/// The file as long as this process lives and vouches for it by its lock: the hook takes it at once, and no later
/// shutdown does.
pub struct Arming {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Arming {
    /// Arms this handoff. Locked before it has its name, so that nobody finds it unlocked.
    pub fn of(root: &Root, handoff: HandoffId) -> io::Result<Arming> {
        let path = root.path(PATH);
        let new = path.with_extension("new");
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let mut lock = Flock::lock(options?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        let until =
            uptime(root).ok_or_else(|| io::Error::other("/proc/uptime cannot be read"))? + Armed::SECONDS;
        lock.write_all(Armed { handoff, until }.to_string().as_bytes())?;
        fs::rename(&new, &path)?;
        Ok(Arming { path, _lock: lock })
    }

    /// Takes it back.
    pub fn disarm(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes back what anybody has armed.
pub fn disarm(root: &Root) {
    let _ = fs::remove_file(root.path(PATH));
}

/// Whole seconds of `CLOCK_BOOTTIME` (`uptime_proc_show`, fs/proc/uptime.c).
fn uptime(root: &Root) -> Option<u64> {
    root.fact("/proc/uptime")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::Scratch;

    fn machine() -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/uptime", "1000.99 1500.12\n");
        scratch.folder("/run/nextkernel");
        scratch
    }

    fn is_locked(scratch: &Scratch) -> bool {
        let file = File::open(scratch.root.path(PATH)).unwrap();
        Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
    }

    #[test]
    fn what_is_armed_means_one_handoff_for_a_while_and_is_vouched_for() {
        let scratch = machine();
        let arming = Arming::of(&scratch.root, HandoffId(7)).unwrap();
        let armed = Armed::parse(&fs::read(scratch.root.path(PATH)).unwrap()).unwrap();
        assert_eq!(armed, Armed { handoff: HandoffId(7), until: 1000 + Armed::SECONDS });
        assert!(is_locked(&scratch));
        // It goes with its process, and the file alone is left.
        drop(arming);
        assert!(!is_locked(&scratch));
        Arming::of(&scratch.root, HandoffId(8)).unwrap().disarm();
        assert!(!scratch.root.path(PATH).exists() && !scratch.root.path(PATH).with_extension("new").exists());
    }

    #[test]
    fn without_a_clock_nothing_is_armed() {
        let scratch = machine();
        scratch.put("/proc/uptime", "x");
        assert!(Arming::of(&scratch.root, HandoffId(7)).is_err());
        assert!(!scratch.root.path(PATH).exists());
    }
}
