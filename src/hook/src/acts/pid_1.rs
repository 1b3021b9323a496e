//! As PID 1 nobody else prepares anything, and nobody cleans up.

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

/// Mounts what the kernel offers where it is missing: in an initramfs of one file nobody else has. What fails is
/// missed where it is needed. Then a panic restarts the machine: PID 1 cannot end without one.
///
/// What is open is closed first. At kexec systemd hands on the descriptors that it keeps for services, from version 261 on
/// (`manager_luo_serialize_fd_stores`, src/core/luo.c), whether or not the kernel can preserve them; a socket among them
/// holds the old root's /run. Such a systemd needs a newer kernel than `close_range` does.
pub fn begin(told: Option<Verb>) {
    let _ = calls::close_inherited();
    mount_where_missing(c"proc", c"/proc", c"/proc/self");
    if in_container() {
        return;
    }
    mount_where_missing(c"sysfs", c"/sys", c"/sys/kernel");
    mount_where_missing(c"devtmpfs", c"/dev", c"/dev/kmsg");
    // A machine that is to stay down is not restarted by a panic at the very end.
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

/// Ends what still runs, closes what lies below the old root, and makes read-only what is still writable. Whatever
/// remains, the night goes on: it looks itself before it jumps.
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
    // What the root's storage needs itself is refused by day (`nextkernel exitrd`); a splash is called so, too.
    let closed = close().or_else(|failure| match failure {
        // Where something hangs, one of them may be what it waits for.
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
