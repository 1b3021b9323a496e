//! Unloads an image, and tries a call again if another process is loading at the same moment.

use rustix::fs::CWD;
use rustix::io::{self, Errno};

use crate::bounds::failure::Failure;
use crate::sys::{calls, clock, files, limits};

/// Unloads the loaded image, so that nobody jumps into it.
///
/// - `kexec_file_load(2)`, `kexec_load(2)`
pub fn unload() -> Result<(), Failure> {
    unless_busy(calls::kexec_unload).map_err(|errno| Failure::Kexec { call: "unload", errno })
}

/// Repeats a load or an unload while the kernel says EBUSY. If the kernel limits the number of loads, each try
/// spends one of them (`kexec_load_permitted`, `kernel/kexec_core.c`), so the remaining ones are spread over
/// the time.
pub fn unless_busy(call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    while_busy(call, || loads_left().unwrap_or(limits::BUSY_TRIES))
}

/// Repeats a call for a while, as often as `left` allows, while the kernel says EBUSY.
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

/// Returns how many loads the kernel still allows, if it limits them
/// (Documentation/admin-guide/sysctl/kernel.rst).
fn loads_left() -> Option<u32> {
    let mut number = [0; 16];
    let file = files::open(CWD, c"/proc/sys/kernel/kexec_load_limit_reboot").ok()?;
    // If it does not, the file contains -1.
    core::str::from_utf8(files::up_to(file, &mut number).ok()?.trim_ascii()).ok()?.parse().ok()
}
