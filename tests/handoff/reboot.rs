//! Tests the base of the other properties, that the test bed can tell a reboot from a jump; and
//! `nextkernel reboot`, which turns a reboot into a jump.

use bed::harness::Test;
use bed::machine::End;

use super::kexec::{TOLD, UNSTAGED, boot, hand_over, refused, untouched};

/// Blocks shutdown until `systemctl stop blocker`.
const BLOCK: &str = "systemd-run -q --unit=blocker \
    systemd-inhibit --what=shutdown --mode=block --who=bed --why='the bed is made' sleep 3600
    for _ in $(seq 60); do systemd-inhibit --list | grep -q 'the bed is made' && exit 0; sleep 1; done; exit 1";

pub fn a_reboot_is_a_firmware_reset_that_keeps_what_was_written_and_poweroff_is_untouched(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("mountpoint /boot && ls /boot/vmlinuz-* && echo kept >/boot/witness")?;
    let before = guest.boot.clone();
    guest.send("systemctl reboot")?;
    let after = guest.await_boot()?;
    if after.resets != 1 || after.boot_id == before.boot_id || after.release != before.release {
        return Err(guest.tell(&format!("{before:?} was followed by {after:?}")));
    }
    let kept = guest.ok("cat /boot/witness")?;
    if kept != "kept\n" {
        return Err(guest.tell(&format!("/boot/witness holds {kept:?}")));
    }
    untouched(&mut guest, "systemctl poweroff", End::PoweredOff)
}

pub fn nextkernel_reboot_stages_and_hands_over_and_an_inhibitor_stops_it(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    let told = guest.ok("nextkernel reboot --dry-run")?;
    for line in [
        "check             nothing is bad",
        ": nothing is staged",
        "inhibitors        nobody blocks a shutdown",
        "then              systemctl kexec\n",
        "at night          the hook starts ",
    ] {
        if !told.contains(line) {
            return Err(guest.tell(&told));
        }
    }
    guest.ok(UNSTAGED)?;
    guest.ok(BLOCK)?;
    refused(&mut guest, "nextkernel reboot", "nextkernel: bed (PID ")?;
    refused(&mut guest, "nextkernel reboot --dry-run", ": the bed is made) blocks a shutdown")?;
    guest.ok(UNSTAGED)?;
    guest.ok("systemctl stop blocker")?;
    // With nothing loaded, only nextkernel checks for inhibitors.
    guest
        .ok("nextkernel stage --loader direct --preload no && [ \"$(cat /sys/kernel/kexec_loaded)\" = 0 ]")?;
    guest.ok(BLOCK)?;
    refused(&mut guest, "nextkernel reboot", ": the bed is made) blocks a shutdown")?;
    guest.ok("systemctl stop blocker; [ -e /run/nextkernel/plan ] && nextkernel reboot --dry-run | grep 'kexec.target$'")?;
    hand_over(&mut guest, "nextkernel reboot", "kexec")?;

    guest.ok("nextkernel stage --no-rehearse --on reboot")?;
    refused(&mut guest, "nextkernel reboot", "is staged for a plain `reboot` alone")?;
    guest.ok("nextkernel unstage && echo 1 >/proc/sys/kernel/kexec_load_disabled")?;
    refused(&mut guest, "nextkernel reboot", "nothing was done: load: nothing can be loaded")?;
    guest.ok(UNSTAGED)?;
    let left = guest.run("nextkernel check")?;
    if left.status != 1 || !left.output.contains("\nbad   load ") {
        return Err(guest.tell(&left.output));
    }

    // With nothing staged, `nextkernel reboot` stages by itself.
    let mut guest = boot(test)?;
    guest.send("nextkernel reboot >/dev/console 2>&1")?;
    guest.await_console("nextkernel: jump to ")?;
    let told = guest.await_console(TOLD)?;
    if told.contains("nextkernel.record=") { Ok(()) } else { Err(guest.tell(&told)) }
}

pub fn nextkernel_reboot_full_goes_through_the_firmware_whatever_is_staged(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --on kexec --on reboot && [ \"$(cat /sys/kernel/kexec_loaded)\" = 1 ]")?;
    let told = guest.ok("nextkernel reboot --full --dry-run && [ ! -e /run/nextkernel/firmware ]")?;
    if !told.contains("then              systemctl reboot, through the firmware\n") {
        return Err(guest.tell(&told));
    }
    guest.send("nextkernel reboot --full")?;
    guest.await_console("this one is meant for the firmware (/run/nextkernel/firmware), left to the init")?;
    guest.await_reset()
}
