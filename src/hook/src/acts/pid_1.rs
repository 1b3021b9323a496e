//! Preparing and cleaning up as PID 1, because no init has done either.

use core::ffi::CStr;
use core::time::Duration;

use nextkernel_plan::Verb;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::acts::leftovers::{self, Ending};
use crate::acts::protect::protect;
use crate::acts::storage;
use crate::bounds::failure::Failure;
use crate::bounds::guard::Guard;
use crate::bounds::open::Open;
use crate::caller::in_container;
use crate::scene::exitrd;
use crate::scene::processes::Relatives;
use crate::sys::say::{info, warn};
use crate::sys::{calls, clock, files, limits};

/// Mounts /proc, /sys and /dev if they are missing, because nothing else does so in an initramfs of one file.
/// A mount that fails is noticed later, by the act that needs it. Then lets a panic restart the machine,
/// because PID 1 cannot end without a panic.
///
/// First closes all inherited descriptors. From version 261 on, systemd passes on at kexec the descriptors
/// that it keeps for services (`manager_luo_serialize_fd_stores`, src/core/luo.c), whether or not the kernel
/// can preserve them. A socket among them holds the old root's /run. `close_range` is always available there,
/// because such a systemd needs a newer kernel than `close_range` does.
pub fn begin(told: Option<Verb>) {
    let _ = calls::close_inherited();
    mount_where_missing(c"proc", c"/proc", c"/proc/self");
    if in_container() {
        return;
    }
    mount_where_missing(c"sysfs", c"/sys", c"/sys/kernel");
    mount_where_missing(c"devtmpfs", c"/dev", c"/dev/kmsg");
    // A panic at the very end must not restart a machine that is to stay down.
    if !told.is_some_and(Verb::stays_down) {
        let _ = protect();
    }
}

fn mount_where_missing(kind: &CStr, place: &CStr, there: &CStr) {
    if !files::exists(there) {
        let _ = mkdirat(CWD, place, Mode::from_raw_mode(0o755));
        let _ = mount(kind, place, kind, MountFlags::NOSUID, None);
    }
}

/// Ends remaining processes, closes the storage of the old root, and remounts writable file systems
/// read-only. Does not fail if something remains, because the handoff checks the file systems again before it
/// jumps.
pub fn clean_up(told: Option<Verb>) {
    let relatives = Relatives::of_this_process();
    let guard = match told {
        Some(verb) if verb.stays_down() => Guard::none(),
        _ => {
            let room = limits::PATIENT.room;
            leftovers::post(relatives, clock::uptime(), Duration::ZERO, limits::CLEAN_UP, room)
        }
    };
    let ending = Ending { relatives, guard: &guard, budget: &limits::PATIENT, storages: false };
    ending.carry_out();
    if exitrd::is_here() {
        close(ending);
    }
    leftovers::make_read_only(clock::uptime() + limits::REMOUNT);
    guard.dismiss();
}

fn close(ending: Ending<'_>) {
    let until = clock::uptime() + limits::CLOSE;
    let close = || storage::close(exitrd::OLD_ROOT, until);
    // If something stays open, end the processes whose names begin with '@', too, and try again. A root whose
    // storage needs such a process is refused by `nextkernel exitrd`, and a boot splash has such a name as well.
    let closed = close().or_else(|failure| match failure {
        // If closing has hung, it may be waiting for one of them.
        Failure::StillOpen(Open { why, .. }) if why != Errno::TIMEDOUT => {
            Ending { storages: true, ..ending }.carry_out();
            close()
        }
        failure => Err(failure),
    });
    match closed {
        Ok(()) => info!("the old root is closed"),
        Err(failure) => warn!("{failure}; it stays read-only, if that can be"),
    }
}
