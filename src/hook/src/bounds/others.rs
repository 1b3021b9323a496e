//! The init's other hooks. systemd runs all executables of system-shutdown at the same time
//! (systemd-shutdown(8)); mdadm and fwupd ship some. A jump would cut them off.

use core::time::Duration;

use crate::bounds::failure::Failure;
use crate::scene::processes::{self, Relatives};
use crate::sys::say::warn;
use crate::sys::{clock, limits};

/// Waits until no other child of the hook's parent is left, at most until the machine has been up so
/// long; tells whether that came. Going on without one is no failure: the init would not wait much longer for it either.
pub fn wait(relatives: Relatives, until: Duration) -> Result<bool, Failure> {
    loop {
        if relatives.hook_is_an_only_child() {
            return Ok(true);
        }
        let other = processes::find(|process, _| {
            (relatives.is_other_hook(process) && !process.has_ended()).then_some(process.name)
        });
        let other =
            other.map_err(|errno| Failure::Call { call: "look through /proc for other hooks", errno })?;
        let Some(other) = other else { return Ok(true) };
        if clock::uptime() >= until {
            warn!("'{other}', another shutdown hook, still runs: going on without it");
            return Ok(false);
        }
        clock::sleep(limits::GLANCE);
    }
}
