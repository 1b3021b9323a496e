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

use nextkernel_plan::List;
use rustix::io::{self, Errno};

use crate::failure::{Failure, Named};
use crate::name::{Name, hash};
use crate::say::{one_of_many, warn};
use crate::{child, limits, sys};

/// Unmounts everything at and below `below`, turns swap off, detaches loop devices, mapped devices and arrays,
/// until nothing changes any more or the machine has been up for `until`. Fails with the first thing that is left.
pub fn close(below: &CStr, until: Duration) -> Result<(), Failure> {
    let mut before = usize::MAX;
    let mut pauses = limits::CLOSE_PAUSES.iter();
    let mut round = Round { until, tried: 0, seen: 0, left: None, hung: List::new(), first_hung: None };
    loop {
        (round.seen, round.left) = (0, None);
        swaps::close(&mut round);
        mounted::close(below, &mut round)?;
        devices::close(&mut round);
        // What hangs may be seen no more: an unmount takes its line out of mountinfo, and then writes back.
        let left = round.first_hung.or(round.left).map_or(Ok(()), |left| Err(Failure::StillOpen(left)));
        if round.seen == 0 {
            return left;
        }
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
    /// How many acts there were so far, in all rounds.
    tried: usize,
    /// How many things were found open.
    seen: usize,
    /// The first of them that could not be closed.
    left: Option<Open>,
    /// What the kernel did not come back from, in all rounds: it is not tried again, and the rest is all the same.
    hung: List<u64, { limits::HUNG_MAX }>,
    /// The first of that.
    first_hung: Option<Open>,
}

impl Round {
    /// Says it, then does it, in a child.
    fn attempt(&mut self, kind: Kind, name: &[u8], act: &mut dyn FnMut() -> io::Result<()>) {
        let this = hash(name) ^ kind as u64;
        let rest = self.until.saturating_sub(sys::uptime());
        if rest.is_zero() || self.hung.iter().any(|hung| hung == this) {
            return self.leave(kind, name, Errno::TIMEDOUT);
        }
        let verb = kind.verb();
        one_of_many!(self.tried, "{verb} {}", Name::<200>::cut(name));
        self.tried += 1;
        match child::within(limits::CLOSE_ACT.min(rest), verb, act) {
            Ok(()) => self.seen += 1,
            Err(Failure::Call { errno, .. }) => self.leave(kind, name, errno),
            Err(failure) => {
                warn!("{}: {failure}", Name::<200>::cut(name));
                self.leave(kind, name, Errno::TIMEDOUT);
                let open = Open { kind, name: Name::cut(name), why: Errno::TIMEDOUT };
                self.first_hung = self.first_hung.or(Some(open));
                // More than there is room for cost their time again, which is bounded.
                let _ = self.hung.push(this);
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

    fn round() -> Round {
        Round { until: Duration::MAX, tried: 0, seen: 0, left: None, hung: List::new(), first_hung: None }
    }

    #[test]
    fn the_first_that_is_left_is_the_one_that_is_told() {
        let mut round = round();
        round.attempt(Kind::Mounted, b"/a", &mut || Ok(()));
        round.attempt(Kind::Mounted, b"/b", &mut || Err(Errno::BUSY));
        round.attempt(Kind::Array, b"md0", &mut || Err(Errno::INVAL));
        assert_eq!(round.seen, 3);
        assert!(round.left.is_some_and(|left| left.name.as_bytes() == b"/b" && left.why == Errno::BUSY));
    }

    #[test]
    fn what_hangs_is_not_tried_again_and_the_rest_is() {
        let mut round = Round { until: sys::uptime() + Duration::from_millis(200), ..round() };
        round.attempt(Kind::Mounted, b"/hangs", &mut || loop {
            child::sleep(Duration::from_secs(60));
        });
        assert!(round.left.is_some_and(|left| left.why == Errno::TIMEDOUT));
        let mut round = Round { until: Duration::MAX, seen: 0, left: None, ..round };
        round.attempt(Kind::Mounted, b"/hangs", &mut || Ok(()));
        assert!(round.left.is_some_and(|left| left.why == Errno::TIMEDOUT));
        assert!(round.first_hung.is_some_and(|hung| hung.name.as_bytes() == b"/hangs"));
        round.left = None;
        round.attempt(Kind::Mounted, b"/other", &mut || Ok(()));
        assert!(round.left.is_none() && round.seen == 2);
    }
}
