//! The other processes, read one at a time.

use nextkernel_plan::List;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, stat};
use rustix::io::{self, pread};
use rustix::process::{Pid, getpid, getppid};

use crate::sys::name::Name;
use crate::sys::text::Text;
use crate::sys::{files, limits};

/// The flag of a kernel thread (`PF_KTHREAD`, include/linux/sched.h). systemd uses it, too
/// (`pidref_is_kernel_thread`, src/basic/process-util.c).
const PF_KTHREAD: u32 = 0x0020_0000;

/// A process as `/proc/PID/stat` describes it, up to the number of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: Pid,
    /// Its name, as set by the process itself or by the kernel.
    pub name: Name<16>,
    /// Its parent; `None` for PID 1 and kernel threads without one.
    pub parent: Option<Pid>,
    /// Whether it is a kernel thread. Its name and its memory prove nothing, because a process controls both.
    pub is_kernel: bool,
    /// The number of its threads. The first one counts until all have ended.
    pub threads: u32,
    /// Whether its first thread has ended.
    first_ended: bool,
}

/// Calls `each` with every other process and its directory in /proc, until it returns something. A process that
/// ends meanwhile is skipped.
pub fn find<T>(mut each: impl FnMut(&Process, &OwnedFd) -> Option<T>) -> io::Result<Option<T>> {
    let proc = files::directory(CWD, c"/proc")?;
    files::find_entry(&proc, |name| {
        let id = number(name.to_bytes()).filter(|id| *id != getpid())?;
        let directory = files::directory(&proc, name).ok()?;
        each(&look_at(id, &directory)?, &directory)
    })
}

/// The hook, its parent, and the init's other hooks with everything that they run. They are waited for, and
/// never ended.
#[derive(Clone, Copy, Debug)]
pub struct Relatives {
    hook: Pid,
    parent: Option<Pid>,
}

impl Relatives {
    /// Returns the relatives of this process.
    #[must_use]
    pub fn of_this_process() -> Relatives {
        Relatives { hook: getpid(), parent: getppid() }
    }

    /// Returns whether the hook still has the parent that it began with. If not, the other hooks have become
    /// children of PID 1, and cannot be told from leftover processes.
    #[must_use]
    pub fn are_known(self) -> bool {
        getppid() == self.parent
    }

    /// Returns whether a process is another of the init's hooks, that is, a child of the hook's own parent.
    /// Children of PID 1 are not: they may be any leftover processes.
    #[must_use]
    pub fn is_other_hook(self, process: &Process) -> bool {
        self.parent_of_hooks().is_some() && process.parent == self.parent && process.id != self.hook
    }

    /// Returns whether a process is a relative, or PID 1. `parent_of` returns the parent of a process.
    #[must_use]
    pub fn include(self, process: &Process, parent_of: impl Fn(Pid) -> Option<Pid>) -> bool {
        // As PID 1 the hook is above every process, so that proves nothing; and its own children hold nothing.
        let top = self.parent_of_hooks().or(Some(self.hook)).filter(|top| *top != Pid::INIT);
        if process.id == self.hook {
            return true;
        }
        let Some(top) = top else { return process.id == Pid::INIT };
        let mut ancestor = Some(process.id);
        for _ in 0..limits::RELATIVES_DEPTH {
            let id = match ancestor {
                Some(id) if id != Pid::INIT => id,
                _ => return process.id == Pid::INIT,
            };
            if top == id {
                return true;
            }
            ancestor = if id == process.id { process.parent } else { parent_of(id) };
        }
        // No hook is so deep below the process that runs it, so nothing can hide by being deep.
        false
    }

    /// Returns the processes that have called the hook, from its parent up to PID 1, which is excluded.
    #[must_use]
    pub fn callers(self) -> List<Pid, { limits::ANCESTORS_MAX }> {
        let mut callers = List::new();
        for caller in ancestors(self.parent) {
            let _ = callers.push(caller);
        }
        callers
    }

    /// Returns whether the hook's parent has no other child, if the kernel says so in one line. Then there is
    /// no need to read every process. The line may omit a child while another one ends, so it has to say so
    /// twice.
    ///
    /// - `/proc/PID/task/TID/children`, `proc_tid_children(5)`
    #[must_use]
    pub fn hook_is_an_only_child(self) -> bool {
        let Some(parent) = self.parent_of_hooks() else { return true };
        let id = parent.as_raw_nonzero();
        let threads = Text::<32>::of(format_args!("/proc/{id}/task"));
        let children = Text::<48>::of(format_args!("/proc/{id}/task/{id}/children"));
        let (Some(threads), Some(children)) = (threads.as_c_str(), children.as_c_str()) else { return false };
        // Each thread has its own children. With one thread this directory has three links: itself, its parent
        // and the thread's.
        let has_one_thread = stat(threads).is_ok_and(|directory| directory.st_nlink == 3);
        let Ok(children) = files::open(CWD, children) else { return false };
        let says_so = || {
            let mut line = [0; limits::CHILDREN_MAX];
            let length = pread(&children, &mut line, 0).unwrap_or(0);
            line.get(..length).is_some_and(|line| number(line.trim_ascii()) == Some(self.hook))
        };
        has_one_thread && says_so() && says_so()
    }

    fn parent_of_hooks(self) -> Option<Pid> {
        self.parent.filter(|parent| *parent != Pid::INIT)
    }
}

/// Returns whether root started a process, given its directory in /proc. Its real user counts, as in systemd
/// (`get_process_uid`, src/basic/process-util.c), because anybody can run a program that becomes root.
#[must_use]
pub fn is_roots(directory: &OwnedFd) -> bool {
    let of_root = files::find_line(directory, c"status", |line| {
        let users = line.strip_prefix(b"Uid:")?.trim_ascii();
        Some(users.split(u8::is_ascii_whitespace).next() == Some(b"0"))
    });
    of_root == Ok(Some(true))
}

/// Returns the id of the process that was created last (`proc_loadavg(5)`).
#[must_use]
pub fn newest() -> Option<Pid> {
    let mut line = [0; 96];
    let line = files::up_to(files::open(CWD, c"/proc/loadavg").ok()?, &mut line).ok()?;
    number(line.trim_ascii().rsplit(|byte| *byte == b' ').next()?)
}

/// Returns a process and those above it, up to PID 1, which is excluded.
pub fn ancestors(from: Option<Pid>) -> impl Iterator<Item = Pid> {
    let known = core::iter::successors(from, |id| parent_of(*id)).take_while(|id| *id != Pid::INIT);
    known.take(limits::ANCESTORS_MAX)
}

/// Returns the parent of a process, if the process still exists and has one.
#[must_use]
pub fn parent_of(id: Pid) -> Option<Pid> {
    let path = Text::<32>::of(format_args!("/proc/{}", id.as_raw_nonzero()));
    look_at(id, &files::directory(CWD, path.as_c_str()?).ok()?)?.parent
}

fn look_at(id: Pid, directory: &OwnedFd) -> Option<Process> {
    let mut buffer = [0; limits::STAT_MAX];
    Process::parse(id, files::up_to(files::open(directory, c"stat").ok()?, &mut buffer).ok()?)
}

impl Process {
    /// Returns whether it has ended and waits for its parent to notice. A program whose first thread has ended
    /// looks the same except for its other threads.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.first_ended && self.threads <= 1
    }

    /// Returns whether its directory in /proc shows nothing that it holds, because that directory is its first
    /// thread's.
    #[must_use]
    pub fn has_lost_its_first_thread(&self) -> bool {
        self.first_ended && self.threads > 1
    }

    /// Parses `PID (NAME) STATE PARENT …` (`proc_pid_stat(5)`). A name may contain anything, brackets too.
    #[must_use]
    pub fn parse(id: Pid, stat: &[u8]) -> Option<Process> {
        let open = stat.iter().position(|byte| *byte == b'(')?;
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        let name = Name::cut(stat.get(open + 1..close)?);
        let mut fields = stat.get(close + 2..)?.split(|byte| *byte == b' ');
        let state = fields.next()?;
        let parent = digits(fields.next()?)?;
        // Flags are the ninth field, and the number of threads is the twentieth; the parent is the fourth.
        let flags = digits(fields.nth(4)?)?;
        let threads = digits(fields.nth(10)?)?;
        Some(Process {
            id,
            name,
            parent: i32::try_from(parent).ok().and_then(Pid::from_raw),
            is_kernel: flags & PF_KTHREAD != 0,
            threads,
            first_ended: matches!(state, b"Z" | b"X" | b"x"),
        })
    }
}

fn number(name: &[u8]) -> Option<Pid> {
    i32::try_from(digits(name)?).ok().and_then(Pid::from_raw)
}

fn digits(number: &[u8]) -> Option<u32> {
    core::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    /// Returns the rest of a line, from the fifth field to a few behind the twentieth.
    fn rest(flags: u32, threads: u32) -> String {
        format!("77 77 0 -1 {flags} 12 0 0 0 3 4 0 0 20 0 {threads} 0 4242")
    }

    fn process(stat: &str) -> Option<Process> {
        Process::parse(pid(80), stat.as_bytes())
    }

    #[test]
    fn a_name_may_hold_anything() {
        for (stat, name) in
            [("80 (mdadm.shutdown) S 77", "mdadm.shutdown"), ("80 (a) b (c)) R 77", "a) b (c)")]
        {
            assert_eq!(process(&format!("{stat} {}", rest(0, 1))).unwrap().name.to_string(), name);
        }
        for bad in ["", "80", "80 (x", "80 (x)", "80 (x) S", "80 (x) S -77 0", ") S 77 (", "80 (x) S y"] {
            assert_eq!(process(bad), None, "{bad:?}");
        }
        // Every field up to the number of threads is required.
        assert_eq!(process("80 (x) S 77 77 77 0 -1 0 12 0 0 0 3 4 0 0 20 0"), None);
    }

    #[test]
    fn no_process_can_look_like_the_kernels_or_like_one_that_has_ended() {
        let of = |state: &str, flags, threads| {
            process(&format!("80 (x) {state} 77 {}", rest(flags, threads))).unwrap()
        };
        assert!(of("S", 0x0020_8040, 1).is_kernel && !of("S", 0x0040_0100, 1).is_kernel);
        assert!(of("Z", 0, 1).has_ended() && of("X", 0, 0).has_ended() && !of("S", 0, 1).has_ended());
        // The first thread has ended, another one lives on.
        let headless = of("Z", 0, 2);
        assert!(!headless.has_ended() && headless.has_lost_its_first_thread());
        assert!(!of("Z", 0, 1).has_lost_its_first_thread());
    }

    #[test]
    fn the_init_the_parent_and_all_that_hooks_run_are_relatives() {
        let other = |id: i32, parent: i32| Process {
            id: pid(id),
            name: Name::cut(b"x"),
            parent: Pid::from_raw(parent),
            is_kernel: false,
            threads: 1,
            first_ended: false,
        };
        // 60 runs the hooks 70 and 80; 81 and 82 belong to a script; 71 is the guard.
        let parents = |id: Pid| match id.as_raw_nonzero().get() {
            81 => Some(pid(80)),
            70 | 80 => Some(pid(60)),
            _ => Some(Pid::INIT),
        };
        let ours = Relatives { hook: pid(70), parent: Some(pid(60)) };
        for (id, parent) in [(1, 0), (70, 60), (60, 1), (71, 70), (80, 60), (81, 80), (82, 81)] {
            assert!(ours.include(&other(id, parent), parents), "{id} {parent}");
        }
        for (id, parent) in [(90, 1), (91, 90), (2, 0)] {
            assert!(!ours.include(&other(id, parent), parents), "{id} {parent}");
        }
        assert!(ours.is_other_hook(&other(80, 60)) && !ours.is_other_hook(&other(71, 70)));
        // If PID 1 itself runs the hook, the hook cannot tell its siblings from leftover processes.
        let alone = Relatives { hook: pid(70), parent: Some(Pid::INIT) };
        assert!(!alone.include(&other(90, 1), parents) && alone.include(&other(71, 70), parents));
        // No process can hide behind a long line of ancestors.
        assert!(!ours.include(&other(500, 499), |id| Pid::from_raw(id.as_raw_nonzero().get() - 1)));
        let init = Relatives { hook: Pid::INIT, parent: None };
        assert!(!init.include(&other(90, 0), parents));
    }

    #[test]
    fn who_started_a_process_is_read_of_its_status() {
        let directory = files::directory(CWD, c"/proc/self").unwrap();
        assert_eq!(is_roots(&directory), rustix::process::getuid().is_root());
        assert!(!is_roots(&files::directory(CWD, c"/proc").unwrap()));
    }

    #[test]
    fn who_called_is_all_that_stand_above() {
        let callers = Relatives::of_this_process().callers();
        assert!(callers.iter().next() == getppid().filter(|parent| *parent != Pid::INIT));
        assert!(newest().is_some_and(|newest| newest.as_raw_nonzero().get() > 1));
    }

    #[test]
    fn every_process_is_found() {
        let own_parent = getppid();
        let found = find(|process, _| (Some(process.id) == own_parent).then_some(process.id)).unwrap();
        assert_eq!(found, own_parent);
    }
}
