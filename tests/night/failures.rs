//! Tests that whatever is wrong with the staged image set, the machine ends in a running kernel, and the reason is
//! printed.

use super::staged::{AGAIN, handed_over, rebooted, shutdown, stage, systemd_jumped_itself};
use bed::harness::Test;

/// Spoils the handoff twice, where the hook loads: with an image loaded, systemd jumps to it; with nothing
/// loaded, the machine restarts through firmware. Both times the reason is on the console.
fn spoiled(test: &Test, spoil: &str, reason: &str) -> Result<(), String> {
    spoiled_with_the_image_preloaded(test, spoil, reason)?;
    spoiled_with_nothing_preloaded(test, spoil, reason)
}

fn spoiled_with_the_image_preloaded(test: &Test, spoil: &str, reason: &str) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("") + AGAIN + spoil))?.run()?;
    ended.line(reason)?;
    ended.line("nextkernel: kexec is left to the init: it jumps to the image that stays loaded")?;
    systemd_jumped_itself(&ended)
}

/// Tests only the case with nothing loaded, which is quicker.
fn spoiled_with_nothing_preloaded(test: &Test, spoil: &str, reason: &str) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("--preload no") + spoil))?.run()?;
    ended.line(reason)?;
    ended.line("nextkernel: kexec is left to the init: it restarts the machine through firmware")?;
    rebooted(&ended)
}

pub fn a_plan_of_another_version_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "sed -i '1s/2$/3/' /run/nextkernel/plan";
    spoiled(test, spoil, "no handoff: /run/nextkernel/plan: line 1: a plan of version 3")
}

pub fn a_plan_cut_short_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "sed -i '$d' /run/nextkernel/plan";
    spoiled_with_nothing_preloaded(test, spoil, "the plan was cut short")
}

pub fn a_truncated_image_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "truncate -s 100000 /run/nextkernel/*/initrd";
    spoiled(test, spoil, "no handoff: the initrd in /run/nextkernel is not the one that was staged: its size")
}

pub fn an_image_replaced_after_staging_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "cd /run/nextkernel/*/ && cp kernel other && mv other kernel && cd /";
    spoiled_with_the_image_preloaded(
        test,
        spoil,
        "no handoff: the kernel in /run/nextkernel is not the one that was staged: its inode",
    )
}

pub fn an_image_written_to_after_staging_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "echo x | dd of=$(echo /run/nextkernel/*/kernel) conv=notrunc 2>/dev/null";
    spoiled_with_nothing_preloaded(
        test,
        spoil,
        "no handoff: the kernel in /run/nextkernel is not the one that was staged: its change time",
    )
}

pub fn an_image_that_is_gone_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "rm /run/nextkernel/*/initrd";
    spoiled_with_nothing_preloaded(test, spoil, "no handoff: open the staged initrd: ENOENT")
}

pub fn kexec_load_disabled_is_told_and_survived(test: &Test) -> Result<(), String> {
    let spoil = "echo 1 >/proc/sys/kernel/kexec_load_disabled";
    spoiled(test, spoil, "no handoff: kexec_file_load: EPERM: forbidden by kexec_load_disabled")?;
    // Starting a preloaded image needs no load.
    handed_over(&shutdown(test, "kexec", &(stage("") + spoil))?.run()?, "kexec")
}

pub fn a_kernel_that_is_not_one_is_told_and_survived(test: &Test) -> Result<(), String> {
    let scenario = "nextkernel stage --kernel /next.cpio --initrd /next.cpio --cmdline x --no-rehearse\n";
    let ended = shutdown(test, "kexec", scenario)?.run()?;
    ended.line("no handoff: kexec_file_load: ENOEXEC: not a kernel image")?;
    rebooted(&ended)
}
