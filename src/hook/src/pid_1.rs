//! As PID 1 nobody else prepares anything, and nobody cleans up.

use core::ffi::CStr;

use rustix::fs::{Access, AtFlags, CWD, Mode, accessat, mkdirat};
use rustix::mount::{MountFlags, mount};

use crate::leftovers::{self, Ending};
use crate::processes::Relatives;
use crate::protect::protect;
use crate::say::{info, warn};
use crate::shutdown::in_container;
use crate::{exitrd, limits, storage, sys};

/// What the kernel offers, where it is mounted, and a file that is there then.
const KERNELS: [(&CStr, &CStr, &CStr); 3] = [
    (c"proc", c"/proc", c"/proc/self/mountinfo"),
    (c"sysfs", c"/sys", c"/sys/kernel"),
    (c"devtmpfs", c"/dev", c"/dev/kmsg"),
];

/// Mounts what the kernel offers where it is missing: in an initramfs of one file nobody else has. What fails is
/// missed where it is needed. Then a panic restarts the machine: PID 1 cannot end without one.
pub fn begin() {
    for (kind, place, there) in KERNELS {
        if accessat(CWD, there, Access::EXISTS, AtFlags::empty()).is_err() {
            let _ = mkdirat(CWD, place, Mode::from_raw_mode(0o755));
            let _ = mount(kind, place, kind, MountFlags::NOSUID, None);
        }
    }
    if !in_container() {
        let _ = protect();
    }
}

/// Ends what still runs, and closes what lies below the old root, or makes what is mounted read-only. Whatever
/// remains, the night goes on: it looks itself before it jumps.
pub fn clean_up() {
    let ending = Ending { relatives: Relatives::of_this_process(), storages: false };
    ending.carry_out();
    if !exitrd::is_here() {
        leftovers::make_read_only();
        return;
    }
    let close = || storage::close(exitrd::OLD_ROOT, sys::uptime() + limits::CLOSE);
    // What the root's storage needs itself is refused by day (`nextkernel exitrd`); a splash is called so, too.
    let closed = close().or_else(|_| {
        Ending { storages: true, ..ending }.carry_out();
        close()
    });
    match closed {
        Ok(()) => info!("the old root is closed"),
        Err(failure) => {
            warn!("{failure}; it stays read-only, if that can be");
            leftovers::make_read_only();
        }
    }
}
