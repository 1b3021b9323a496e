//! Reading the clocks, and waiting.

use core::time::Duration;

use linux_raw_sys::general::{CLOCK_BOOTTIME, CLOCK_REALTIME};
use rustix::event::{Timespec, poll};

use crate::sys::calls;

/// Returns how long the machine has been up, sleep included.
#[must_use]
pub fn uptime() -> Duration {
    calls::clock_gettime(CLOCK_BOOTTIME)
}

/// Returns the time since the epoch.
#[must_use]
pub fn time() -> Duration {
    calls::clock_gettime(CLOCK_REALTIME)
}

/// Waits for this long.
pub fn sleep(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

/// Returns a time in the form that `poll(2)` takes.
#[must_use]
pub fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
