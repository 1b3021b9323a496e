//! The reasons why there is no handoff, each with one sentence for the kernel log.

use core::fmt;

use nextkernel_plan::{Malformed, Verb};
use rustix::io::Errno;

use crate::bounds::open::Open;
use crate::scene::modules::ModuleName;
use crate::scene::mounts::Writable;
use crate::sys::errno::Named;

/// Name of the act of syncing.
pub const SYNC: &str = "sync";
/// Name of the act of loading, after the call: with `kexec_file_load`.
pub const LOAD: &str = "kexec_file_load";
/// Name of the act of loading, after the call: with `kexec_load`.
pub const LOAD_SEGMENTS: &str = "kexec_load";

/// The reason why there is no handoff.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The process is not in the first PID namespace.
    InContainer,
    /// PID 1 is not carrying out this verb.
    NoShutdown(Verb),
    /// The plan exists but is malformed.
    Malformed {
        /// The directory of the plan.
        directory: &'static str,
        /// The defect.
        malformed: Malformed,
    },
    /// An image is not the one that was staged.
    NotAsStaged {
        /// The directory of the image.
        directory: &'static str,
        /// The image.
        image: &'static str,
        /// The property that differs.
        what: &'static str,
    },
    /// The preloaded image is not loaded any more, and there are no copies that could be loaded.
    NoCopies,
    /// A jump would leave a file system writable.
    StillWritable(Writable),
    /// Something below the old root could not be closed.
    StillOpen(Open),
    /// An act was given up.
    Hangs {
        /// The act.
        act: &'static str,
        /// The number of seconds after which it was given up.
        seconds: u64,
        /// Whether its process could be ended.
        lets_go: bool,
    },
    /// A sync makes progress, but its time is over.
    StillWriting {
        /// The number of seconds after which it was given up.
        seconds: u64,
    },
    /// The process that carried out an act was killed.
    Died {
        /// The act.
        act: &'static str,
    },
    /// The kernel refused to load, to unload or to jump.
    Kexec {
        /// The system call.
        call: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// The time for an act was over before it began.
    OutOfTime,
    /// The plan forbids a jump while this GPU driver is present.
    MeantForFirmware(ModuleName),
    /// This driver could not be unloaded, and the plan forbids a jump in that case.
    StillDriven(ModuleName),
    /// Every reboot(2) would hang, and the machine could not be reset.
    CannotReset,
    /// The staged command line and the record together are too long.
    CommandLineTooLong,
    /// Another system call failed.
    Call {
        /// The call, with enough detail to tell it from others.
        call: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
}

impl Failure {
    /// Returns the failure to read this process's mounts.
    #[must_use]
    pub fn of_mountinfo(errno: Errno) -> Failure {
        Failure::Call { call: "read /proc/self/mountinfo", errno }
    }

    /// Returns the consequence for the end of the shutdown.
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

/// The consequence of a failure for the end of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing more than that there is no handoff.
    Plain,
    /// Another process is loading, unloading or jumping at the same moment.
    Busy,
    /// Not everything is written: no jump is allowed.
    NotWritten,
    /// The sync hangs, or the kernel failed in it: no jump is allowed, and a restart needs a guard.
    SyncHangs,
    /// Something else hangs, or the kernel failed in it: a restart may hang as well, and needs a guard.
    Hangs,
    /// A load hangs, and the kernel does not let its process go. It holds no lock that a restart needs.
    LoadHangs,
    /// The plan demands a full reboot now: no jump is allowed.
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
            Failure::Malformed { directory, malformed } => {
                write!(out, "{directory}/plan: {malformed}; stage again with the tool of this version")
            }
            Failure::NotAsStaged { directory, image, what } => {
                write!(out, "the {image} in {directory} is not the one that was staged: its {what} differs")
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

/// Returns the meaning of an error from `kexec_file_load(2)`, `kexec_load(2)` or reboot(2)
/// (`kernel/kexec_file.c`, `kernel/kexec_core.c`).
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
