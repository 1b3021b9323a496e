//! Whether a long act makes progress. A slow act is waited for. Only an act that has stalled counts as hung,
//! because the answer to that is a reset, which no driver survives that was merely slow.

use core::time::Duration;

use crate::sys::{clock, limits};

/// An act that is watched.
#[derive(Debug)]
pub struct Progress {
    begun: Duration,
    /// How long it may take without progress.
    time: Duration,
    /// The uptime at which it is given up, with progress or without.
    until: Duration,
    /// The fewest and the most devices that were seen.
    devices: Option<(u32, u32)>,
    /// The places that were seen last. An act that goes in circles comes by each again.
    places: [u64; limits::PLACES],
    changed: Duration,
}

impl Progress {
    /// Begins to watch an act now.
    #[must_use]
    pub fn of_now(time: Duration, until: Duration) -> Progress {
        let begun = clock::uptime();
        Progress { begun, time, until, devices: None, places: [0; limits::PLACES], changed: begun }
    }

    /// Records the current state of the act: the number of devices of its driver, and its place (0 if unknown).
    /// More or fewer devices than ever before are progress, and so is a place that was not seen lately.
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

    /// Returns the time until the next check, or `None` if the act is given up.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let now = clock::uptime();
        let rest = self.until.saturating_sub(now);
        // The act may finish at the very end of its time.
        let to_the_end = (self.begun + self.time).saturating_sub(now);
        let step = if to_the_end.is_zero() { limits::LOOK } else { to_the_end };
        (!rest.is_zero() && !self.stands_still()).then(|| limits::LOOK.min(rest).min(step))
    }

    /// Returns whether the act counts as hung: it had all its time, which was more than a moment, and made no
    /// progress during the last third of it. A time that was cut short proves nothing.
    #[must_use]
    pub fn has_stalled(&self) -> bool {
        self.stands_still() && clock::uptime() >= self.begun + limits::HUNG
    }

    fn stands_still(&self) -> bool {
        let now = clock::uptime();
        now >= self.begun + self.time && now >= self.changed + self.time / limits::STALLED
    }

    /// Returns the number of seconds that the act has been watched.
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

    /// Returns the progress of an act whose time was over long ago.
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
