//! Arming: an init that cannot be asked for a kexec is asked for a reboot. This file tells the hook that this
//! one reboot means the staged kernel.

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

/// The file, and the lock by which this process vouches for it. The lock lasts as long as the process. The
/// hook removes the file before it acts on it, so that it does not count for a later shutdown.
pub struct Arming {
    path: PathBuf,
    lock: Flock<File>,
}

/// Why nothing was armed.
#[derive(Debug, Error)]
pub enum Error {
    /// Another process has armed a handoff and still holds the lock.
    #[error(
        "another `nextkernel reboot` has asked the init, and waits for the machine to go down; wait for that, or end \
         that one"
    )]
    Held,
    /// The file cannot be written.
    #[error("{PATH} cannot be written: {}; what is staged stays so", InWords(.0))]
    Io(#[from] io::Error),
}

impl Arming {
    /// Arms this handoff. The file is locked before it gets its final name, so that it is never found
    /// unlocked.
    pub fn of(root: &Root, handoff: HandoffId) -> Result<Arming, Error> {
        let path = root.path(PATH);
        let new = path.with_extension("new");
        // Not truncated here: another process may have locked the file.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&new)?;
        let mut lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => Error::Held,
                errno => Error::Io(errno.into()),
            })?;
        // As long as the file has its temporary name, the holder of this lock is alone. A previous holder may
        // have renamed the file between our open and our lock.
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

    /// Takes the arming back, unless another process has armed a handoff since.
    pub fn disarm(self) {
        if is_at(&self.lock, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a `nextkernel reboot` waits for the machine to go down.
#[must_use]
pub fn is_held(root: &Root) -> bool {
    // A shared lock, because the hook would take an exclusive one for the lock of a waiting `nextkernel
    // reboot`.
    let lock = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    File::open(root.path(PATH)).is_ok_and(|file| matches!(lock(file), Err((_, Errno::EWOULDBLOCK))))
}

/// Whether this path names this very file (same device and inode).
fn is_at(file: &File, path: &Path) -> bool {
    let id = |it: fs::Metadata| (it.dev(), it.ino());
    file.metadata().is_ok_and(|file| path.metadata().is_ok_and(|there| id(there) == id(file)))
}

/// Removes the file, whichever process has armed it.
pub fn disarm(root: &Root) {
    let _ = fs::remove_file(root.path(PATH));
}

/// Returns the uptime in whole seconds of `CLOCK_BOOTTIME` (`uptime_proc_show`, fs/proc/uptime.c).
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
        scratch.directory("/run/nextkernel");
        scratch
    }

    #[test]
    fn what_is_armed_means_one_handoff_for_a_while_and_is_vouched_for() {
        let scratch = machine();
        let arming = Arming::of(&scratch.root, HandoffId(7)).unwrap();
        let armed = Armed::parse(&fs::read(scratch.root.path(PATH)).unwrap()).unwrap();
        assert_eq!(armed, Armed { handoff: HandoffId(7), until: 1000 + Armed::SECONDS });
        assert!(is_held(&scratch.root));
        // The lock ends with its process; only the file is left.
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
        // The file of a process that is about to arm is not emptied, either.
        let new = scratch.root.path(PATH).with_extension("new");
        fs::write(&new, "x").unwrap();
        let lock = Flock::lock(File::open(&new).unwrap(), FlockArg::LockExclusive).unwrap();
        assert!(matches!(Arming::of(&scratch.root, HandoffId(8)), Err(Error::Held)));
        assert_eq!(fs::read(&new).unwrap(), b"x");
        drop(lock);
        // After `nextkernel unstage` another process may arm; the first one then leaves the new file alone.
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
