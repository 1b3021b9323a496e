//! Closing what the old root lies on, the root with it: mounts, swap, loop devices, mapped devices (dm: LUKS,
//! LVM) and arrays (md). systemd-shutdown does the same on the host, but for the root (src/shutdown: umount.c,
//! swap.c, detach-loopback.c, detach-dm.c, detach-md.c).
//!
//! No order is computed: what is still used says EBUSY, and its turn comes in the next round.

mod devices;
mod mounted;
mod round;
mod swaps;

use core::ffi::CStr;
use core::time::Duration;

use crate::bounds::failure::Failure;

use crate::acts::storage::round::Round;
use crate::sys::{clock, limits};

/// Unmounts everything at and below `below`, turns swap off, detaches loop devices, mapped devices and arrays,
/// until nothing changes any more or the machine has been up for `until`. Fails with the first thing that is left.
pub fn close(below: &CStr, until: Duration) -> Result<(), Failure> {
    let mut before = usize::MAX;
    let mut pauses = limits::CLOSE_PAUSES.iter();
    let mut round = Round::new(until);
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
