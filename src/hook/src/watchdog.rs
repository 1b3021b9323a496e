//! The hardware watchdog that systemd leaves armed.

use log::warn;
use nextkernel_plan::Verb;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;

use crate::arguments::Watchdog;
use crate::failure::Failure;
use crate::read;

/// At `reboot` systemd arms the watchdog for ten minutes and leaves it so, against a firmware that
/// hangs (`RebootWatchdogSec=`, systemd-system.conf(5)). A next kernel without that driver would be
/// reset in the midst of its work: it is stopped. At `kexec` it is armed only where somebody set
/// `KExecWatchdogSec=`, and then it is meant.
pub fn settle(verb: Verb, watchdog: &Watchdog) -> Result<(), Failure> {
    if verb != Verb::Reboot || !watchdog.armed {
        return Ok(());
    }
    let device = watchdog.device.unwrap_or(c"/dev/watchdog0");
    // 'V' before closing is the magic that stops it (Documentation/watchdog/watchdog-api.rst).
    let stopped = openat(CWD, device, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| io::write(&file, b"V").map(|_| ()));
    if let Err(errno) = stopped {
        warn!("the watchdog could not be stopped: {}", crate::failure::Named(errno));
    } else if watchdog.device.is_none() && still_active() {
        warn!("the watchdog cannot be stopped (nowayout): the next kernel must serve it");
    }
    Ok(())
}

/// Whether the first watchdog runs all the same (Documentation/ABI/testing/sysfs-class-watchdog).
fn still_active() -> bool {
    let mut buffer = [0; 16];
    read::open(CWD, c"/sys/class/watchdog/watchdog0/state")
        .and_then(|file| read::up_to(&file, &mut buffer))
        .is_ok_and(|state| state.starts_with(b"active"))
}
