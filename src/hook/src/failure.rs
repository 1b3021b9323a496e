//! Why there is no handoff: one sentence each, for the kernel log.

use core::fmt;

use nextkernel_plan::{Malformed, Verb};
use rustix::io::Errno;

use crate::mounts::Writable;

/// Why there is no handoff.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// The process does not stand in the first PID namespace.
    InContainer,
    /// PID 1 is not carrying out that verb.
    NoShutdown(Verb),
    /// The plan is there, and it is not one.
    Malformed(Malformed),
    /// An image is not the one that was staged.
    NotAsStaged {
        /// Which image.
        image: &'static str,
        /// What differs.
        what: &'static str,
    },
    /// A file system would be left writable.
    StillWritable(Writable),
    /// An act made no progress for so long.
    Hangs {
        /// Which act.
        act: &'static str,
        /// For how many seconds.
        seconds: u64,
    },
    /// The process that did it was killed.
    Died {
        /// Which act.
        act: &'static str,
    },
    /// A system call failed.
    Call {
        /// The call, with what tells one from another.
        call: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
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
                 `systemctl {verb}` asks for one, `nextkernel-hook --dry-run {verb}` shows what would be done"
            ),
            Failure::Malformed(malformed) => {
                write!(out, "/run/nextkernel/plan: {malformed}; stage again with the tool of this version")
            }
            Failure::NotAsStaged { image, what } => {
                write!(out, "the {image} in /run/nextkernel is not the one that was staged: its {what} differs")
            }
            Failure::StillWritable(at) => write!(
                out,
                "{} ({}) is still mounted writable, and a jump would leave it unclean",
                at.path, at.kind
            ),
            Failure::Hangs { act, seconds } => write!(out, "{act}: no progress in {seconds} seconds"),
            Failure::Died { act } => write!(out, "{act}: the process that did it was killed"),
            Failure::Call { call, errno } => write!(out, "{call}: {}", Named(errno)),
        }
    }
}

/// An errno by its name and, where the name alone would not tell, what it means for the calls made here.
pub struct Named(pub Errno);

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            Errno::PERM => {
                "EPERM: forbidden by kexec_load_disabled, a spent kexec_load_limit_reboot, lockdown or a missing capability"
            }
            Errno::ACCESS => "EACCES: refused by IMA or a security module",
            Errno::BUSY => "EBUSY: another load or jump is under way",
            Errno::INVAL => {
                "EINVAL: not an image for this machine, larger than half its memory, or nothing is loaded"
            }
            Errno::NOEXEC => "ENOEXEC: not a kernel image that this kernel can load",
            Errno::ADDRNOTAVAIL => "EADDRNOTAVAIL: no room in memory where it must lie",
            Errno::NOMEM => "ENOMEM: not enough memory",
            Errno::TXTBSY => "ETXTBSY: open for writing",
            Errno::FBIG => "EFBIG: too large",
            Errno::IO => "EIO: could not be read whole",
            Errno::NODATA => "ENODATA: the kernel image carries no signature, and one is required",
            Errno::NOKEY => "ENOKEY: the kernel image is signed by a key that this kernel does not know",
            Errno::KEYREJECTED => "EKEYREJECTED: the kernel image's signature is bad",
            Errno::LIBBAD => "ELIBBAD: the kernel image is no signed PE file, and one is required",
            Errno::NOSYS => "ENOSYS: this kernel was built without it",
            Errno::NOENT => "ENOENT: not there",
            Errno::ROFS => "EROFS: read-only",
            errno => return write!(out, "errno {}", errno.raw_os_error()),
        };
        out.write_str(text)
    }
}
