//! Why there is no handoff: one sentence each, for the kernel log.

use core::fmt;

use nextkernel_plan::{Malformed, Verb};
use rustix::io::Errno;

use crate::bounds::open::Open;
use crate::scene::modules::ModuleName;
use crate::scene::mounts::Writable;
use crate::sys::errno::Named;

/// The act of syncing.
pub const SYNC: &str = "sync";
/// The act of loading, by the name of its call: the verified loader's, and the direct one's.
pub const LOAD: &str = "kexec_file_load";
/// The other one.
pub const LOAD_SEGMENTS: &str = "kexec_load";

/// Why there is no handoff.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The process does not stand in the first PID namespace.
    InContainer,
    /// PID 1 is not carrying out that verb.
    NoShutdown(Verb),
    /// The plan is there, and it is not one.
    Malformed {
        /// The folder that it is in.
        folder: &'static str,
        /// What is wrong with it.
        malformed: Malformed,
    },
    /// An image is not the one that was staged.
    NotAsStaged {
        /// The folder that it is in.
        folder: &'static str,
        /// Which image.
        image: &'static str,
        /// What differs.
        what: &'static str,
    },
    /// What was preloaded is not loaded any more, and there are no copies that could be loaded.
    NoCopies,
    /// A file system would be left writable.
    StillWritable(Writable),
    /// Something that the old root lies on could not be closed.
    StillOpen(Open),
    /// An act was given up.
    Hangs {
        /// Which act.
        act: &'static str,
        /// After how many seconds.
        seconds: u64,
        /// Its process could be ended.
        lets_go: bool,
    },
    /// A sync makes progress, and its time is over.
    StillWriting {
        /// After how many seconds.
        seconds: u64,
    },
    /// The process that did it was killed.
    Died {
        /// Which act.
        act: &'static str,
    },
    /// The kernel refused to load or to jump.
    Kexec {
        /// The call.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The time for it was over before it began.
    OutOfTime,
    /// The plan does not jump while this driver of a GPU is there.
    MeantForFirmware(ModuleName),
    /// This driver could not be unloaded, and then the plan does not jump.
    StillDriven(ModuleName),
    /// Every reboot(2) would hang, and the machine could not be reset.
    CannotReset,
    /// The staged command line and the record do not fit together.
    CommandLineTooLong,
    /// Another system call failed.
    Call {
        /// The call, with what tells one from another.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
}

impl Failure {
    /// The mounts of this process cannot be read.
    #[must_use]
    pub fn of_mountinfo(errno: Errno) -> Failure {
        Failure::Call { call: "read /proc/self/mountinfo", errno }
    }

    /// Returns what it means for the end of the shutdown.
    #[must_use]
    pub fn class(&self) -> Class {
        match *self {
            Failure::StillWriting { .. } | Failure::Call { call: SYNC, .. } => Class::NotWritten,
            Failure::Hangs { act: SYNC, .. } | Failure::Died { act: SYNC } => Class::SyncHangs,
            Failure::Hangs { act: LOAD | LOAD_SEGMENTS, lets_go: false, .. } => Class::LoadHangs,
            Failure::Hangs { act: LOAD | LOAD_SEGMENTS, .. }
            | Failure::Died { act: LOAD | LOAD_SEGMENTS } => Class::Plain,
            Failure::Hangs { .. } | Failure::Died { .. } => Class::Hangs,
            Failure::Kexec { errno: Errno::BUSY, .. } => Class::Busy,
            Failure::MeantForFirmware(_) | Failure::StillDriven(_) => Class::MeantForFirmware,
            _ => Class::Plain,
        }
    }
}

/// What a failure means for the end of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing but that there is no handoff.
    Plain,
    /// Somebody else loads, unloads or jumps in the same moment.
    Busy,
    /// Not everything is written: nobody may jump.
    NotWritten,
    /// The sync hangs, or the kernel failed in it: nobody may jump, and a restart wants a guard.
    SyncHangs,
    /// Something else hangs, or the kernel failed in it: a restart may hang with it, and wants a guard.
    Hangs,
    /// A load hangs, and the kernel does not let it go. It holds no lock that a restart needs.
    LoadHangs,
    /// The plan wants the firmware now: nobody may jump.
    MeantForFirmware,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Failure::InContainer => out.write_str(
                "refused: this is a container, and a container has no next kernel; run it on the machine itself",
            ),
            Failure::NoShutdown(verb) => write!(
                out,
                "refused: no shutdown is under way that was asked for '{verb}'; \
                 `nextkernel reboot` asks for one, `nextkernel-hook --dry-run {verb}` shows what would be done"
            ),
            Failure::Malformed { folder, malformed } => {
                write!(out, "{folder}/plan: {malformed}; stage again with the tool of this version")
            }
            Failure::NotAsStaged { folder, image, what } => {
                write!(out, "the {image} in {folder} is not the one that was staged: its {what} differs")
            }
            Failure::NoCopies => {
                out.write_str("the staged image is loaded no more, or by another stage since, and preload = only keeps no copies of it")
            }
            Failure::StillWritable(at) => write!(
                out,
                "{} ({}) is still mounted writable, and a jump would leave it unclean",
                at.path, at.kind
            ),
            Failure::StillOpen(open) => open.fmt(out),
            Failure::Hangs { act, seconds, .. } => write!(out, "{act}: given up after {seconds} seconds"),
            Failure::StillWriting { seconds } => write!(out, "sync: not everything is written after {seconds} seconds"),
            Failure::Died { act } => write!(out, "{act}: the process that did it was killed"),
            Failure::Kexec { call, errno } => write!(out, "{call}: {}{}", Named(errno), meaning(errno)),
            Failure::OutOfTime => out.write_str("the time for it was over"),
            Failure::MeantForFirmware(module) => write!(
                out,
                "{module} drives a GPU, and the plan says that the machine then restarts through firmware"
            ),
            Failure::StillDriven(module) => write!(
                out,
                "{module} still drives its GPU, and the plan says that the machine then restarts through firmware"
            ),
            Failure::CannotReset => {
                out.write_str("the machine could not be reset by /proc/sysrq-trigger")
            }
            Failure::CommandLineTooLong => {
                out.write_str("the staged command line leaves no room for the record; stage it again")
            }
            Failure::Call { call, errno: errno @ Errno::ACCESS } => {
                write!(out, "{call}: {}; it belongs to root: run this with sudo", Named(errno))
            }
            Failure::Call { call, errno } => write!(out, "{call}: {}", Named(errno)),
        }
    }
}

/// What an answer to `kexec_file_load(2)`, `kexec_load(2)` or reboot(2) means (`kernel/kexec_file.c`, `kernel/kexec_core.c`).
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => {
            ": forbidden by kexec_load_disabled, a spent kexec_load_limit_reboot, lockdown or a missing capability"
        }
        Errno::ACCESS => ": refused by IMA or a security module",
        Errno::BUSY => ": another load or jump is under way",
        Errno::INVAL => {
            ": no image for this machine, larger than half its memory, nothing is loaded, or CMA cannot be left out"
        }
        Errno::NOEXEC => ": not a kernel image that this kernel can load",
        Errno::ADDRNOTAVAIL => ": no room in memory where it must lie",
        Errno::NOMEM => ": not enough memory",
        Errno::TXTBSY => ": open for writing",
        Errno::FBIG => ": too large",
        Errno::IO => ": could not be read whole",
        Errno::NODATA => ": the kernel image carries no signature, and one is required",
        Errno::NOKEY => ": the kernel image is signed by a key that this kernel does not know",
        Errno::KEYREJECTED => ": the kernel image's signature is bad",
        Errno::LIBBAD => ": the kernel image is no signed PE file, and one is required",
        Errno::NOPKG => ": the kernel image's signature needs an algorithm that this kernel lacks",
        Errno::MSGSIZE => ": the kernel image's signature has a form that this kernel does not read",
        Errno::NOSYS => ": this kernel was built without it",
        _ => "",
    }
}
