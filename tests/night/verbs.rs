//! Each verb leads to where the plan or, without one, the init says.

use super::staged::{HOOK, handed_over, night, rebooted, stage};
use bed::harness::Test;
use bed::machine::End;
use bed::vm_folder;

pub fn kexec_jumps_with_the_image_kept(test: &Test) -> Result<(), String> {
    let ended = night(test, "kexec", &stage(""))?.run()?;
    handed_over(&ended, "kexec")
}

pub fn kexec_jumps_with_nothing_loaded_by_day(test: &Test) -> Result<(), String> {
    let day = stage("--hold late") + "read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"";
    let ended = night(test, "kexec", &day)?.run()?;
    ended.line("loaded: 0")?;
    handed_over(&ended, "kexec")
}

pub fn reboot_jumps_when_the_plan_covers_it(test: &Test) -> Result<(), String> {
    let ended = night(test, "reboot", &stage("--hold late --on reboot"))?.run()?;
    handed_over(&ended, "reboot")
}

pub fn reboot_reboots_when_the_plan_does_not_cover_it(test: &Test) -> Result<(), String> {
    let ended = night(test, "reboot", &stage("--hold late --on kexec"))?.run()?;
    ended.line("nextkernel: reboot: staged for kexec alone, left to the init")?;
    rebooted(&ended)
}

pub fn poweroff_and_halt_are_untouched(test: &Test) -> Result<(), String> {
    for (verb, end) in [("poweroff", End::PoweredOff), ("halt", End::Halted)] {
        let ended = night(test, verb, &stage("--on kexec --on reboot"))?.run()?;
        ended.expect(end)?;
        ended.line(&format!("nextkernel: {verb}: no next kernel is asked for, left to the init"))?;
        if ended.console.contains("NEXT KERNEL UP") {
            return Err(format!("a next kernel came up at {verb}"));
        }
    }
    Ok(())
}

pub fn with_nothing_staged_all_is_left_to_the_init(test: &Test) -> Result<(), String> {
    let ended = night(test, "kexec", "")?.run()?;
    ended.line("nextkernel: kexec: nothing is staged, left to the init")?;
    rebooted(&ended)
}

pub fn an_image_that_somebody_else_loaded_is_left_to_systemd(test: &Test) -> Result<(), String> {
    let ended = night(test, "kexec", &(stage("") + "rm -r /run/nextkernel"))?.run()?;
    ended.line("nextkernel: kexec: nothing is staged, left to the init")?;
    super::staged::jumped_to_the_kept_image(&ended)
}

pub fn what_was_staged_last_replaces_what_is_loaded(test: &Test) -> Result<(), String> {
    // Somebody else loads another image after the plan was made: the plan decides.
    let other = "mv /run/nextkernel /run/aside\n".to_owned()
        + "nextkernel stage --kernel /kernel --initrd /next.cpio --cmdline 'console=ttyS0 other=yes'\n"
        + "rm -r /run/nextkernel; mv /run/aside /run/nextkernel";
    let ended = night(test, "kexec", &(stage("") + &other))?.run()?;
    handed_over(&ended, "kexec")
}

pub fn a_reboot_that_is_meant_for_the_firmware_is_left_to_it(test: &Test) -> Result<(), String> {
    // What `systemctl reboot --reboot-argument=` writes.
    let asks = format!("mkdir /run/systemd && echo x >/run/systemd/reboot-param\n{HOOK} --dry-run reboot");
    let ended = night(test, "reboot", &(stage("--hold late --on reboot") + &asks))?.run()?;
    ended.line("at reboot: this one is meant for the firmware, left to the init")?;
    ended.line("nextkernel: reboot: this one is meant for the firmware, left to the init")?;
    rebooted(&ended)
}

pub fn a_line_that_is_reused_does_not_grow(test: &Test) -> Result<(), String> {
    // By day in a kernel that was jumped to as a kept image: its record is a placeholder.
    let placeholder = format!("nextkernel.record={}", "x".repeat(40));
    let day = "nextkernel stage --kernel /kernel --initrd /next.cpio --reuse-cmdline --append 'staged=yes'";
    let mut night = night(test, "kexec", day)?;
    night.append = format!("a=1 {placeholder}");
    let ended = night.run()?;
    ended.line("NEXT KERNEL UP: console=ttyS0 a=1 staged=yes nextkernel.record=")?;
    let told = ended.console.split("NEXT KERNEL UP").nth(1).unwrap_or_default();
    if told.contains("xxxx") { Err(format!("it grew: {told}")) } else { Ok(()) }
}

pub fn where_the_plan_says_so_the_jump_is_systemds(test: &Test) -> Result<(), String> {
    let day = "mkdir -p /etc; echo 'jump = init' >/etc/nextkernel.conf\n".to_owned() + &stage("");
    let ended = night(test, "kexec", &day)?.run()?;
    // The hook's load, with its record, and systemd's jump.
    handed_over(&ended, "kexec")?;
    ended.line("nextkernel: leave the jump to the init, as the plan says")?;
    if ended.console.contains("nextkernel: jump to") { Err("the hook jumped itself".into()) } else { Ok(()) }
}

pub fn where_systemd_tells_its_hooks_no_verb_its_command_line_does(test: &Test) -> Result<(), String> {
    // As systemd 262 does: it wants to tell the verb, and has overwritten it.
    for (verb, line) in [
        ("kexec", "nextkernel: jump to /kernel"),
        ("poweroff", "nextkernel: poweroff: no next kernel is asked for, left to the init"),
    ] {
        let mut night = night(test, verb, &stage("--hold late"))?;
        let hook = vm_folder().join("installed").join(HOOK.trim_start_matches('/'));
        night.host_file("/usr/bin/nextkernel-hook", 0o755, &hook)?;
        night.file(HOOK, 0o755, "#!/bin/sh\nexec /usr/bin/nextkernel-hook ''\n");
        let ended = night.run()?;
        ended.expect(End::PoweredOff)?;
        ended.line(line)?;
        if verb == "kexec" {
            handed_over(&ended, verb)?;
        }
    }
    Ok(())
}
