//! The ground that the others stand on: the bed tells a reboot from a jump.

use bed::guest::{Guest, Spec};
use bed::harness::Test;
use bed::machine::End;

pub fn a_reboot_is_seen_as_a_firmware_reset(test: &Test) -> Result<(), String> {
    let mut guest = Guest::boot(&Spec { installed: None, ..Spec::new(test) })?;
    let before = guest.boot.clone();
    guest.send("systemctl reboot")?;
    let after = guest.await_boot()?;
    if after.resets == 1 && after.boot_id != before.boot_id && after.release == before.release {
        return Ok(());
    }
    Err(guest.tell(&format!("{before:?} was followed by {after:?}")))
}

pub fn what_is_written_lasts_over_a_reboot_and_power_off_is_seen(test: &Test) -> Result<(), String> {
    let mut guest = Guest::boot(&Spec { installed: None, ..Spec::new(test) })?;
    guest.ok("mountpoint /boot && ls /boot/vmlinuz-* && echo kept >/boot/witness")?;
    guest.send("systemctl reboot")?;
    guest.await_boot()?;
    let kept = guest.ok("cat /boot/witness")?;
    if kept != "kept\n" {
        return Err(guest.tell(&format!("/boot/witness holds {kept:?}")));
    }
    guest.send("systemctl poweroff")?;
    let end = guest.await_off()?;
    if end == End::PoweredOff { Ok(()) } else { Err(guest.tell(&format!("{end:?}"))) }
}
