//! Before anything is done: a panic may not be the end, and what is said must be seen.

use core::ffi::CStr;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;

use crate::{limits, read};

/// Makes a panic restart the machine where it would stay for ever, and lets the log through to every
/// console. None of it is needed for the jump, so none of it can fail the night.
pub fn protect() {
    if first_byte(c"/proc/sys/kernel/panic") == Some(b'0') {
        let _ = set(c"/proc/sys/kernel/panic", limits::PANIC_SECONDS);
    }
    // It may be off, and then /dev/kmsg takes nothing (Documentation/admin-guide/sysctl/kernel.rst); and
    // the init's other hooks are limited to 10 lines in 5 seconds.
    let _ = set(c"/proc/sys/kernel/printk_devkmsg", b"on\n");
    let _ = set(c"/proc/sys/kernel/printk", b"7\n");
}

fn set(path: &CStr, value: &[u8]) -> io::Result<()> {
    let file = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::write(&file, value).map(|_| ())
}

fn first_byte(path: &CStr) -> Option<u8> {
    let mut buffer = [0; 1];
    read::up_to(read::open(CWD, path).ok()?, &mut buffer).ok()?.first().copied()
}
