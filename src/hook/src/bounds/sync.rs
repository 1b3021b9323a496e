//! Writing back what is dirty, bounded.

use core::time::Duration;

use rustix::fs::CWD;

use crate::bounds::child;
use crate::bounds::failure::{Failure, SYNC};
use crate::sys::{clock, files, limits};

/// Syncs, and waits for as long as less and less is dirty, at most until the machine has been up so long, and for a moment
/// where it has been already. What is still being written then is told from what hangs.
///
/// - sync(2)
pub fn sync(patience: Duration, until: Duration) -> Result<(), Failure> {
    let syncing = child::begin(SYNC, || {
        rustix::fs::sync();
        Ok(())
    })?;
    let (mut left, mut shrinks) = (u64::MAX, true);
    // A little is written in a moment, and nobody has to look at how much it is.
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

/// What is still to be written, in kB, as systemd counts it (`sync_making_progress`,
/// src/shutdown/shutdown.c). Without /proc there is none, and so no progress.
fn dirty() -> u64 {
    let mut sum = 0_u64;
    let _ = files::find_line(CWD, c"/proc/meminfo", |line| {
        sum = sum.saturating_add(amount(line).unwrap_or(0));
        None::<()>
    });
    sum
}

/// What one line of /proc/meminfo adds to it.
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
