//! Unloading, and asking again where somebody else loads in the same moment.

use rustix::fs::CWD;
use rustix::io::{self, Errno};

use crate::bounds::failure::Failure;
use crate::sys::{calls, clock, files, limits};

/// Unloads what is loaded, so that nobody jumps into it.
///
/// - `kexec_file_load(2)`, `kexec_load(2)`
pub fn unload() -> Result<(), Failure> {
    unless_busy(calls::kexec_unload).map_err(|errno| Failure::Kexec { call: "unload", errno })
}

/// Tries a load again, or an unloading. Where the kernel counts loads each try spends one of them (`kexec_load_permitted`,
/// `kernel/kexec_core.c`): those that are left are spread over the time.
pub fn unless_busy(call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    while_busy(call, || loads_left().unwrap_or(limits::BUSY_TRIES))
}

/// Tries again for a while, as often as is left, while somebody else is at it.
pub fn while_busy(mut call: impl FnMut() -> io::Result<()>, left: impl Fn() -> u32) -> io::Result<()> {
    let until = clock::uptime() + limits::GLANCE * limits::BUSY_TRIES;
    loop {
        let answer = call();
        if answer != Err(Errno::BUSY) {
            return answer;
        }
        let (rest, tries) = (until.saturating_sub(clock::uptime()), left().min(limits::BUSY_TRIES));
        if rest.is_zero() || tries == 0 {
            return answer;
        }
        clock::sleep(limits::GLANCE.max(rest / tries));
    }
}

/// How many loads the kernel still allows, where it counts them (Documentation/admin-guide/sysctl/kernel.rst).
fn loads_left() -> Option<u32> {
    let mut number = [0; 16];
    let file = files::open(CWD, c"/proc/sys/kernel/kexec_load_limit_reboot").ok()?;
    // It is -1 where they are not.
    core::str::from_utf8(files::up_to(file, &mut number).ok()?.trim_ascii()).ok()?.parse().ok()
}
