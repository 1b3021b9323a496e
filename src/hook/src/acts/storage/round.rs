//! A round of closing: tries one thing after the other, and remembers those that stay open.

use core::time::Duration;

use nextkernel_plan::List;
use rustix::io::{self, Errno};

use crate::bounds::child;
use crate::bounds::failure::Failure;
use crate::bounds::open::{Kind, Open};
use crate::sys::name::{Name, hash};
use crate::sys::say::{one_of_many, warn};
use crate::sys::{clock, limits};

/// The progress of closing.
pub struct Round {
    /// The uptime at which nothing is tried any more.
    pub until: Duration,
    /// The number of acts so far, in all rounds.
    tried: usize,
    /// The number of things found open in this round.
    pub seen: usize,
    /// The first thing that could not be closed in this round.
    pub left: Option<Open>,
    /// The things on which the kernel hung, in all rounds. They are not tried again; the others are.
    hung: List<u64, { limits::HUNG_MAX }>,
    /// The first of these things.
    pub first_hung: Option<Open>,
}

impl Round {
    /// Returns a first round, in which nothing was tried yet. All rounds end when the uptime reaches `until`.
    #[must_use]
    pub fn new(until: Duration) -> Round {
        Round { until, tried: 0, seen: 0, left: None, hung: List::new(), first_hung: None }
    }

    /// Logs an act, then runs it in a child.
    pub fn attempt(&mut self, kind: Kind, name: &[u8], act: &mut dyn FnMut() -> io::Result<()>) {
        let this = hash(name) ^ kind as u64;
        let rest = self.until.saturating_sub(clock::uptime());
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
                // Things that do not fit into the list are tried again, which takes a bounded time.
                let _ = self.hung.push(this);
            }
        }
    }

    pub fn leave(&mut self, kind: Kind, name: &[u8], why: Errno) {
        self.seen += 1;
        self.left = self.left.or(Some(Open { kind, name: Name::cut(name), why }));
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
        Round::new(Duration::MAX)
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
        let mut round = Round { until: clock::uptime() + Duration::from_millis(200), ..round() };
        round.attempt(Kind::Mounted, b"/hangs", &mut || loop {
            clock::sleep(Duration::from_secs(60));
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
