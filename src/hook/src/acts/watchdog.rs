//! The hardware watchdog: setting it as the plan says, and stopping it if the init has left it armed.

use core::ffi::CStr;

use nextkernel_plan::{Verb, Watchdog};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;

use crate::bounds::child;
use crate::bounds::failure::Failure;
use crate::sys::arguments::InheritedWatchdog;
use crate::sys::limits::{self, Budget};
use crate::sys::say::{info, warn};
use crate::sys::{calls, files};

/// Arms the watchdog, stops it, or leaves it as it is.
///
/// If the plan says nothing, a watchdog that systemd has armed is stopped at `reboot`, and left as it is at
/// `kexec`. At `reboot` systemd arms it for ten minutes and leaves it so, against a firmware that hangs
/// (`RebootWatchdogSec=`, systemd-system.conf(5)); a next kernel without the watchdog's driver would be reset
/// in the midst of its work. At `kexec` systemd arms it only if `KExecWatchdogSec=` is set, which is then
/// intended.
///
/// A watchdog that cannot be set does not stop the jump.
pub fn settle(
    verb: Verb,
    wanted: Option<Watchdog>,
    left: &InheritedWatchdog,
    budget: &Budget,
) -> Result<(), Failure> {
    let device = device(left);
    match wanted {
        Some(Watchdog::Seconds(seconds)) => bounded(budget, &|| arm(device, seconds)),
        Some(Watchdog::Off) => bounded(budget, &|| stop(device)),
        None if verb == Verb::Reboot && left.armed => bounded(budget, &|| stop(device)),
        None => {}
    }
    Ok(())
}

/// Undoes `settle` if the plan had the watchdog armed and the next kernel was not started: the watchdog was
/// armed for that kernel, and would reset the machine in the midst of the firmware's work. If systemd had
/// left it armed against a firmware that hangs, arms it so again.
pub fn unsettle(verb: Verb, wanted: Option<Watchdog>, left: &InheritedWatchdog, budget: &Budget) {
    if !matches!(wanted, Some(Watchdog::Seconds(_))) {
        return;
    }
    if verb == Verb::Reboot && left.armed {
        info!("give the watchdog its ten minutes again, for nothing was started");
        bounded(budget, &|| arm(device(left), limits::REBOOT_WATCHDOG));
    } else {
        info!("stop the watchdog again, for nothing was started");
        bounded(budget, &|| stop(device(left)));
    }
}

fn device(left: &InheritedWatchdog) -> &'static CStr {
    left.device.unwrap_or(c"/dev/watchdog0")
}

fn bounded(budget: &Budget, act: &dyn Fn() -> io::Result<()>) {
    if let Err(failure) = child::within(budget.watchdog, "settle the watchdog", act) {
        warn!("{failure}");
    }
}

fn open(device: &CStr) -> io::Result<OwnedFd> {
    openat(CWD, device, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Arms the watchdog. Opening its device starts it; closing the device without the magic 'V' leaves it
/// running (Documentation/watchdog/watchdog-api.rst).
fn arm(device: &CStr, seconds: u16) -> io::Result<()> {
    let file = open(device)?;
    let wanted = i32::from(seconds);
    let granted = calls::set_watchdog_timeout(&file, wanted)?;
    if granted != wanted {
        warn!("the watchdog counts {granted} seconds, not {wanted}");
    }
    io::write(&file, b"\0").map(|_| ())
}

fn stop(device: &CStr) -> io::Result<()> {
    let file = open(device)?;
    io::write(&file, b"V")?;
    drop(file);
    if device == c"/dev/watchdog0" && still_active() {
        warn!("the watchdog cannot be stopped (nowayout): the next kernel must serve it");
    }
    Ok(())
}

/// Whether the first watchdog is still running (Documentation/ABI/testing/sysfs-class-watchdog).
fn still_active() -> bool {
    let mut buffer = [0; 16];
    files::open(CWD, c"/sys/class/watchdog/watchdog0/state")
        .and_then(|file| files::up_to(file, &mut buffer))
        .is_ok_and(|state| state.starts_with(b"active"))
}
