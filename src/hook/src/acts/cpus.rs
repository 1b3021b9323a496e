//! Taking processors offline. At the jump, arm64 and riscv64 take all processors offline but the one that
//! jumps, one after the other (`smp_shutdown_nonboot_cpus`, kernel/cpu.c). Begun early, this runs in parallel
//! with the rest of the shutdown. x86 only stops them, which takes a moment (`stop_other_cpus`,
//! arch/x86/kernel/reboot.c).

use core::ffi::CStr;

use nextkernel_plan::Plan;
use rustix::fs::CWD;
use rustix::io;

use crate::bounds::act::How;
use crate::bounds::child;
use crate::sys::errno::Named;
use crate::sys::files;
use crate::sys::name::Name;
use crate::sys::say::warn;

/// The name of the act, for the log.
pub const NAME: &str = "take every processor but the first offline";

/// Begins to take all processors offline but the first, if the plan says so. The first one jumps
/// (`migrate_to_reboot_cpu`, kernel/reboot.c). Nothing waits for the end: the jump first forbids hotplugging
/// (`cpu_hotplug_disable`), and then takes the remaining processors offline itself.
pub fn begin(plan: &Plan<'_>, how: How) {
    if !plan.offline_cpus {
        return;
    }
    how.say(NAME);
    if how == How::ForReal {
        if let Err(failure) = child::fork(NAME, &mut take_offline) {
            warn!("{failure}");
        }
    }
}

fn take_offline() -> io::Result<()> {
    let directory = files::directory(CWD, c"/sys/devices/system/cpu")?;
    files::find_entry(&directory, |name| {
        if is_another(name) {
            let taken = files::directory(&directory, name).and_then(|cpu| files::write(cpu, c"online", b"0"));
            if let Err(errno) = taken {
                warn!("{} stays: {}", Name::<64>::cut(name.to_bytes()), Named(errno));
            }
        }
        None::<()>
    })
    .map(drop)
}

/// Whether this is the directory of a processor other than the first.
fn is_another(name: &CStr) -> bool {
    matches!(name.to_bytes(), [b'c', b'p', b'u', b'1'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_processors_are_taken_offline() {
        for (name, is) in [(c"cpu1", true), (c"cpu10", true), (c"cpu0", false), (c"cpufreq", false)] {
            assert_eq!(is_another(name), is, "{name:?}");
        }
    }
}
