//! The handoff that `nextkernel reboot` has armed, for inits that can be asked for a reboot and for nothing
//! else.

use nextkernel_plan::{Armed, HandoffId};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use rustix::io::Errno;

use crate::sys::{clock, files};

const NAME: &core::ffi::CStr = c"armed";

/// Returns whether this handoff is armed.
///
/// If `needs_witness` is set, the init does not reveal what it was asked for, and a power button would look the
/// same. Then the handoff counts as armed only while the `nextkernel reboot` that asked still waits, holding
/// its lock.
#[must_use]
pub fn is_for(directory: &OwnedFd, handoff: HandoffId, needs_witness: bool) -> bool {
    let mut text = [0; Armed::MAX + 1];
    let Ok(file) = files::open(directory, NAME) else { return false };
    let armed = files::up_to(&file, &mut text).ok().and_then(Armed::parse);
    let witnessed = || flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    armed.is_some_and(|armed| armed.is_for(handoff, clock::uptime().as_secs()))
        && (!needs_witness || witnessed())
}

/// Removes the file: it is valid once, whatever comes of it.
pub fn use_up(directory: &OwnedFd) {
    let _ = unlinkat(directory, NAME, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ffi::CString;

    #[test]
    fn it_counts_once_and_where_nobody_tells_the_verb_only_while_who_asked_still_waits() {
        let path = std::env::temp_dir().join(format!("nextkernel-armed-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let directory =
            files::directory(rustix::fs::CWD, &CString::new(path.to_str().unwrap()).unwrap()).unwrap();
        let (handoff, file) = (HandoffId(7), path.join("armed"));
        assert!(!is_for(&directory, handoff, false));
        let until = clock::uptime().as_secs() + 60;
        std::fs::write(&file, Armed { handoff, until }.to_string()).unwrap();
        assert!(is_for(&directory, handoff, false) && !is_for(&directory, HandoffId(8), false));
        assert!(!is_for(&directory, handoff, true));
        let witness = files::open(&directory, NAME).unwrap();
        flock(&witness, FlockOperation::LockExclusive).unwrap();
        assert!(is_for(&directory, handoff, true));
        drop(witness);
        assert!(!is_for(&directory, handoff, true));
        use_up(&directory);
        assert!(!is_for(&directory, handoff, false));
        std::fs::remove_dir_all(path).unwrap();
    }
}
