//! Tests the checks of `nextkernel stage` while the system runs, against a real kernel.

use super::staged::{CMDLINE, handed_over, rebooted, shutdown, stage};
use bed::harness::Test;
use bed::initramfs::modules::Modules;
use bed::machine::End;

/// Creates the directory by which the tool recognizes systemd; in these guests systemd-shutdown only comes at
/// the end.
const SYSTEMD: &str = "mkdir -p /run/systemd/system\n";

/// Returns shell lines that write this /etc/nextkernel.conf.
pub fn conf(text: &str) -> String {
    format!("mkdir -p /etc; cat >/etc/nextkernel.conf <<'END'\n{text}\nEND\n")
}

pub fn the_longest_command_line_that_fits_by_day_fits_at_night(test: &Test) -> Result<(), String> {
    let padding = "Q".repeat(2016 - 128 - super::staged::CMDLINE.len() - 1);
    for loader in ["verified", "direct"] {
        let scenario = stage(&format!("--loader {loader} --preload no --append {padding}"));
        let ended = shutdown(test, "kexec", &scenario)?.run()?;
        // The kernel's own last messages may interrupt so long a line.
        ended.line(" nextkernel.record=")?;
        let told = ended.console.split("NEXT KERNEL UP: ").nth(1).unwrap_or_default();
        let arrived = told.matches('Q').count();
        if arrived != padding.len() {
            return Err(format!("{arrived} of {} arrived by the {loader} loader", padding.len()));
        }
    }
    Ok(())
}

pub fn several_initrds_are_joined_on_four_bytes(test: &Test) -> Result<(), String> {
    // The kernel takes an archive at an unaligned offset for a compressed stream, and panics.
    let scenario = "nextkernel stage --kernel /kernel --initrd /one --initrd /next.cpio --cmdline 'console=ttyS0 staged=yes'\n";
    let mut guest = shutdown(test, "kexec", scenario)?;
    // The kernel skips zeros after an archive; three of them leave the next archive misaligned by three.
    let mut one = bed::initramfs::cpio::Cpio::default();
    one.file("/witness", 0o644, b"x");
    let mut one = one.finish();
    one.extend([0; 3]);
    guest.file("/one", 0o644, one);
    guest.real = true;
    let ended = guest.run()?;
    ended.line("NEXT KERNEL UP: console=ttyS0 staged=yes").map(drop)
}

pub fn unstaging_unloads_and_leaves_nothing_and_so_does_late_of_what_was_kept(
    test: &Test,
) -> Result<(), String> {
    let scenario = stage("")
        + "nextkernel status; nextkernel unstage; echo \"left: $(ls -A /run/nextkernel | tr '\\n' ' ')\"; nextkernel unstage\n\
           read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"; nextkernel status --json\n"
        + &stage("")
        + &stage("--no-rehearse")
        + "read -r loaded </sys/kernel/kexec_loaded; echo \"and late: $loaded\"";
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    ended.line("/kernel is no longer staged")?;
    ended.line("left: lock")?;
    ended.line("loaded: 0")?;
    ended.line("\"staged\": null")?;
    ended.line("and late: 0")?;
    handed_over(&ended, "kexec")
}

pub fn what_the_configuration_says_is_staged_shown_and_carried_out(test: &Test) -> Result<(), String> {
    let said =
        "gpu = leave\nmodules = dummy\nunbind = nvme 0000:00:01.0\nguard = 60\nwatchdog = off\npanic = 7";
    let scenario = conf(said) + &stage("--preload no") + &conf("gpu = unload") + "nextkernel status --json";
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    for line in [
        "nextkernel: unbind: no device here is nvme or has that driver",
        "  unloads also    dummy",
        "  unbinds         0000:00:01.0",
        "  guard           resets the machine when the jump takes 60 seconds",
        "  watchdog        is stopped before the jump",
        "\"guard\": 60",
        // This device has no driver.
        "nextkernel: 0000:00:01.0",
    ] {
        ended.line(line)?;
    }
    ended.line(&format!("NEXT KERNEL UP: {CMDLINE} panic=7 nextkernel.record="))?;
    ended.expect(End::PoweredOff)
}

pub fn check_tells_what_is_done_with_gpu_and_watchdog_and_what_forbids_it(test: &Test) -> Result<(), String> {
    let scenario = SYSTEMD.to_owned()
        + &conf("watchdog = 60")
        + "modprobe bochs; modprobe i6300esb; nextkernel check; echo \"exit status $? of a check\"
           echo 1 >/proc/sys/kernel/modules_disabled; nextkernel check; echo \"exit status $? of another\"\n"
        + &conf("gpu-failed = firmware-reboot")
        + "nextkernel check; echo \"exit status $? of the last\"";
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.modules(&Modules::of(&test.image.files()?, &["bochs", "i6300esb"])?);
    guest.qemu = ["-vga", "std", "-device", "i6300esb"].map(str::to_owned).into();
    let ended = guest.run()?;
    for line in [
        "ok    gpu bochs          is unloaded before the jump; if that fails, the jump is made all the same (on 0000:",
        "warn  watchdog0          i6300ESB timer, not armed, 30 s: it is stopped at every restart",
        "ok    guard              a jump that hangs in the kernel's device shutdown is reset after 300 seconds",
        "exit status 0 of a check",
        "warn  modules_disabled   bochs cannot be unloaded, for kernel.modules_disabled is 1 until the next boot: the jump",
        "exit status 0 of another",
        "bad   modules_disabled   bochs cannot be unloaded, for kernel.modules_disabled is 1 until the next boot: the machine",
        "nextkernel: not as it should be: modules_disabled",
        "exit status 1 of the last",
    ] {
        ended.line(line)?;
    }
    rebooted(&ended)
}

pub fn check_asks_the_kernel_without_spending_a_load(test: &Test) -> Result<(), String> {
    let scenario = SYSTEMD.to_owned()
        + "echo 9 >/proc/sys/kernel/kexec_load_limit_reboot\n"
        + &stage("")
        + "read -r before </proc/sys/kernel/kexec_load_limit_reboot; nextkernel check; echo \"exit status $?\"
           read -r after </proc/sys/kernel/kexec_load_limit_reboot; echo \"loads left: $before and then $after\"";
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    for line in [
        "ok    hook               /usr/lib/systemd/system-shutdown/nextkernel is where systemd-shutdown runs it",
        "ok    calls              kexec_file_load(2) is there",
        "info  load               kernel.kexec_load_limit_reboot allows 8 more until the next boot",
        "ok    memory             kernel and initrd take ",
        "info  digest             some ",
        "exit status 0",
        "loads left: 8 and then 8",
    ] {
        ended.line(line)?;
    }
    handed_over(&ended, "kexec")
}

pub fn what_is_left_out_of_the_command_line_does_not_arrive_and_what_is_the_inits_stays_behind_the_record(
    test: &Test,
) -> Result<(), String> {
    let scenario = "nextkernel stage --kernel /kernel --initrd /next.cpio \
        --cmdline 'console=ttyS0 quiet a-b=\"1 2\" a_b=3 left=1' --remove quiet --remove a_b --remove gone --append 'staged=yes -- single'\n";
    let ended = shutdown(test, "kexec", scenario)?.run()?;
    ended.line("nextkernel: --remove: 'gone' is not on the command line")?;
    let line = ended.line("NEXT KERNEL UP: console=ttyS0 left=1 staged=yes nextkernel.record=")?;
    if !line.contains(":preloaded -- ") || !line.trim_end().ends_with(" -- single") {
        return Err(line.to_owned());
    }
    ended.expect(End::PoweredOff)
}
