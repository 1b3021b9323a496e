//! Swap space that is in use.

use rustix::fs::CWD;

use crate::acts::storage::round::Round;
use crate::bounds::open::Kind;
use crate::scene::mounts;
use crate::sys::{calls, files, limits};

/// Turns off all swap space.
pub fn close(round: &mut Round) {
    let mut buffer = [0; limits::MOUNT_POINT_MAX];
    // A kernel without swap has no such file.
    let _ = files::find_line(CWD, c"/proc/swaps", |line| {
        // The first line is a heading.
        let path = line.split(|byte| *byte == b' ' || *byte == b'\t').next();
        let path = mounts::unescape(path.filter(|path| path.starts_with(b"/"))?, &mut buffer)?;
        round.attempt(Kind::Swap, path.to_bytes(), &mut || calls::swapoff(path));
        None::<()>
    });
}
