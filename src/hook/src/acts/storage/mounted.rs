//! Mounts below the old root.

use core::ffi::CStr;

use rustix::mount::{UnmountFlags, unmount};

use crate::acts::storage::round::Round;
use crate::bounds::failure::Failure;
use crate::bounds::open::Kind;
use crate::scene::mounts;
use crate::sys::limits;

/// Unmounts everything at and below `below`. Skips mounts that are busy.
pub fn close(below: &CStr, round: &mut Round) -> Result<(), Failure> {
    let mut point = [0; limits::MOUNT_POINT_MAX];
    let concerns = |line: &[u8]| {
        mounts::point(line, &mut point).is_some_and(|path| is_below(path.to_bytes(), below.to_bytes()))
    };
    mounts::last_first(concerns, |path, _| {
        // Forced, as systemd does it: that ends requests to a server that is gone, and nothing else.
        let flags = UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
        round.attempt(Kind::Mounted, path.to_bytes(), &mut || unmount(path, flags));
    })
    .map_err(Failure::of_mountinfo)
}

/// Whether `path` is the directory `directory`, or lies in it.
#[must_use]
pub fn is_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
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
