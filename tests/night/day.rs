//! What `nextkernel stage` finds out by day, against a real kernel.

use crate::staged::{handed_over, night, stage};
use bed::harness::Test;

/// Runs lines by day, then hands over what was staged before them.
fn refused(test: &Test, memory: u32, wrong: &str, sentences: &[&str]) -> Result<(), String> {
    let whole = "ls /run/nextkernel | wc -l\n";
    let day = stage("") + whole + wrong + "\n" + whole;
    let mut night = night(test, "kexec", &day)?;
    night.memory = memory;
    let ended = night.run()?;
    for sentence in sentences {
        ended.line(sentence)?;
    }
    // The plan, the lock and the one set: before and after.
    let counts = ended.console.lines().filter(|line| line.trim() == "3").count();
    if counts != 2 {
        return Err(format!("something half-staged remains:\n{}", ended.console));
    }
    handed_over(&ended, "kexec")
}

pub fn what_the_kernel_refuses_is_told_by_day_and_what_was_staged_stays(test: &Test) -> Result<(), String> {
    let wrong = "\
        nextkernel stage --kernel /next.cpio --cmdline x; echo \"status $?\"
        nextkernel stage --kernel /missing --cmdline x; echo \"status $?\"
        nextkernel stage --kernel /kernel --initrd /run --cmdline x
        nextkernel stage --kernel /kernel --cmdline \"$(head -c 1953 /dev/zero | tr '\\0' x)\"
        nextkernel stage --kernel /kernel
        nextkernel stage; echo \"status $?\"
        nextkernel stage --kernel; echo \"usage status $?\"";
    refused(
        test,
        512,
        wrong,
        &[
            "nextkernel: the kernel refuses to load the image: it is no kernel image that this kernel can load",
            "what was staged before is as it was",
            "nextkernel: the kernel /missing cannot be read",
            "nextkernel: the initrd /run is a directory",
            "leave out 1",
            "add --reuse-cmdline, or --cmdline TEXT",
            "nextkernel: no kernel is found",
            "status 1",
            "usage status 2",
        ],
    )
}

pub fn the_longest_command_line_that_fits_by_day_fits_at_night(test: &Test) -> Result<(), String> {
    let padding = "Q".repeat(2016 - 64 - crate::staged::CMDLINE.len() - 1);
    let ended = night(test, "kexec", &stage(&format!("--append {padding}")))?.run()?;
    // The kernel's own last words may stand in the midst of so long a line.
    ended.line(" nextkernel.record=")?;
    let told = ended.console.split("NEXT KERNEL UP: ").nth(1).unwrap_or_default();
    let arrived = told.matches('Q').count();
    if arrived == padding.len() { Ok(()) } else { Err(format!("{arrived} of {} arrived", padding.len())) }
}

pub fn too_little_room_is_told_with_need_room_and_way_out(test: &Test) -> Result<(), String> {
    // What is staged takes some 14 MB; as much again does not fit.
    let wrong = "mount -o remount,size=20M /run\n".to_owned() + &stage("");
    refused(
        test,
        512,
        &wrong,
        &["nextkernel: /run has ", " free, and staging needs ", "remount,size=", "STAGE FAILED"],
    )
}

pub fn too_little_memory_is_told_before_anything_is_killed_for_it(test: &Test) -> Result<(), String> {
    let wrong = "mount -o remount,size=90% /run; truncate -s 100M /big\n\
        nextkernel stage --kernel /kernel --initrd /big --cmdline x";
    refused(test, 320, wrong, &["of memory for a moment, and "])
}

pub fn a_limit_on_loads_that_the_night_would_meet_is_told(test: &Test) -> Result<(), String> {
    let wrong = "echo 2 >/proc/sys/kernel/kexec_load_limit_reboot\n".to_owned() + &stage("--hold late");
    refused(
        test,
        512,
        &wrong,
        &["kexec_load_limit_reboot allows 2 more loads until the next boot, and staging takes 3"],
    )
}

pub fn several_initrds_are_joined_on_four_bytes(test: &Test) -> Result<(), String> {
    // The kernel takes an archive that begins elsewhere for a compressed stream, and panics.
    let day = "nextkernel stage --kernel /kernel --initrd /one --initrd /next.cpio --cmdline 'console=ttyS0 staged=yes'\n";
    let mut night = night(test, "kexec", day)?;
    // Zeros after an archive are skipped; three of them leave the next one off by three.
    let mut one = bed::cpio::Cpio::default();
    one.file("/witness", 0o644, b"x");
    let mut one = one.finish();
    one.extend([0; 3]);
    night.file("/one", 0o644, one);
    let ended = night.run()?;
    ended.line("NEXT KERNEL UP: console=ttyS0 staged=yes").map(drop)
}

pub fn unstaging_unloads_and_leaves_nothing(test: &Test) -> Result<(), String> {
    let day = stage("")
        + "nextkernel status; nextkernel unstage; echo \"left: $(ls -A /run/nextkernel | tr '\\n' ' ')\"; nextkernel unstage\n\
           read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"; nextkernel status --json";
    let ended = night(test, "kexec", &day)?.run()?;
    ended.line("/kernel is no longer staged")?;
    ended.line("left: lock")?;
    ended.line("loaded: 0")?;
    ended.line("\"staged\": null")?;
    crate::staged::rebooted(&ended)
}

pub fn late_unloads_what_was_kept_before(test: &Test) -> Result<(), String> {
    let day = stage("")
        + &stage("--no-rehearse")
        + "read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"";
    let ended = night(test, "kexec", &day)?.run()?;
    ended.line("loaded: 0")?;
    handed_over(&ended, "kexec")
}
