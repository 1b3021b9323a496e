//! What is mounted below the old root.

use core::ffi::CStr;

use rustix::fs::CWD;
use rustix::mount::{UnmountFlags, unmount};

use super::{Kind, Round};
use crate::failure::Failure;
use crate::{files, limits, mounts};

/// Unmounts it, what was mounted last first. mountinfo is read anew for each: unmounting one may take others
/// along, and what is busy now is passed over.
pub fn close(below: &CStr, round: &mut Round) -> Result<(), Failure> {
    let mut point = [0; limits::MOUNT_POINT_MAX];
    let mut number = find(below, usize::MAX, &mut point)?.unwrap_or(0);
    while number > 0 {
        number -= 1;
        if find(below, number, &mut point)?.is_some() {
            continue;
        }
        let Ok(path) = CStr::from_bytes_until_nul(&point) else { continue };
        // Forced as systemd does it: it ends requests to a server that is gone, and nothing else.
        let flags = UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
        round.attempt(Kind::Mounted, path.to_bytes(), &mut || unmount(path, flags));
    }
    Ok(())
}

/// Puts the mount point with this number, among those at and below a folder, in the buffer. Where there are not so
/// many, tells how many there are.
fn find(below: &CStr, number: usize, point: &mut [u8]) -> Result<Option<usize>, Failure> {
    let mut count = 0;
    let found = files::find_line(CWD, mounts::MOUNTINFO, |line| {
        let path = mounts::point(line, point)?;
        let counts = is_below(path.to_bytes(), below.to_bytes());
        let found = counts && count == number;
        count += usize::from(counts);
        found.then_some(())
    });
    match found {
        Ok(Some(())) => Ok(None),
        Ok(None) => Ok(Some(count)),
        Err(errno) => Err(Failure::Call { call: "read /proc/self/mountinfo", errno }),
    }
}

/// Whether a path is a folder's own, or one in it.
#[must_use]
pub fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_at_or_below_the_folder_is_unmounted() {
        for (path, below) in [
            ("/oldroot", true),
            ("/oldroot/", true),
            ("/oldroot/home/a b", true),
            ("/oldroot2", false),
            ("/", false),
            ("/run/oldroot", false),
            ("", false),
        ] {
            assert_eq!(is_below(path.as_bytes(), b"/oldroot"), below, "{path}");
        }
    }
}
