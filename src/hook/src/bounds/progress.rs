//! Does what takes long get on? What is slow is waited for, and only what has stalled counts as hung: the answer to that is
//! a reset, which no driver survives that was merely slow.

use core::time::Duration;

use crate::sys::{clock, limits};

/// An act that is watched.
#[derive(Debug)]
pub struct Progress {
    begun: Duration,
    /// How long it may take without progress.
    time: Duration,
    /// It is given up when the machine has been up so long, with progress or without.
    until: Duration,
    /// The fewest devices that were seen, and the most.
    devices: Option<(u32, u32)>,
    /// The places that were seen last: who goes in circles comes by each again.
    places: [u64; limits::PLACES],
    changed: Duration,
}

impl Progress {
    /// Begins now.
    #[must_use]
    pub fn of_now(time: Duration, until: Duration) -> Progress {
        let begun = clock::uptime();
        Progress { begun, time, until, devices: None, places: [0; limits::PLACES], changed: begun }
    }

    /// Takes what is seen of it now: how many devices its driver has, and where it is (0: that cannot be told). More or fewer
    /// devices than ever are progress, and so is a place where it was not before.
    pub fn see(&mut self, devices: u32, place: u64) {
        let (fewest, most) = self.devices.unwrap_or((devices, devices));
        let comes_by = place != 0 && !self.places.contains(&place);
        if devices < fewest || devices > most || comes_by {
            self.changed = clock::uptime();
        }
        self.devices = Some((fewest.min(devices), most.max(devices)));
        if comes_by {
            self.places.rotate_right(1);
            if let Some(last) = self.places.first_mut() {
                *last = place;
            }
        }
    }

    /// How long to wait until the next look; `None` where it is given up.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let now = clock::uptime();
        let rest = self.until.saturating_sub(now);
        // What is awaited may come at the very end.
        let to_the_end = (self.begun + self.time).saturating_sub(now);
        let step = if to_the_end.is_zero() { limits::LOOK } else { to_the_end };
        (!rest.is_zero() && !self.stands_still()).then(|| limits::LOOK.min(rest).min(step))
    }

    /// Whether it counts as hung: it had all its time, which was no moment, and made no progress for the last third of it. A
    /// time that was cut short tells nothing.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.stands_still() && clock::uptime() >= self.begun + limits::HUNG
    }

    fn stands_still(&self) -> bool {
        let now = clock::uptime();
        now >= self.begun + self.time && now >= self.changed + self.time / limits::STALLED
    }

    /// For how many seconds it has been watched.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        clock::uptime().saturating_sub(self.begun).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::sleep;

    const TIME: Duration = Duration::from_millis(90);

    /// One whose time was over long ago.
    fn old() -> Progress {
        let now = clock::uptime();
        let begun = now.saturating_sub(limits::HUNG * 2);
        Progress { begun, changed: begun, ..Progress::of_now(TIME, now + limits::HUNG) }
    }

    #[test]
    fn without_progress_it_has_stalled_when_its_time_is_over_and_not_before() {
        let mut progress = old();
        progress.see(1, 0);
        assert!(progress.patience().is_none() && progress.has_stalled());
        let progress = Progress::of_now(limits::HUNG, clock::uptime() + limits::HUNG);
        assert!(progress.patience().is_some() && !progress.has_stalled());
    }

    #[test]
    fn with_progress_it_is_waited_for_beyond_its_time() {
        let mut progress = old();
        progress.see(2, 0);
        progress.see(1, 0);
        assert!(progress.patience().is_some() && !progress.has_stalled());
        sleep(TIME);
        assert!(progress.has_stalled());
        progress.see(1, 7);
        assert!(!progress.has_stalled());
    }

    #[test]
    fn going_in_circles_is_no_progress_and_neither_is_a_stack_that_comes_and_goes() {
        let mut progress = old();
        let mut goes_by = |places: [u64; 5]| {
            for place in places {
                progress.see(1, place);
            }
        };
        goes_by([0, 7, 0, 8, 0]);
        sleep(TIME);
        goes_by([7, 0, 8, 8, 7]);
        assert!(progress.has_stalled());
    }

    #[test]
    fn a_time_that_was_cut_short_or_is_a_moment_tells_nothing() {
        let progress = Progress { until: clock::uptime(), time: limits::HUNG * 9, ..old() };
        assert!(progress.patience().is_none() && !progress.has_stalled());
        let now = clock::uptime();
        let begun = now.saturating_sub(TIME * 2);
        let progress = Progress { begun, changed: begun, ..Progress::of_now(TIME, now + limits::HUNG) };
        assert!(progress.patience().is_none() && !progress.has_stalled());
    }
}
