//! Closing what the old root lies on, the root with it: mounts, swap, loop devices, mapped devices (dm: LUKS,
//! LVM) and arrays (md). systemd-shutdown does the same on the host, but for the root (src/shutdown: umount.c,
//! swap.c, detach-loopback.c, detach-dm.c, detach-md.c).
//!
//! No order is computed: what is still used says EBUSY, and its turn comes in the next round.

mod devices;
mod mounted;
mod swaps;

use core::ffi::CStr;
use core::fmt;
use core::time::Duration;

use rustix::io::{self, Errno};

use crate::failure::{Failure, Named};
use crate::name::Name;
use crate::say::info;
use crate::{child, limits, sys};

/// Unmounts everything at and below `below`, turns swap off, detaches loop devices, mapped devices and arrays,
/// until nothing changes any more or the machine has been up for `until`. Fails with the first thing that is left.
pub fn close(below: &CStr, until: Duration) -> Result<(), Failure> {
    let mut before = usize::MAX;
    let mut pauses = limits::CLOSE_PAUSES.iter();
    loop {
        let mut round = Round { until, seen: 0, left: None, hangs: None };
        swaps::close(&mut round);
        mounted::close(below, &mut round)?;
        devices::close(&mut round);
        if let Some(hangs) = round.hangs {
            return Err(hangs);
        }
        if round.seen == 0 {
            return Ok(());
        }
        let left = round.left.map_or(Ok(()), |left| Err(Failure::StillOpen(left)));
        if sys::uptime() >= until {
            return left;
        }
        if round.seen < before {
            before = round.seen;
            pauses = limits::CLOSE_PAUSES.iter();
        } else if let Some(pause) = pauses.next() {
            child::sleep(*pause);
        } else {
            return left;
        }
    }
}

/// What is found open, and tried, one thing after the other.
struct Round {
    until: Duration,
    /// How many things were found open.
    seen: usize,
    /// The first of them that could not be closed.
    left: Option<Open>,
    /// The first act that the kernel did not come back from.
    hangs: Option<Failure>,
}

impl Round {
    /// Says it, then does it, in a child.
    fn attempt(&mut self, kind: Kind, name: &[u8], act: &mut dyn FnMut() -> io::Result<()>) {
        if self.hangs.is_some() {
            return self.leave(kind, name, Errno::TIMEDOUT);
        }
        let verb = kind.verb();
        info!("{verb} {}", Name::<200>::cut(name));
        let time = limits::CLOSE_ACT.min(self.until.saturating_sub(sys::uptime()));
        match child::within(time, verb, act) {
            Ok(()) => self.seen += 1,
            Err(Failure::Call { errno, .. }) => self.leave(kind, name, errno),
            Err(failure) => {
                self.leave(kind, name, Errno::TIMEDOUT);
                self.hangs = self.hangs.or(Some(failure));
            }
        }
    }

    fn leave(&mut self, kind: Kind, name: &[u8], why: Errno) {
        self.seen += 1;
        self.left = self.left.or(Some(Open { kind, name: Name::cut(name), why }));
    }
}

/// What kind of thing is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file system.
    Mounted,
    /// A file or a device in use as swap.
    Swap,
    /// A loop device.
    Loop,
    /// A device of the device mapper.
    Mapped,
    /// An array of md.
    Array,
}

impl Kind {
    fn verb(self) -> &'static str {
        match self {
            Kind::Mounted => "unmount",
            Kind::Swap => "turn off swap on",
            Kind::Loop => "detach loop device",
            Kind::Mapped => "remove mapped device",
            Kind::Array => "stop array",
        }
    }
}

/// Something that could not be closed.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What it is.
    pub kind: Kind,
    /// Its mount point or its name; long ones are cut.
    pub name: Name<64>,
    /// What the kernel answered.
    pub why: Errno,
}

impl fmt::Display for Open {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "the old root's storage is not closed: {} {}: {}",
            self.kind.verb(),
            self.name,
            Named(self.why)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_is_told_in_a_sentence() {
        let open = Open { kind: Kind::Mapped, name: Name::cut(b"dm-0 (root)"), why: Errno::BUSY };
        assert_eq!(
            Failure::StillOpen(open).to_string(),
            "the old root's storage is not closed: remove mapped device dm-0 (root): EBUSY"
        );
    }

    #[test]
    fn the_first_that_is_left_is_the_one_that_is_told() {
        let mut round = Round { until: Duration::MAX, seen: 0, left: None, hangs: None };
        round.attempt(Kind::Mounted, b"/a", &mut || Ok(()));
        round.attempt(Kind::Mounted, b"/b", &mut || Err(Errno::BUSY));
        round.attempt(Kind::Array, b"md0", &mut || Err(Errno::INVAL));
        assert!(round.seen == 3 && round.hangs.is_none());
        assert!(round.left.is_some_and(|left| left.name.as_bytes() == b"/b" && left.why == Errno::BUSY));
    }
}
