//! Writes back dirty data, within a deadline.

use core::time::Duration;

use rustix::fs::CWD;

use crate::bounds::child;
use crate::bounds::failure::{Failure, SYNC};
use crate::sys::{clock, files, limits};

/// Syncs, and keeps waiting while the amount of dirty data shrinks from one `patience` to the next, until the
/// uptime reaches `until`. Always waits at least for a moment. If the amount still shrinks at the end, the
/// failure says that, and not that the sync hangs.
///
/// - sync(2)
pub fn sync(patience: Duration, until: Duration) -> Result<(), Failure> {
    let syncing = child::begin(SYNC, || {
        rustix::fs::sync();
        Ok(())
    })?;
    let (mut left, mut shrinks) = (u64::MAX, true);
    // A little data is written in a moment, without a look at the amount.
    let mut moment = Some(limits::SYNC_UNSEEN);
    let while_it_shrinks = || {
        moment.take().or_else(|| {
            let now = dirty();
            shrinks = now < core::mem::replace(&mut left, now);
            let rest = until.saturating_sub(clock::uptime());
            (shrinks && !rest.is_zero()).then(|| patience.min(rest))
        })
    };
    match syncing.wait(while_it_shrinks) {
        Err(Failure::Hangs { act: SYNC, seconds, .. }) if shrinks => Err(Failure::StillWriting { seconds }),
        synced => synced,
    }
}

/// Returns the amount of data still to be written, in kB, as systemd counts it (`sync_making_progress`,
/// src/shutdown/shutdown.c). Without /proc it is 0, and so there is no progress.
fn dirty() -> u64 {
    let mut sum = 0_u64;
    let _ = files::find_line(CWD, c"/proc/meminfo", |line| {
        sum = sum.saturating_add(amount(line).unwrap_or(0));
        None::<()>
    });
    sum
}

/// Returns the amount that one line of /proc/meminfo adds to that, if it counts.
#[must_use]
pub fn amount(line: &[u8]) -> Option<u64> {
    let line = core::str::from_utf8(line).ok()?;
    let (name, value) = line.split_once(':')?;
    let counts = matches!(name, "Dirty" | "Writeback" | "NFS_Unstable");
    value.trim_ascii().strip_suffix(" kB").filter(|_| counts)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_to_be_written_counts() {
        assert_eq!(amount(b"Dirty:              1234 kB"), Some(1234));
        assert_eq!(amount(b"Writeback:            56 kB"), Some(56));
        for other in
            ["WritebackTmp:  7 kB", "MemTotal:  8 kB", "Dirty:", "Dirty: x kB", "", "HugePages_Total: 0"]
        {
            assert_eq!(amount(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_sync_ends() {
        assert!(sync(limits::SYSTEMD.sync, Duration::MAX).is_ok());
    }
}
