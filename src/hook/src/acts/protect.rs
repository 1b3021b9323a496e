//! Before anything else: a panic must not leave the machine hanging, and the log must be seen.

use rustix::fs::CWD;
use rustix::io::{self, pwrite};

use crate::bounds::failure::Failure;
use crate::sys::say::LOG;
use crate::sys::{calls, files, limits};

/// Lets a panic restart the machine if it would otherwise stay there for ever, and lets the log through to
/// every console. Never fails, because the jump needs none of this.
pub fn protect() -> Result<(), Failure> {
    let _ = bound_a_panic();
    // It may be off, and then /dev/kmsg takes nothing (Documentation/admin-guide/sysctl/kernel.rst).
    // Otherwise the init's other hooks are limited to 10 lines in 5 seconds.
    if files::write(CWD, c"/proc/sys/kernel/printk_devkmsg", b"on\n").is_ok() {
        LOG.keep_open();
    }
    let _ = calls::set_console_level(limits::CONSOLE_LEVEL);
    Ok(())
}

fn bound_a_panic() -> io::Result<()> {
    let panic = files::open_both(c"/proc/sys/kernel/panic")?;
    if files::up_to(&panic, &mut [0; 1])? == b"0" {
        pwrite(&panic, limits::PANIC_SECONDS, 0)?;
    }
    Ok(())
}
