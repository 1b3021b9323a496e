//! Finds out whether a process holds the lock of a device for ever. Then every reboot(2), a jump as well as a
//! restart, waits behind it: `device_shutdown` takes the lock of each device (drivers/base/core.c).

use core::fmt;

use rustix::fd::AsFd;
use rustix::fs::CWD;
use rustix::io;
use rustix::process::Pid;

use crate::scene::processes;
use crate::sys::name::hash;
use crate::sys::text::Text;
use crate::sys::{clock, files, limits};

/// The state of a device's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// The process in question does not hold it.
    Free,
    /// The process in question holds it.
    Held,
    /// Unknown: stacks cannot be read (`kernel.yama.ptrace_scope = 3`, a kernel without `CONFIG_STACKTRACE`),
    /// or not to their end, such as the stack of a process that is running on another processor.
    Unknown,
}

impl Lock {
    /// Combines the results of two checks.
    fn and(self, other: Lock) -> Lock {
        match (self, other) {
            (Lock::Held, _) | (_, Lock::Held) => Lock::Held,
            (Lock::Unknown, _) | (_, Lock::Unknown) => Lock::Unknown,
            _ => Lock::Free,
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Lock::Free => "",
            Lock::Held => ", with the lock of its device held",
            Lock::Unknown => ", and whether the lock of its device is held cannot be told",
        })
    }
}

/// Returns whether a process is stuck in a place in which the kernel holds the lock of a device. A process that
/// is running has no stack to read, so it is checked a few times.
#[must_use]
pub fn held_by(process: Pid) -> Lock {
    let mut told = Lock::Unknown;
    for _ in 0..limits::STACK_LOOKS {
        match Stack::of(process) {
            // Each further attempt would add a line to the kernel log about the process that tried it.
            Stack { could_be_read: false, .. } => return Lock::Unknown,
            Stack { lock: Lock::Held, .. } => return Lock::Held,
            Stack { lock: Lock::Free, .. } => told = Lock::Free,
            Stack { lock: Lock::Unknown, .. } => {}
        }
        clock::sleep(limits::GLANCE);
    }
    told
}

/// Returns whether any process holds the lock of a device. After an oops it counts as held, because a process
/// in which the kernel failed keeps its locks, and cannot be examined any more (`TAINT_DIE`,
/// Documentation/admin-guide/tainted-kernels.rst). The scan of all processes may take long.
pub fn held_by_anybody() -> io::Result<Lock> {
    let mut told = if has_oopsed() { Lock::Held } else { Lock::Free };
    processes::find(|_, directory| {
        let stack = Stack::at(directory, c"stack");
        let has_gone = || files::open(directory, c"stat").is_err();
        if stack.could_be_read || !has_gone() {
            told = told.and(stack.of_anybody());
        }
        (told == Lock::Held).then_some(())
    })?;
    Ok(told)
}

/// A process's position in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The state of a device's lock, according to the stack.
    pub lock: Lock,
    /// Whether the stack could be read.
    pub could_be_read: bool,
    /// A number for the place in the driver from which a device or a module is removed. It changes when the
    /// removal gets on. Functions that the driver calls from there do not count, because it may call them in
    /// circles.
    pub place: u64,
}

impl Stack {
    /// Reads the current stack of a process (`proc_pid_stack(5)`).
    #[must_use]
    pub fn of(process: Pid) -> Stack {
        let path = Text::<32>::of(format_args!("/proc/{}/stack", process.as_raw_nonzero()));
        Stack::at(CWD, path.as_c_str().unwrap_or_default())
    }

    fn at(directory: impl AsFd, path: &core::ffi::CStr) -> Stack {
        let mut stack = Stack::of_lines(core::iter::empty());
        let mut above = [0; 2];
        let read = files::find_line(directory, path, |line| {
            stack.take(line, &mut above);
            None::<()>
        });
        stack.could_be_read = read.is_ok();
        stack
    }

    /// Parses the lines of a stack that could be read.
    pub fn of_lines<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Stack {
        let mut stack = Stack { lock: Lock::Unknown, could_be_read: true, place: 0 };
        let mut above = [0; 2];
        for line in lines {
            stack.take(line, &mut above);
        }
        stack
    }

    /// Parses one line; the innermost function comes first.
    fn take(&mut self, line: &[u8], above: &mut [u64; 2]) {
        let number = hash(line);
        if is_under_device_lock(line) {
            self.lock = Lock::Held;
        }
        let is_outermost = OUTERMOST.iter().any(|name| says(line, name));
        if is_outermost && self.lock == Lock::Unknown {
            self.lock = Lock::Free;
        }
        if self.place != 0 {
            self.place = self.place.rotate_left(5) ^ number;
        } else if self.lock != Lock::Unknown {
            // The driver's own function, and its caller.
            self.place = above[0].rotate_left(10) ^ above[1].rotate_left(5) ^ number;
        }
        // If the compiler did not inline this function, it is a line of its own in between.
        if !says(line, b" device_remove+") {
            *above = [above[1], number];
        }
    }

    /// Returns the state of the lock for a process that may be doing anything. If its stack could be read and
    /// shows no such lock, it holds none.
    fn of_anybody(self) -> Lock {
        match self.lock {
            Lock::Held => Lock::Held,
            _ if self.could_be_read => Lock::Free,
            _ => Lock::Unknown,
        }
    }
}

/// The kernel functions with which an act of teardown begins. A stack that reaches one of them is complete. It
/// shows at most 64 functions (`MAX_STACK_TRACE_DEPTH`, fs/proc/base.c).
const OUTERMOST: [&[u8]; 2] = [b"sys_delete_module", b"vfs_write"];

fn says(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).any(|at| at == name)
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

/// Returns whether a line of a kernel stack (`proc_pid_stack(5)`) belongs to the part of the driver core that
/// holds a device's lock around a driver's remove or shutdown (drivers/base/dd.c, drivers/base/core.c).
#[must_use]
pub fn is_under_device_lock(line: &[u8]) -> bool {
    const UNDER_LOCK: [&[u8]; 4] =
        [b"device_release_driver", b"driver_detach", b"unbind_store", b"device_shutdown"];
    UNDER_LOCK.iter().any(|name| says(line, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    fn stack(lines: &[&str]) -> Stack {
        let lines: Vec<_> = lines.iter().map(|line| format!("[<0>] {line}")).collect();
        Stack::of_lines(lines.iter().map(String::as_bytes))
    }

    /// Returns the stack of a driver's exit as Debian 13's kernel shows it, with the functions that hang on
    /// top.
    fn removing<'l>(inner: &[&'l str], at: &'l str) -> Stack {
        let outer = [
            at,
            "pci_device_remove+0x41/0xb0",
            "device_release_driver_internal+0x19e/0x200",
            "driver_detach+0x47/0x90",
            "bus_remove_driver+0x6c/0xf0",
            "pci_unregister_driver+0x2a/0xb0",
            "end+0x1c/0x70 [nvidia]",
            "__do_sys_delete_module.isra.0+0x1a4/0x310",
            "do_syscall_64+0x82/0x190",
        ];
        stack(&[inner, &outer].concat())
    }

    #[test]
    fn a_stack_below_a_drivers_remove_holds_the_devices_lock() {
        let removing = removing(&["msleep+0x2d/0x40"], "remove+0x10/0x40 [nvidia]");
        assert_eq!(removing.lock, Lock::Held);
        assert_eq!(removing.of_anybody(), Lock::Held);
        let exit = ["hang+0x12/0x20 [nvidia]", "end+0x1c/0x70 [nvidia]", "__x64_sys_delete_module+0x12/0x20"];
        assert_eq!(stack(&exit).lock, Lock::Free);
    }

    #[test]
    fn a_stack_that_does_not_go_to_its_end_tells_nothing() {
        assert_eq!(stack(&[]).lock, Lock::Unknown);
        assert_eq!(stack(&["msleep+0x2d/0x40", "end+0x1c/0x70 [nvidia]"]).lock, Lock::Unknown);
        // For a process that may be doing anything, however, such a stack says enough.
        assert_eq!(stack(&["do_epoll_wait+0x1/0x2"]).of_anybody(), Lock::Free);
        let unreadable = Stack { could_be_read: false, ..stack(&[]) };
        assert_eq!(unreadable.of_anybody(), Lock::Unknown);
    }

    #[test]
    fn a_later_place_in_the_drivers_remove_is_progress_and_going_in_circles_below_it_is_none() {
        let at = |inner: &[&str], at| removing(inner, at).place;
        let (here, later) = ("remove+0x10/0x40 [nvidia]", "remove+0x24/0x40 [nvidia]");
        let (asleep, awake): (&[&str], &[&str]) =
            (&["schedule_timeout+0x1/0x2", "msleep+0x2d/0x40"], &["delay_tsc+0x7/0x9"]);
        assert_eq!(at(asleep, here), at(awake, here));
        assert_ne!(at(asleep, here), at(asleep, later));
        assert_ne!(at(asleep, here), 0);
        assert_eq!(stack(&["a+0x1/0x2"]).place, 0);
    }

    #[test]
    fn what_is_held_by_one_is_held_and_what_is_unknown_of_one_is_not_free() {
        assert_eq!(Lock::Free.and(Lock::Unknown), Lock::Unknown);
        assert_eq!(Lock::Unknown.and(Lock::Held), Lock::Held);
        assert_eq!(Lock::Free.and(Lock::Free), Lock::Free);
    }
}
