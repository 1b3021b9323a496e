//! Does somebody hold the lock of a device for ever? Then every reboot(2), a jump as well as a
//! restart, waits behind it: `device_shutdown` takes the lock of each device (drivers/base/core.c).

use core::ffi::CStr;

use rustix::fd::AsFd;
use rustix::fs::CWD;
use rustix::process::Pid;

use crate::text::Text;
use crate::{child, files, limits, processes};

/// Whether a process is stuck where the kernel holds the lock of a device. One that runs has no stack to
/// look at, so it is looked at a few times.
#[must_use]
pub fn held_by(process: Pid) -> bool {
    let path = Text::<32>::of(format_args!("/proc/{}/stack", process.as_raw_nonzero()));
    (0..limits::STACK_LOOKS).any(|_| {
        let holds = path.as_c_str().is_some_and(|path| is_below(CWD, path));
        if !holds {
            child::sleep(limits::GLANCE);
        }
        holds
    })
}

/// Whether any process is, or one was when the kernel failed in it: its locks stay held, and nobody can
/// be asked (`TAINT_DIE`, Documentation/admin-guide/tainted-kernels.rst).
#[must_use]
pub fn held_by_anybody() -> bool {
    let stuck = processes::find(|_, folder| is_below(folder, c"stack").then_some(()));
    matches!(stuck, Ok(Some(()))) || has_oopsed()
}

fn has_oopsed() -> bool {
    const DIE: u64 = 1 << 7;
    let mut number = [0; 24];
    files::open(CWD, c"/proc/sys/kernel/tainted")
        .and_then(|file| files::up_to(file, &mut number))
        .ok()
        .and_then(|digits| core::str::from_utf8(digits.trim_ascii()).ok()?.parse::<u64>().ok())
        .is_some_and(|taint| taint & DIE != 0)
}

fn is_below(folder: impl AsFd, path: &CStr) -> bool {
    let found = files::find_line(folder, path, |line| is_under_device_lock(line).then_some(()));
    matches!(found, Ok(Some(())))
}

/// Whether a line of a kernel stack (`proc_pid_stack(5)`) is of the part of the driver core that holds a
/// device's lock around a driver's remove or shutdown (drivers/base/dd.c, drivers/base/core.c).
#[must_use]
pub fn is_under_device_lock(line: &[u8]) -> bool {
    const UNDER_LOCK: [&[u8]; 4] =
        [b"device_release_driver", b"driver_detach", b"unbind_store", b"device_shutdown"];
    UNDER_LOCK.iter().any(|name| line.windows(name.len()).any(|at| at == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_below_a_drivers_remove_holds_the_devices_lock() {
        for line in ["device_release_driver_internal+0x19f/0x200", "driver_detach+0x48/0x90"] {
            assert!(is_under_device_lock(format!("[<0>] {line}").as_bytes()), "{line}");
        }
        for line in ["msleep+0x2d/0x40", "__do_sys_delete_module.isra.0+0x19d/0x2f0", ""] {
            assert!(!is_under_device_lock(format!("[<0>] {line}").as_bytes()), "{line}");
        }
    }
}
