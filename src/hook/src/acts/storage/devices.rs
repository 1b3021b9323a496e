//! Block devices that lie on other storage: loop devices, mapped devices, arrays.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{CWD, Mode, OFlags, fstat, fsync, openat};
use rustix::io::{self, Errno};

use crate::acts::storage::round::Round;
use crate::bounds::open::Kind;
use crate::sys::name::Name;
use crate::sys::text::Text;
use crate::sys::{calls, files};

/// Closes each device that no other device lies on. Those that do are listed in its directory `holders`.
pub fn close(round: &mut Round) {
    // Without /sys no device can be seen.
    let Ok(all) = files::directory(CWD, c"/sys/block") else { return };
    let _ = files::find_entry(&all, |name| {
        let directory = files::directory(&all, name).ok()?;
        let kind = kind(name.to_bytes(), directory.as_fd())?;
        // A mapped device has a second name.
        let mut mapped = [0; 128];
        let mapped = read(directory.as_fd(), c"dm/name", &mut mapped).trim_ascii_end();
        let label = Text::<200>::of(format_args!("{} ({})", name.to_str().ok()?, Name::<128>::cut(mapped)));
        let label = label.as_c_str().filter(|_| !mapped.is_empty()).unwrap_or(name).to_bytes();
        let holders = files::directory(&directory, c"holders");
        if holders.and_then(|holders| files::find_entry(holders, |_| Some(()))).is_ok_and(|one| one.is_some())
        {
            round.leave(kind, label, Errno::BUSY);
        } else {
            round.attempt(kind, label, &mut || act(kind, name));
        }
        None::<()>
    });
}

/// Returns the kind of an open device by its name and its directory in /sys/block; `None` for any other
/// device.
fn kind(name: &[u8], directory: BorrowedFd<'_>) -> Option<Kind> {
    let mut buffer = [0; 16];
    if name.starts_with(b"dm-") {
        return Some(Kind::Mapped);
    }
    if name.starts_with(b"loop") {
        return files::open(directory, c"loop/backing_file").ok().map(|_| Kind::Loop);
    }
    if !name.starts_with(b"md") || is_container(read(directory, c"md/metadata_version", &mut buffer)) {
        return None;
    }
    let state = read(directory, c"md/array_state", &mut buffer);
    (!state.is_empty() && state != b"clear\n").then_some(Kind::Array)
}

/// Whether this is the metadata of a container. A container holds the arrays of a firmware's RAID and is no
/// array itself; its arrays name it after `/` or `-` (`metadata_show`, drivers/md/md.c;
/// Documentation/admin-guide/md.rst).
fn is_container(metadata: &[u8]) -> bool {
    metadata.strip_prefix(b"external:").is_some_and(|kind| !kind.starts_with(b"/") && !kind.starts_with(b"-"))
}

fn act(kind: Kind, name: &CStr) -> io::Result<()> {
    let node = Text::<64>::of(format_args!("/dev/{}", name.to_str().unwrap_or_default()));
    let node = node.as_c_str().ok_or(Errno::NAMETOOLONG)?;
    // Exclusive: a mounted device is refused before anything is changed.
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = openat(CWD, node, flags, Mode::empty())?;
    fsync(&device)?;
    match kind {
        Kind::Loop => calls::loop_clear(&device),
        Kind::Array => calls::md_stop(&device),
        _ => {
            let number = fstat(&device)?.st_rdev;
            drop(device);
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            calls::dm_remove(openat(CWD, c"/dev/mapper/control", flags, Mode::empty())?, number)
        }
    }
}

/// Reads a small file of sysfs. Returns nothing if it is not there.
fn read<'b>(directory: BorrowedFd<'_>, name: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    files::open(directory, name).and_then(|file| files::up_to(file, buffer)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_told_from_the_arrays_in_it() {
        assert!(is_container(b"external:imsm\n") && is_container(b"external:"));
        for array in ["external:/md127/0\n", "external:-md127/0\n", "1.2\n", "none\n", ""] {
            assert!(!is_container(array.as_bytes()), "{array:?}");
        }
    }
}
