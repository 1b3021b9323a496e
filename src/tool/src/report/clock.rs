//! The clocks that measure the time while one kernel ends and the next begins: the processor's counter, which
//! goes on, and the real-time clock, which confirms it.

use std::time::Duration;

use nextkernel_hook::sys::calls::counter;
use rustix::time::{ClockId, clock_gettime};

use super::boot::{By, Disagree, LONGEST_MS};
use crate::machine::root::Root;

/// How long to watch the counter to learn its frequency.
const WATCHED: Duration = Duration::from_millis(50);

/// Tolerated difference between clock and counter, in milliseconds. The hook records the clock in whole
/// seconds, and a kernel that starts reads it from a chip that has whole seconds, too.
const TOLERANCE_MS: u64 = 3000;

/// Tolerated uncertainty of the counter, in milliseconds.
const BLUR_MS: u128 = 500;

/// One moment, by each clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The counter, if it goes on at one pace.
    pub counter: Option<Counter>,
    /// Milliseconds since the epoch.
    pub realtime_ms: u64,
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
    /// Whether the machine has a real-time clock chip, which keeps the time between the kernels.
    pub has_chip: bool,
}

/// The counter and its frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The counter's value.
    pub ticks: u64,
    /// Ticks per second.
    pub frequency: u64,
    /// Uncertainty of the frequency, in ticks per thousand million.
    pub blur: u64,
}

/// An earlier moment, as it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Then {
    /// The counter's value, if it was recorded.
    pub counter: Option<u64>,
    /// Milliseconds since the epoch.
    pub realtime_ms: u64,
}

/// How long before the kernel's start two moments were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ago {
    /// The hook's start, in milliseconds before the kernel's start.
    pub begun_ms: u64,
    /// The command, in milliseconds before the kernel's start; `None` if unknown.
    pub stopped_ms: Option<u64>,
    /// The clock by which this was measured.
    pub by: By,
}

impl Now {
    /// Reads the clocks. Takes some 50 ms if the counter's frequency must be measured.
    #[must_use]
    pub fn read(root: &Root) -> Now {
        let frequency = is_steady(root).then(|| Frequency::find(root));
        let ticks = |it: Frequency| Counter { ticks: counter(), frequency: it.hertz, blur: it.blur };
        Now {
            counter: frequency.map(ticks),
            realtime_ms: milliseconds(ClockId::Realtime),
            uptime_ms: milliseconds(ClockId::Boottime),
            has_chip: root.path("/sys/class/rtc").read_dir().is_ok_and(|mut chips| chips.next().is_some()),
        }
    }

    /// Returns when the kernel started, in milliseconds since the epoch.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.realtime_ms.saturating_sub(self.uptime_ms)
    }

    /// Returns how long before the kernel's start the hook began and the command was given. If counter and
    /// clock agree, the counter's answer is taken. If they disagree, the clock's is taken, unless the clock
    /// cannot be right. When the hook made its last record, it had been at work for `least_ms`.
    #[must_use]
    pub fn ago(&self, begun: Then, stopped: Option<Then>, least_ms: u64) -> (Option<Ago>, Option<Disagree>) {
        let fits = |ms: u64| ms >= least_ms && ms <= LONGEST_MS;
        let counted = self.counted_ms(begun).filter(|ms| fits(*ms));
        let clock = self.clock_ms(begun);
        // The hook records the second that had begun.
        let clocked = u64::try_from(clock.saturating_add(1000)).ok().filter(|ms| fits(*ms));
        let clocked = clocked.map(|_| u64::try_from(clock).unwrap_or_default().max(least_ms));
        let differ = counted.filter(|ms| clock.saturating_sub_unsigned(*ms).unsigned_abs() > TOLERANCE_MS);
        let disagree = differ.map(|counter_ms| Disagree { counter_ms, clock_ms: clock });
        let (begun_ms, by) = match (counted, clocked) {
            (Some(counted), Some(_)) if disagree.is_none() => (counted, By::Counter),
            (Some(counted), _) if disagree.is_none() || !self.has_chip => (counted, By::CounterAlone),
            (_, Some(clocked)) => (clocked, By::Clock),
            (Some(counted), None) => (counted, By::CounterAlone),
            (None, None) => return (None, disagree),
        };
        let stopped_ms = stopped.and_then(|stopped| match by {
            By::Clock => u64::try_from(self.clock_ms(stopped)).ok().map(|ms| ms.max(begun_ms)),
            By::Counter | By::CounterAlone => self.counted_ms(stopped).filter(|ms| {
                // Both were recorded by one kernel, during which the clock went on.
                let apart = apart(begun.realtime_ms, stopped.realtime_ms);
                apart.saturating_sub_unsigned(ms.saturating_sub(begun_ms)).unsigned_abs() <= TOLERANCE_MS
            }),
        });
        let stopped_ms = stopped_ms.filter(|ms| *ms >= begun_ms && *ms <= LONGEST_MS);
        (Some(Ago { begun_ms, stopped_ms, by }), disagree)
    }

    /// Returns how long before the kernel's start a moment was, by the clock alone, in milliseconds.
    #[must_use]
    pub fn clock_ms(&self, then: Then) -> i64 {
        apart(self.started_ms(), then.realtime_ms)
    }

    /// Returns how long before the kernel's start a moment was, by the counter alone, in milliseconds. Returns
    /// `None` if the counter has restarted since, or is too uncertain by now.
    fn counted_ms(&self, then: Then) -> Option<u64> {
        let (now, then) = (self.counter?, then.counter?);
        let ticks = u128::from(now.ticks.checked_sub(then)?);
        let elapsed_ms = ticks * 1000 / u128::from(now.frequency.max(1));
        let blurred = elapsed_ms * u128::from(now.blur) / 1_000_000_000 > BLUR_MS;
        let before = elapsed_ms.checked_sub(u128::from(self.uptime_ms)).filter(|_| !blurred)?;
        u64::try_from(before).ok()
    }
}

/// Returns how much later the first moment is than the second, in milliseconds.
#[must_use]
pub fn apart(later_ms: u64, earlier_ms: u64) -> i64 {
    let [later, earlier] = [later_ms, earlier_ms].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
    later.saturating_sub(earlier)
}

/// Returns the present moment for the next kernel, which judges whether the counter can be used. This kernel
/// does not judge: as measured, a kernel that learns a wrong frequency on a busy machine calls a counter
/// unstable that goes on at one pace.
#[must_use]
pub fn told() -> Then {
    Then { counter: Some(counter()), realtime_ms: milliseconds(ClockId::Realtime) }
}

/// The counter's frequency and its uncertainty.
#[derive(Clone, Copy, Debug)]
struct Frequency {
    hertz: u64,
    blur: u64,
}

impl Frequency {
    /// Returns the frequency that the architecture states, or else measures it against the kernel's own clock.
    fn find(root: &Root) -> Frequency {
        match told_frequency(root) {
            Some(hertz) => Frequency { hertz, blur: 0 },
            None => Frequency::measure(),
        }
    }

    fn measure() -> Frequency {
        let first = Sight::take();
        std::thread::sleep(WATCHED);
        Frequency::between(first, Sight::take())
    }

    fn between(first: Sight, second: Sight) -> Frequency {
        let ticks = u128::from(second.ticks.saturating_sub(first.ticks));
        let nanoseconds = second.at.saturating_sub(first.at).as_nanos().max(1);
        let blur = u128::from(first.width + second.width) * 1_000_000_000 / ticks.max(1);
        let bounded = |number| u64::try_from(number).unwrap_or(u64::MAX);
        Frequency { hertz: bounded(ticks * 1_000_000_000 / nanoseconds), blur: bounded(blur) }
    }
}

/// A reading of the counter and of the kernel's clock, and its uncertainty in ticks.
#[derive(Clone, Copy)]
struct Sight {
    ticks: u64,
    at: Duration,
    width: u64,
}

impl Sight {
    /// Returns the narrowest of several readings, because the others were interrupted.
    fn take() -> Sight {
        let sights = std::iter::repeat_with(|| {
            let (before, at, after) = (counter(), clock(ClockId::MonotonicRaw), counter());
            let width = after.saturating_sub(before);
            Sight { ticks: before.saturating_add(width / 2), at, width }
        });
        sights.take(16).min_by_key(|sight| sight.width).unwrap_or(Sight {
            ticks: 0,
            at: Duration::ZERO,
            width: 0,
        })
    }
}

/// Returns whether the counter goes on at one pace, also in the next kernel. If so, the kernel offers it as its
/// own clock; it does not offer a counter that it has found to be unstable
/// (Documentation/ABI/testing/sysfs-devices-system-clocksource).
fn is_steady(root: &Root) -> bool {
    let offered = root.fact("/sys/devices/system/clocksource/clocksource0/available_clocksource");
    let names = ["tsc", "arch_sys_counter", "riscv_clocksource"];
    offered.is_some_and(|offered| offered.split_ascii_whitespace().any(|name| names.contains(&name)))
}

#[cfg(target_arch = "aarch64")]
fn told_frequency(_root: &Root) -> Option<u64> {
    Some(crate::machine::sys::counter_frequency()).filter(|hertz| *hertz > 0)
}

/// Reads the frequency from the device tree, on riscv64 (`timebase-frequency`,
/// Documentation/devicetree/bindings/riscv/cpus.yaml).
#[cfg(not(target_arch = "aarch64"))]
fn told_frequency(root: &Root) -> Option<u64> {
    let bytes = std::fs::read(root.path("/proc/device-tree/cpus/timebase-frequency")).ok()?;
    let hertz = u32::from_be_bytes(bytes.try_into().ok()?);
    (cfg!(target_arch = "riscv64") && hertz > 0).then_some(hertz.into())
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}

fn milliseconds(id: ClockId) -> u64 {
    u64::try_from(clock(id).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    /// 10 s after the kernel's start, which was at 1,000,000 s since the epoch and 5,000,000 ticks of a counter
    /// that counts milliseconds.
    pub(crate) fn now() -> Now {
        Now {
            counter: Some(Counter { ticks: 5_010_000, frequency: 1000, blur: 20_000 }),
            realtime_ms: 1_000_010_000,
            uptime_ms: 10_000,
            has_chip: true,
        }
    }

    /// A moment that long before that kernel's start, by counter and clock.
    pub(crate) fn before(ticks: u64, clock_ms: i64) -> Then {
        Then {
            counter: Some(5_000_000 - ticks),
            realtime_ms: 1_000_000_000_u64.saturating_add_signed(-clock_ms),
        }
    }

    #[test]
    fn what_both_tell_is_told_by_the_counter() {
        for clock in [1801, 4799, 7801] {
            let (ago, disagree) = now().ago(before(4801, clock), Some(before(9000, clock + 4000)), 700);
            assert_eq!(ago, Some(Ago { begun_ms: 4801, stopped_ms: Some(9000), by: By::Counter }));
            assert_eq!(disagree, None);
        }
    }

    #[test]
    fn where_they_disagree_it_is_the_clock_unless_that_cannot_be_right() {
        let both = |counter_ms, clock_ms| Some(Disagree { counter_ms, clock_ms });
        // By both, the command came 4.2 s before the hook.
        let of = |now: Now, clock_ms, least| {
            now.ago(before(4801, clock_ms), Some(before(9000, clock_ms + 4200)), least)
        };
        let clock = Ago { begun_ms: 60_000, stopped_ms: Some(64_200), by: By::Clock };
        assert_eq!(of(now(), 60_000, 0), (Some(clock), both(4801, 60_000)));
        // No chip kept the time meanwhile.
        let alone = Ago { begun_ms: 4801, stopped_ms: Some(9000), by: By::CounterAlone };
        assert_eq!(of(Now { has_chip: false, ..now() }, 60_000, 0).0, Some(alone));
        // The clock was set back, or forward by days; or it contradicts the record.
        for clock_ms in [-50_000, 200_000_000, 500] {
            assert_eq!(of(now(), clock_ms, 3000), (Some(alone), both(4801, clock_ms)));
        }
    }

    #[test]
    fn a_counter_that_did_not_go_on_tells_nothing() {
        let clock = |begun_ms| Some(Ago { begun_ms, stopped_ms: None, by: By::Clock });
        let begun = before(4801, 4000);
        // The counter restarted with this kernel, or a moment before; it was not recorded; it is not steady
        // here; it is too uncertain by now.
        assert_eq!(now().ago(Then { counter: Some(6_000_000), ..begun }, None, 0), (clock(4000), None));
        assert_eq!(now().ago(Then { counter: Some(5_005_000), ..begun }, None, 0), (clock(4000), None));
        assert_eq!(now().ago(Then { counter: None, ..begun }, None, 0), (clock(4000), None));
        assert_eq!(Now { counter: None, ..now() }.ago(begun, None, 0), (clock(4000), None));
        let far = Counter { ticks: 5_000_000 + 1000 * 86_400, frequency: 1000, blur: 20_000 };
        let late = Now { counter: Some(far), uptime_ms: 86_400_000, realtime_ms: 1_086_400_000, ..now() };
        assert_eq!(late.ago(begun, None, 0), (clock(4000), None));
        // A time after the kernel's start counts if that is due to rounding to a second.
        assert_eq!(now().ago(Then { counter: None, ..before(0, -900) }, None, 40), (clock(40), None));
        assert_eq!(now().ago(Then { counter: None, ..before(0, -2000) }, None, 0), (None, None));
    }

    #[test]
    fn a_command_that_came_after_the_hook_is_none() {
        // If counter and clock disagree about the command, its time is unknown.
        for stopped in [before(4000, 4000), before(9000, 60_000), before(60_000, 9000)] {
            let (ago, _) = now().ago(before(4801, 4801), Some(stopped), 0);
            assert_eq!(ago.map(|ago| ago.stopped_ms), Some(None), "{stopped:?}");
        }
    }

    #[test]
    fn a_counter_is_used_where_the_kernel_offers_it() {
        let scratch = Scratch::new();
        assert!(!is_steady(&scratch.root));
        let offers = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
        for (offered, steady) in [("kvm-clock tsc acpi_pm \n", true), ("hpet acpi_pm \n", false)] {
            scratch.put(offers, offered);
            assert_eq!(is_steady(&scratch.root), steady, "{offered}");
        }
    }

    #[test]
    fn a_frequency_is_as_exact_as_the_moments_were_narrow() {
        let sight =
            |ticks, milliseconds, width| Sight { ticks, at: Duration::from_millis(milliseconds), width };
        let Frequency { hertz, blur } = Frequency::between(sight(1000, 20, 30), sight(150_001_000, 70, 70));
        assert_eq!((hertz, blur), (3_000_000_000, 666));
        let stands = Frequency::between(sight(5, 20, 0), sight(5, 20, 0));
        assert_eq!((stands.hertz, stands.blur), (0, 0));
    }
}
