//! What an init leaves behind: processes that run, file systems that are writable. systemd ends the ones and
//! sees to the others; here is who has to where nobody does.

use crate::say::{info, warn};
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Signal, kill_process};

use crate::mounts::{self, Writable};
use crate::processes::{self, Process, Relatives};
use crate::{child, files, limits, sys};

/// Ends every process but PID 1, the hook, those that it was called by, and root's storage daemons, whose names
/// begin with '@' (systemd.io, `ROOT_STORAGE_DAEMONS`): first kindly, then not.
pub fn end_processes(relatives: Relatives) {
    for (signal, time) in [(Signal::TERM, limits::TERM), (Signal::KILL, limits::KILL)] {
        if !any(relatives, |_| true) {
            return;
        }
        match signal {
            Signal::TERM => info!("end what still runs"),
            _ => info!("kill what still runs"),
        }
        any(relatives, |process| {
            let _ = kill_process(process.id, signal);
            false
        });
        let until = sys::uptime() + time;
        while any(relatives, |_| true) && sys::uptime() < until {
            child::sleep(limits::GLANCE);
        }
    }
    let _ = processes::find(|process, folder| {
        is_to_end(process, folder, relatives).then(|| warn!("'{}' does not end", process.name))
    });
}

/// Whether `is_it` says yes to any process that is to end.
fn any(relatives: Relatives, mut is_it: impl FnMut(&Process) -> bool) -> bool {
    let found = processes::find(|process, folder| {
        (is_to_end(process, folder, relatives) && is_it(process)).then_some(())
    });
    matches!(found, Ok(Some(())))
}

fn is_to_end(process: &Process, folder: &OwnedFd, relatives: Relatives) -> bool {
    let mut name = [0; 1];
    let name = files::open(folder, c"cmdline").and_then(|file| files::up_to(&file, &mut name));
    // A thread of the kernel has no command line.
    let is_storages = matches!(name, Ok([b'@'] | []) | Err(_));
    !process.ended
        && !is_storages
        && !relatives.include(process, processes::parent_of)
        && !relatives.called_by(process.id)
}

/// Remounts read-only what is still writable: what was mounted last first, for it may lie on what was mounted
/// before. What cannot be is found again where it counts, before the jump.
pub fn make_read_only() {
    let mut left = 0_u32;
    let _ = files::find_line(CWD, mounts::MOUNTINFO, |line| {
        left += u32::from(mounts::writable(line).is_some());
        None::<()>
    });
    // One that fails is passed over, and those before it keep their places.
    while let Some(number) = left.checked_sub(1) {
        left = number;
        let mut seen = 0;
        let _ = files::find_line(CWD, mounts::MOUNTINFO, |line| {
            let writable = mounts::writable(line)?;
            seen += 1;
            (seen > number).then(|| remount(line, &writable))
        });
    }
}

fn remount(line: &[u8], at: &Writable) {
    info!("remount {} read-only", at.path);
    let mut path = [0; limits::MOUNT_POINT_MAX];
    let Some(path) = mounts::point(line, &mut path) else { return };
    let done = child::within(limits::REMOUNT, "remount it read-only", || {
        mount_remount(path, MountFlags::RDONLY, c"")
    });
    if let Err(failure) = done {
        warn!("{failure}");
    }
}
