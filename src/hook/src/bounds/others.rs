//! The init's other hooks. systemd runs all executables of system-shutdown at the same time
//! (systemd-shutdown(8)), and mdadm and fwupd install some. A jump would cut them off.

use core::time::Duration;

use crate::bounds::failure::Failure;
use crate::scene::processes::{self, Relatives};
use crate::sys::say::warn;
use crate::sys::{clock, limits};

/// Waits until the hook's parent has no other child, at most until the uptime `until`. Returns whether it has
/// none. Going on while one still runs is no failure: the init would not wait much longer for it either.
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
