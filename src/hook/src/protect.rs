//! Before anything is done: a panic may not be the end, and what is said must be seen.

use core::ffi::CStr;

use rustix::fs::CWD;

use crate::failure::Failure;
use crate::{files, limits};

/// Makes a panic restart the machine where it would stay for ever, and lets the log through to every
/// console. None of it is needed for the jump, so none of it can fail the night.
pub fn protect() -> Result<(), Failure> {
    if first_byte(c"/proc/sys/kernel/panic") == Some(b'0') {
        let _ = files::write(CWD, c"/proc/sys/kernel/panic", limits::PANIC_SECONDS);
    }
    // It may be off, and then /dev/kmsg takes nothing (Documentation/admin-guide/sysctl/kernel.rst); and
    // the init's other hooks are limited to 10 lines in 5 seconds.
    let _ = files::write(CWD, c"/proc/sys/kernel/printk_devkmsg", b"on\n");
    let _ = files::write(CWD, c"/proc/sys/kernel/printk", b"7\n");
    Ok(())
}

fn first_byte(path: &CStr) -> Option<u8> {
    let mut buffer = [0; 1];
    files::up_to(files::open(CWD, path).ok()?, &mut buffer).ok()?.first().copied()
}
