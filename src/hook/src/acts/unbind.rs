//! Unbinding further devices from their drivers, all at the same time. The kernel's own shutdown handles
//! devices one after the other, so that the delays of slow devices add up.

use core::fmt;
use core::time::Duration;

use nextkernel_plan::{Plan, is_nvidia, limits as plan_limits};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};

use crate::bounds::Bounds;
use crate::bounds::child::{self, Running};
use crate::bounds::failure::Failure;
use crate::scene::modules::ModuleName;
use crate::sys::say::{info, warn};
use crate::sys::text::Text;
use crate::sys::{clock, files, limits};

/// Unbinds the devices that the plan lists. A device that cannot be unbound is left to the kernel's own
/// shutdown. If the kernel fails in an unbind, every reboot(2) would hang: then this resets the machine, and
/// returns an error only if that is impossible.
pub fn unbind(plan: &Plan<'_>, bounds: &Bounds<'_>) -> Result<(), Failure> {
    // Lock the hook in memory: nothing of it can be read from a disk any more.
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
    let mut under_way: [Option<Running>; plan_limits::UNBIND_MAX] = [const { None }; plan_limits::UNBIND_MAX];
    for (address, place) in plan.unbind.iter().zip(&mut under_way) {
        match begin(address) {
            Ok(running) => *place = Some(running),
            Err(failure) => warn!("{address} stays bound: {failure}"),
        }
    }
    // All share one deadline. None is reported before all that hang have been killed, because each log line
    // may take long.
    let until = bounds.diary.begun + bounds.budget.unbind_until;
    let until = until.min(clock::uptime() + bounds.budget.module);
    let rest = |until: Duration| until.saturating_sub(clock::uptime());
    let mut ended = [true; plan_limits::UNBIND_MAX];
    for (running, ended) in under_way.iter().zip(&mut ended) {
        if let Some(running) = running {
            *ended = running.ends_within(rest(until));
            if !*ended {
                running.kill();
            }
        }
    }
    let until = clock::uptime() + limits::LETS_GO;
    let mut died = false;
    for ((address, running), ended) in plan.unbind.iter().zip(&under_way).zip(ended) {
        let Some(running) = running else { continue };
        let result = if ended { running.result() } else { Err(running.hangs(rest(until))) };
        let Err(failure) = result else { continue };
        warn!("{address}: {failure}");
        died |= matches!(failure, Failure::Died { .. });
    }
    // A slow device may be writing back its cache. The jump waits for it, and the guard watches the jump.
    if died { Err(bounds.reset()) } else { Ok(()) }
}

fn begin(address: &str) -> Result<Running, Failure> {
    let failed = |errno| Failure::Call { call: "unbind", errno };
    let path = |file| Text::<96>::of(format_args!("/sys/bus/pci/devices/{address}/driver{file}"));
    let driver = path("").as_c_str().and_then(|driver| files::link(CWD, driver));
    let driver: ModuleName = driver.ok_or(failed(Errno::NODEV))?;
    // `nextkernel stage` has checked this, but a device may have another driver by now.
    if driver.as_str().is_some_and(is_nvidia) {
        return Err(failed(Errno::PERM));
    }
    info!("unbind {address} from {driver}");
    child::begin("unbind", || {
        files::write(CWD, path("/unbind").as_c_str().ok_or(Errno::NAMETOOLONG)?, address.as_bytes())
    })
}

/// Names the devices that are unbound, for the log and the dry run.
pub struct Unbinding<'p>(pub &'p Plan<'p>);

impl fmt::Display for Unbinding<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("unbind, all at the same time:")?;
        self.0.unbind.iter().try_for_each(|address| write!(out, " {address}"))
    }
}
