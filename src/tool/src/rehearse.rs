//! Really loading the staged image by day, so that whatever the kernel has against it is said now.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nextkernel_plan::{Record, Recorded, limits};
use thiserror::Error;

use crate::errno::ByName;
use crate::refusal::{self, Bar, Image};
use crate::root::Root;
use crate::sys;

/// How often a call is tried that another one is in the way of, and how far apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the kernel has against it, in one sentence with the way out.
#[derive(Debug, Error)]
#[error("the kernel refuses to {act} the image: {why} ({})", ByName(.errno))]
pub struct Error {
    act: &'static str,
    why: String,
    errno: io::Error,
}

/// Loads the image with a command line of the greatest length that the night may need. What was
/// loaded stays if this fails. So many calls are left for later where they are counted.
pub fn load(
    root: &Root,
    kernel: &File,
    initrd: Option<&File>,
    cmdline: &str,
    later: u64,
) -> Result<(), Error> {
    // It has the record's name, so that whoever reuses the line drops it, and no handoff's id.
    let record = format!("{:x<1$}", format!("{}=", Record::KEY), limits::RECORD_MAX - 1);
    let longest = CString::new(Recorded { cmdline, record }.to_string()).unwrap_or_default();
    let initrd_fd = initrd.map(AsFd::as_fd);
    let before = Bar::to_calls(root);
    let call = || sys::kexec_file_load(kernel.as_fd(), initrd_fd, &longest);
    unless_busy(|| calls_left(root), later, call).map_err(|errno| {
        let image = Image::of(kernel, initrd, longest.as_bytes_with_nul().len() as u64);
        Error { act: "load", why: refusal::of_load(root, &errno, before, &image), errno }
    })
}

/// How many calls of `kexec_file_load(2)` the system allows until the next boot; `None` where there is no
/// limit. Failed ones and unloading count, too (Documentation/admin-guide/sysctl/kernel.rst).
#[must_use]
pub fn calls_left(root: &Root) -> Option<u64> {
    root.fact("/proc/sys/kernel/kexec_load_limit_reboot")?.parse().ok()
}

/// Unloads what is loaded. So many calls are left for later where they are counted.
pub fn unload(root: &Root, later: u64) -> Result<(), Error> {
    let before = Bar::to_calls(root);
    unless_busy(|| calls_left(root), later, sys::kexec_unload).map_err(|errno| Error {
        act: "unload",
        why: refusal::of_unload(root, &errno, before),
        errno,
    })
}

/// Calls until nothing is in the way. Being told so costs a call, too (`kexec_load_permitted`,
/// `kernel/kexec_core.c`, is asked before the lock).
fn unless_busy(
    left: impl Fn() -> Option<u64>,
    later: u64,
    mut call: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    for _ in 0..BUSY_TRIES {
        match call() {
            Err(errno) if errno.raw_os_error() == Some(libc::EBUSY) => {
                if left().is_some_and(|left| left <= later) {
                    return Err(errno);
                }
                std::thread::sleep(BUSY_PAUSE);
            }
            answer => return answer,
        }
    }
    call()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    /// A refusal, as the kernel gives one.
    pub(crate) fn refusal(act: &'static str) -> Error {
        Error { act, why: "so it is".to_owned(), errno: io::Error::from_raw_os_error(libc::EPERM) }
    }

    #[test]
    fn whoever_is_told_to_wait_spends_none_of_the_calls_that_are_needed_later() {
        for (limit, later, made) in [(Some(5), 2, 3), (Some(3), 2, 1), (Some(1), 0, 1)] {
            let (left, calls) = (Cell::new(limit), Cell::new(0));
            let busy = || {
                calls.set(calls.get() + 1);
                left.set(left.get().map(|left: u64| left.saturating_sub(1)));
                Err(io::Error::from_raw_os_error(libc::EBUSY))
            };
            assert!(unless_busy(|| left.get(), later, busy).is_err());
            assert_eq!(calls.get(), made, "{limit:?}");
        }
    }
}
