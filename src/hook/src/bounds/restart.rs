//! Restarts the machine.

use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot};

use crate::scene::firmware;
use crate::sys::{calls, limits};

/// Restarts the machine through the firmware (a full reboot), with the parameter that was left for the
/// firmware, as systemd does. Returns the kernel's error, because it returns only then.
#[must_use]
pub fn through_firmware() -> Errno {
    let mut buffer = [0; limits::PARAMETER_MAX];
    if let Some(parameter) = firmware::parameter(&mut buffer) {
        let _ = calls::restart_with(parameter);
    }
    reboot(RebootCommand::Restart).err().unwrap_or(Errno::AGAIN)
}
