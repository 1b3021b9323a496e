//! What an init leaves behind: processes that run, file systems that are writable. systemd ends the ones and
//! sees to the others; here is who has to where nobody does.

use core::time::Duration;

use rustix::fd::OwnedFd;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Signal, kill_process};

use crate::guard::Guard;
use crate::mounts;
use crate::name::Name;
use crate::processes::{self, Process, Relatives};
use crate::say::{info, warn};
use crate::{child, files, limits, sys};

/// Which processes are to end: all but PID 1, the hook and those that it was called by.
#[derive(Clone, Copy)]
pub struct Ending<'g> {
    /// Who is spared.
    pub relatives: Relatives,
    /// Who is, too.
    pub guard: &'g Guard,
    /// Whether those end, too, whose names begin with '@': they may serve the root's storage (systemd.io,
    /// `ROOT_STORAGE_DAEMONS`).
    pub storages: bool,
}

impl Ending<'_> {
    /// Ends them: first kindly, then not. What remains is told, and no failure: what it keeps busy is seen
    /// before the jump. In a child, for looking at a process may hang with its memory's lock.
    pub fn carry_out(self) {
        let act = || {
            self.send(Signal::TERM, limits::TERM);
            self.send(Signal::KILL, limits::KILL);
            self.each(&mut |process| warn!("'{}' does not end", process.name));
            Ok(())
        };
        if let Err(failure) = child::within(limits::END, "end what still runs", act) {
            warn!("{failure}");
        }
    }

    fn send(self, signal: Signal, time: Duration) {
        let send = &mut |process: &Process| {
            info!("end '{}', which still runs ({})", process.name, signal.as_raw());
            let _ = kill_process(process.id, signal);
        };
        let until = sys::uptime() + time;
        let mut some_are_left = self.each(send);
        while some_are_left && sys::uptime() < until {
            child::sleep(limits::GLANCE);
            some_are_left = self.each(&mut |_| ());
        }
    }

    /// Calls `act` with each, and tells whether there was any.
    fn each(self, act: &mut dyn FnMut(&Process)) -> bool {
        let mut any = false;
        let _ = processes::find(|process, folder| {
            if self.includes(process, folder) {
                any = true;
                act(process);
            }
            None::<()>
        });
        any
    }

    fn includes(self, process: &Process, folder: &OwnedFd) -> bool {
        let mut name = [0; 1];
        let name = files::open(folder, c"cmdline").and_then(|file| files::up_to(&file, &mut name));
        // A thread of the kernel has no command line.
        let is_meant = match name {
            Ok([]) | Err(_) => false,
            // systemd spares root's alone (`ignore_proc`, src/shared/killall.c).
            Ok(name) => {
                self.storages || name != b"@" || !rustix::fs::fstat(folder).is_ok_and(|it| it.st_uid == 0)
            }
        };
        is_meant
            && !process.ended
            && !self.guard.includes(process.id)
            && !self.relatives.include(process, processes::parent_of)
            && !self.relatives.called_by(process.id)
    }
}

/// Remounts read-only what is still writable. What cannot be within this time is found again where it counts, before the jump.
pub fn make_read_only(time: Duration) {
    let until = sys::uptime() + time;
    let _ = mounts::last_first(|line| mounts::writable(line).is_some(), |line| remount(line, until));
}

fn remount(line: &[u8], until: Duration) {
    let mut path = [0; limits::MOUNT_POINT_MAX];
    let Some(path) = mounts::point(line, &mut path) else { return };
    info!("remount {} read-only", Name::<200>::cut(path.to_bytes()));
    let done = child::within(until.saturating_sub(sys::uptime()), "remount it read-only", || {
        mount_remount(path, MountFlags::RDONLY, c"")
    });
    if let Err(failure) = done {
        warn!("{failure}");
    }
}
