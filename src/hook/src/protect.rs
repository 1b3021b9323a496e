//! Before anything is done: nothing may cut the night short, and its lines must be seen.

use core::ffi::CStr;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;

use crate::{limits, read, sys};

/// Blocks signals (systemd ends a hook when another one died by a signal), makes a panic restart
/// the machine where it would stay for ever, and lets every line of the log through to every
/// console. None of it is needed for the jump, so none of it can fail the night.
pub fn protect() {
    let _ = sys::block_signals();
    if first_byte(c"/proc/sys/kernel/panic") == Some(b'0') {
        let _ = set(c"/proc/sys/kernel/panic", limits::PANIC_SECONDS);
    }
    // Documentation/admin-guide/sysctl/kernel.rst: else all but 10 lines in 5 seconds are dropped.
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
