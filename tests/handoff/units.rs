//! Tests the template unit, nextkernel's counterpart to the `ArchWiki`'s kexec-load@.service.

use bed::guest::whole::Guest;
use bed::harness::Test;

use super::kexec::{UNSTAGED, boot, hand_over, jump, reboot, wait_until};

/// Returns the quoted name of the unit's instance for the guest's kernel.
fn unit(guest: &mut Guest) -> Result<String, String> {
    Ok(format!("'nextkernel-stage@{}.service'", guest.ok("uname -r")?.trim()))
}

pub fn with_a_separate_boot_the_unit_stages_and_kexec_jumps(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("mountpoint /boot")?;
    let unit = unit(&mut guest)?;
    guest.ok(&format!("systemctl enable --now {unit}"))?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;
    // The enabled unit has staged again at boot.
    wait_until(&mut guest, &format!("systemctl is-active {unit}"))?;
    jump(&mut guest, "systemctl kexec", "kexec")
}

pub fn a_change_in_boot_stages_again_and_a_stop_or_a_removal_unstages(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    let unit = unit(&mut guest)?;
    guest.ok(&format!("systemctl start {unit}"))?;
    let first = guest.ok("sed -n 's/^handoff = //p' /run/nextkernel/plan")?;
    guest.ok("cd /boot && cp initrd.img-$(uname -r) new && mv new initrd.img-$(uname -r)")?;
    let again = format!("[ -e /run/nextkernel/plan ] && ! grep -q {} /run/nextkernel/plan", first.trim());
    wait_until(&mut guest, &again)?;
    guest.ok(&format!("systemctl stop {unit}"))?;
    guest.ok(UNSTAGED)?;

    // Here the unit is stopped before it has finished starting.
    let slow = format!("/run/systemd/system/{unit}.d");
    let sleeps =
        format!("mkdir -p {slow} && printf '[Service]\\nExecStartPost=sleep 60\\n' >{slow}/slow.conf");
    guest.ok(&format!("{sleeps} && systemctl daemon-reload && systemctl start --no-block {unit}"))?;
    wait_until(&mut guest, "[ -e /run/nextkernel/plan ]")?;
    guest.ok(&format!("systemctl stop {unit}; rm -r {slow} && systemctl daemon-reload\n{UNSTAGED}"))?;

    // A removed kernel has no modules either, and must not be started.
    guest.ok(&format!("systemctl start {unit} && [ -e /run/nextkernel/plan ]"))?;
    guest.ok("mv /boot/vmlinuz-$(uname -r) /root/")?;
    wait_until(&mut guest, UNSTAGED)
}

pub fn enabling_another_instance_replaces_the_first(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    let unit = unit(&mut guest)?;
    guest.ok("cp /boot/vmlinuz-$(uname -r) /boot/vmlinuz-other && cp /boot/initrd.img-$(uname -r) /boot/initrd.img-other")?;
    guest.ok(&format!("systemctl enable --now {unit}"))?;
    guest.ok("systemctl enable --now nextkernel-stage@other.service")?;
    guest.ok("grep -x 'entry = other' /run/nextkernel/plan")?;
    wait_until(&mut guest, &format!("! systemctl is-active {unit} && ! systemctl is-enabled {unit}"))?;
    guest.ok("grep -x 'entry = other' /run/nextkernel/plan")?;
    // An instance that is enabled but not started takes over at the next boot.
    guest.ok(&format!("systemctl enable {unit}"))?;
    reboot(&mut guest, "nextkernel unstage; systemctl reboot")?;
    wait_until(&mut guest, &format!("systemctl is-active {unit}"))?;
    guest.ok("grep -x \"entry = $(uname -r)\" /run/nextkernel/plan")?;
    wait_until(&mut guest, "! systemctl is-enabled nextkernel-stage@other.service")
}
