use core::fmt;

use crate::HandoffId;
use crate::image::number;

const TITLE: &str = "nextkernel-armed 1";
const END: &str = "end";

/// The file that `nextkernel reboot` leaves for inits that can be asked for a reboot, but not for kexec: it
/// says that the staged kernel is meant this once. A reader that acts on it removes it first.
///
/// ```
/// use nextkernel_plan::{Armed, HandoffId};
///
/// let text = "nextkernel-armed 1\nhandoff = 5f3a9c1e2b7d4a60\nuntil = 1234\nend\n";
/// let armed = Armed::parse(text.as_bytes()).unwrap();
/// assert!(armed.is_for(armed.handoff, 1200) && !armed.is_for(armed.handoff, 1234));
/// assert_eq!(armed.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// The handoff that is meant. One that is staged later is not.
    pub handoff: HandoffId,
    /// When it expires: seconds of `CLOCK_BOOTTIME` (`clock_gettime(2)`).
    pub until: u64,
}

impl Armed {
    /// The greatest lifetime in seconds. It is so long because all services have to end before the hook runs.
    pub const SECONDS: u64 = 300;
    /// The greatest length of the file, in bytes.
    pub const MAX: usize = 96;

    /// Whether it means this handoff, at the second `now` of `CLOCK_BOOTTIME`. A file that would expire more
    /// than `SECONDS` from now was not made on this boot.
    #[must_use]
    pub fn is_for(&self, handoff: HandoffId, now: u64) -> bool {
        self.handoff == handoff && (1..=Armed::SECONDS).contains(&self.until.saturating_sub(now))
    }

    /// Parses the file. Accepts any bytes, and returns `None` if they are not a complete file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Armed> {
        let mut lines = core::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
        let titled = lines.next()? == TITLE;
        let handoff = HandoffId::from_digits(lines.next()?.strip_prefix("handoff = ")?)?;
        let until = number(lines.next()?.strip_prefix("until = ")?)?;
        let ends = lines.next()? == END && lines.next().is_none();
        (titled && ends).then_some(Armed { handoff, until })
    }
}

impl fmt::Display for Armed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{TITLE}\nhandoff = {}\nuntil = {}\n{END}\n", self.handoff, self.until)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ARMED: Armed = Armed { handoff: HandoffId(7), until: 1000 };

    #[test]
    fn it_counts_for_its_own_handoff_and_not_after_its_time_or_from_another_boot() {
        assert!(ARMED.is_for(HandoffId(7), 1000 - Armed::SECONDS) && ARMED.is_for(HandoffId(7), 999));
        assert!(!ARMED.is_for(HandoffId(8), 999));
        for now in [1000, 1001, 0, 1000 - Armed::SECONDS - 1] {
            assert!(!ARMED.is_for(HandoffId(7), now), "{now}");
        }
    }

    #[test]
    fn whatever_is_not_whole_arms_nothing() {
        let text = ARMED.to_string();
        assert!(text.len() <= Armed::MAX);
        assert_eq!(Armed::parse(text.as_bytes()), Some(ARMED));
        assert!(Armed { until: u64::MAX, ..ARMED }.to_string().len() <= Armed::MAX);
        for cut in 0..text.len() {
            assert_eq!(Armed::parse(text.as_bytes().get(..cut).unwrap()), None, "{cut}");
        }
        for bad in [
            text.replace('1', "2"),
            text.replace("1000", "01000"),
            text.replace("until", "Until"),
            text.clone() + "end\n",
            text.replace('\n', "\r\n"),
        ] {
            assert_eq!(Armed::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Armed::parse(b"\xff"), None);
    }
}
