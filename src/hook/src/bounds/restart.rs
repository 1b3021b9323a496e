//! Restarting the machine.

use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot};

use crate::scene::firmware;
use crate::sys::{calls, limits};

/// Restarts the machine through the firmware, with what somebody left for it, as systemd does. Returns what the kernel has
/// against it.
#[must_use]
pub fn through_firmware() -> Errno {
    let mut buffer = [0; limits::PARAMETER_MAX];
    if let Some(parameter) = firmware::parameter(&mut buffer) {
        let _ = calls::restart_with(parameter);
    }
    reboot(RebootCommand::Restart).err().unwrap_or(Errno::AGAIN)
}
