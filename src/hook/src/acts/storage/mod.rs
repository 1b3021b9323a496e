//! Closing the old root and the storage that it lies on: mounts, swap, loop devices, mapped devices (dm:
//! LUKS, LVM) and arrays (md). systemd-shutdown does the same on the host, except for the root (src/shutdown:
//! umount.c, swap.c, detach-loopback.c, detach-dm.c, detach-md.c).
//!
//! No order is computed: storage that is still in use fails with EBUSY, and is tried again in the next round.

mod devices;
mod mounted;
mod round;
mod swaps;

use core::ffi::CStr;
use core::time::Duration;

use crate::bounds::failure::Failure;

use crate::acts::storage::round::Round;
use crate::sys::{clock, limits};

/// Unmounts everything at and below `below`, turns swap off, and closes loop devices, mapped devices and
/// arrays, until nothing changes any more or the uptime reaches `until`. Fails with the first thing that is
/// left.
pub fn close(below: &CStr, until: Duration) -> Result<(), Failure> {
    let mut before = usize::MAX;
    let mut pauses = limits::CLOSE_PAUSES.iter();
    let mut round = Round::new(until);
    loop {
        (round.seen, round.left) = (0, None);
        swaps::close(&mut round);
        mounted::close(below, &mut round)?;
        devices::close(&mut round);
        // An act that hung may have hidden its object: an unmount first takes its line out of mountinfo, and
        // then writes back.
        let left = round.first_hung.or(round.left).map_or(Ok(()), |left| Err(Failure::StillOpen(left)));
        if round.seen == 0 {
            return left;
        }
        if clock::uptime() >= until {
            return left;
        }
        if round.seen < before {
            before = round.seen;
            pauses = limits::CLOSE_PAUSES.iter();
        } else if let Some(pause) = pauses.next() {
            clock::sleep(*pause);
        } else {
            return left;
        }
    }
}
