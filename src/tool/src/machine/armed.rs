//! Arming: an init that cannot be asked for another kernel is asked for a restart, and this file tells the hook that
//! the staged kernel is meant by it, this once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nextkernel_plan::{Armed, HandoffId};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;

const PATH: &str = "/run/nextkernel/armed";

/// The file as long as this process lives and vouches for it by its lock: the hook takes it at once, and no later
/// shutdown does.
pub struct Arming {
    path: PathBuf,
    lock: Flock<File>,
}

/// Why nothing is armed.
#[derive(Debug, Error)]
pub enum Error {
    /// Another has armed it, and vouches for it.
    #[error(
        "another `nextkernel reboot` has asked the init, and waits for the machine to go down; wait for that, or end \
         that one"
    )]
    Held,
    /// The file.
    #[error("{PATH} cannot be written: {}; what is staged stays so", InWords(.0))]
    Io(#[from] io::Error),
}

impl Arming {
    /// Arms this handoff. Locked before it has its name, so that nobody finds it unlocked.
    pub fn of(root: &Root, handoff: HandoffId) -> Result<Arming, Error> {
        let path = root.path(PATH);
        let new = path.with_extension("new");
        // What another has locked is not to be emptied.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&new)?;
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => Error::Held,
                errno => Error::Io(errno.into()),
            })?;
        // Until it has its name, whoever has this lock is alone; and who had it before may have given it that name.
        if !is_at(&lock, &new) {
            return Err(Error::Held);
        }
        if is_held(root) {
            let _ = fs::remove_file(&new);
            return Err(Error::Held);
        }
        lock.set_len(0)?;
        let until =
            uptime(root).ok_or_else(|| io::Error::other("/proc/uptime cannot be read"))? + Armed::SECONDS;
        lock.write_all(Armed { handoff, until }.to_string().as_bytes())?;
        fs::rename(&new, &path)?;
        Ok(Arming { path, lock })
    }

    /// Takes it back, and nothing that another has armed since.
    pub fn disarm(self) {
        if is_at(&self.lock, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a `nextkernel reboot` waits for the machine to go down.
#[must_use]
pub fn is_held(root: &Root) -> bool {
    // Shared, for to the hook an exclusive lock would be a witness.
    let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    File::open(root.path(PATH)).is_ok_and(|file| matches!(lock(file), Err((_, Errno::EWOULDBLOCK))))
}

/// Whether this very file has that name.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |it: fs::Metadata| (it.dev(), it.ino());
    file.metadata().is_ok_and(|file| path.metadata().is_ok_and(|there| id(there) == id(file)))
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
    use crate::machine::scratch::Scratch;

    fn machine() -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/uptime", "1000.99 1500.12\n");
        scratch.folder("/run/nextkernel");
        scratch
    }

    #[test]
    fn what_is_armed_means_one_handoff_for_a_while_and_is_vouched_for() {
        let scratch = machine();
        let arming = Arming::of(&scratch.root, HandoffId(7)).unwrap();
        let armed = Armed::parse(&fs::read(scratch.root.path(PATH)).unwrap()).unwrap();
        assert_eq!(armed, Armed { handoff: HandoffId(7), until: 1000 + Armed::SECONDS });
        assert!(is_held(&scratch.root));
        // It goes with its process, and the file alone is left.
        drop(arming);
        assert!(!is_held(&scratch.root));
        Arming::of(&scratch.root, HandoffId(8)).unwrap().disarm();
        assert!(!scratch.root.path(PATH).exists() && !scratch.root.path(PATH).with_extension("new").exists());
    }

    #[test]
    fn while_one_waits_a_second_is_refused_and_neither_takes_the_others_away() {
        let scratch = machine();
        let first = Arming::of(&scratch.root, HandoffId(7)).unwrap();
        let text = fs::read(scratch.root.path(PATH)).unwrap();
        let refused = Arming::of(&scratch.root, HandoffId(8)).err().unwrap();
        assert!(refused.to_string().starts_with("another `nextkernel reboot`"), "{refused}");
        assert_eq!(fs::read(scratch.root.path(PATH)).unwrap(), text);
        assert!(is_held(&scratch.root) && !scratch.root.path(PATH).with_extension("new").exists());
        // One that is about to arm is not emptied, either.
        let new = scratch.root.path(PATH).with_extension("new");
        fs::write(&new, "x").unwrap();
        let lock = Flock::lock(File::open(&new).unwrap(), FlockArg::LockExclusive).unwrap();
        assert!(matches!(Arming::of(&scratch.root, HandoffId(8)), Err(Error::Held)));
        assert_eq!(fs::read(&new).unwrap(), b"x");
        drop(lock);
        // After `nextkernel unstage` another may arm, which the first then leaves.
        disarm(&scratch.root);
        let second = Arming::of(&scratch.root, HandoffId(9)).unwrap();
        first.disarm();
        assert!(is_held(&scratch.root));
        second.disarm();
        assert!(!scratch.root.path(PATH).exists());
    }

    #[test]
    fn without_a_clock_nothing_is_armed() {
        let scratch = machine();
        scratch.put("/proc/uptime", "x");
        assert!(Arming::of(&scratch.root, HandoffId(7)).is_err());
        assert!(!scratch.root.path(PATH).exists());
    }
}
