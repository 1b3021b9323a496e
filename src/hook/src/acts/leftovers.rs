//! Things that an init leaves behind: running processes and writable file systems. systemd ends the processes
//! and takes care of the file systems; this file does both if the init does not.

use core::ffi::CStr;
use core::time::Duration;

use nextkernel_plan::List;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_remount};
use rustix::process::{Pid, Signal};

use crate::acts::crowd::{self, Crowd};
use crate::bounds::child;
use crate::bounds::failure::Failure;
use crate::bounds::guard::Guard;
use crate::scene::mounts;
use crate::scene::processes::{self, Process, Relatives};
use crate::sys::limits::{self, Budget};
use crate::sys::name::Name;
use crate::sys::say::{info, one_of_many, warn};
use crate::sys::{clock, files};

/// Ends the processes that an init has left: all but PID 1, the hook with its callers and relatives, and the
/// guard.
#[derive(Clone, Copy)]
pub struct Ending<'g> {
    /// The relatives of the hook, which are spared.
    pub relatives: Relatives,
    /// The guard, whose processes are spared, too.
    pub guard: &'g Guard,
    /// How long ending them may take.
    pub budget: &'static Budget,
    /// Whether processes whose names begin with '@' end, too. They may serve the root's storage (systemd.io,
    /// `ROOT_STORAGE_DAEMONS`).
    pub storages: bool,
}

/// The processes between PID 1 and the hook that have called it.
type Callers = List<Pid, { limits::ANCESTORS_MAX }>;

/// Posts the guard ([`Guard::post`]). If the guard is incomplete because no more processes can be made, ends
/// processes of other users than root for up to `room`, and posts it again.
#[must_use]
pub fn post(
    relatives: Relatives,
    begun: Duration,
    shutdown: Duration,
    jump: Duration,
    room: Duration,
) -> Guard {
    let guard = Guard::post(begun, shutdown, jump);
    if guard.incomplete != Some(Errno::AGAIN) {
        return guard;
    }
    make_room(relatives, &guard, room);
    guard.dismiss();
    Guard::post(begun, shutdown, jump)
}

/// Ends the processes of all users but root, because some process has made too many, and no user but root has
/// business at the end of a shutdown. This process does so itself, because no child can be made. As PID 1 it
/// also reaps the ended children, because no other process waits for them.
fn make_room(relatives: Relatives, guard: &Guard, room: Duration) {
    let callers = relatives.callers();
    let of_another_user = |process: &Process, directory: &OwnedFd| {
        may_end(process, relatives, &callers, guard) && !processes::is_roots(directory)
    };
    let _ = Crowd::kill(&of_another_user, room);
    crowd::reap();
}

fn may_end(process: &Process, relatives: Relatives, callers: &Callers, guard: &Guard) -> bool {
    !process.is_kernel
        && !process.has_ended()
        && !guard.includes(process.id)
        && !callers.iter().any(|caller| caller == process.id)
        && !relatives.include(process, processes::parent_of)
}

impl Ending<'_> {
    /// Ends the processes, with SIGTERM first and then with SIGKILL. A process that remains is reported, but
    /// is no failure: the check before the jump finds file systems that it keeps writable. Runs in a child,
    /// because a look at a process may hang on the lock of its memory.
    pub fn carry_out(self) {
        let end = || {
            child::within(self.budget.end(), "end what still runs", || {
                self.end();
                Ok(())
            })
        };
        let ended = match end() {
            Err(Failure::Call { errno: Errno::AGAIN, .. }) => {
                make_room(self.relatives, self.guard, self.budget.room);
                end()
            }
            ended => ended,
        };
        if let Err(failure) = ended {
            warn!("{failure}");
        }
        crowd::reap();
    }

    fn end(self) {
        let callers = self.relatives.callers();
        let includes = |process: &Process, directory: &OwnedFd| {
            may_end(process, self.relatives, &callers, self.guard)
                && (self.storages || !serves_storage(directory))
        };
        let until = clock::uptime() + self.budget.term;
        let crowd = Crowd::each(&includes, until, &mut |directory| crowd::signal(directory, Signal::TERM));
        if crowd.count > 0 {
            let what = if crowd.count == 1 { "process that still runs" } else { "processes that still run" };
            info!("end {} {what}: {crowd}", crowd.count);
            while clock::uptime() < until && !Crowd::each(&includes, until, &mut |_| ()).is_empty() {
                clock::sleep(limits::GLANCE);
            }
        }
        let left = Crowd::kill(&includes, self.budget.kill);
        if left.count > 0 {
            warn!("not every process ends: {left}");
        } else if !left.is_empty() {
            warn!("there was no time to look at every process");
        }
    }
}

/// Whether a process says that it serves the root's storage, and belongs to root. systemd spares only such
/// processes (`ignore_proc`, src/shared/killall.c). The command lines of other users' processes are not read,
/// because that may hang on the lock of their memory.
fn serves_storage(directory: &OwnedFd) -> bool {
    let runs_as_root = rustix::fs::fstat(directory).is_ok_and(|it| it.st_uid == 0);
    let mut name = [0; 1];
    runs_as_root
        && processes::is_roots(directory)
        && files::open(directory, c"cmdline")
            .and_then(|file| files::up_to(&file, &mut name))
            .map_or(true, |name| name == b"@")
}

/// Fails if a file system with something to lose is left writable.
pub fn nothing_writable() -> Result<(), Failure> {
    match mounts::first_writable() {
        Ok(None) => Ok(()),
        Ok(Some(writable)) => Err(Failure::StillWritable(writable)),
        Err(errno) => Err(Failure::of_mountinfo(errno)),
    }
}

/// Remounts writable file systems read-only, until the uptime reaches `until`. One that stays writable is
/// found again by the check before the jump.
pub fn make_read_only(until: Duration) {
    let _ = mounts::last_first(
        |line| mounts::writable(line).is_some(),
        |path, before| remount(path, before, until),
    );
}

fn remount(path: &CStr, before: usize, until: Duration) {
    let rest = until.saturating_sub(clock::uptime());
    if rest.is_zero() {
        return;
    }
    one_of_many!(before, "remount {} read-only", Name::<200>::cut(path.to_bytes()));
    let done = child::within(rest, "remount it read-only", || mount_remount(path, MountFlags::RDONLY, c""));
    if let Err(failure) = done {
        warn!("{failure}");
    }
}
