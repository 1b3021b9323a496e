//! Tests handoffs on arm64 and riscv64.

use bed::guest::boards::{Kernel, run};
use bed::guest::shutdown::Ended;
use bed::harness::Test;
use bed::image::Image::Debian13;
use bed::machine::End;

/// The next kernel's command line.
const CMDLINE: &str = "console=ttyAMA0 staged=yes";

fn stage(options: &str) -> String {
    format!(
        "nextkernel stage --kernel /kernel --initrd /next.cpio --cmdline '{CMDLINE}' {options}\necho \"status $?\"\n"
    )
}

fn says(ended: &Ended, lines: &[&str]) -> Result<(), String> {
    lines.iter().try_for_each(|line| ended.line(line).map(drop))
}

/// Proves that the next kernel came, with its command line and a record with exactly these marks, in order.
fn handed_over(ended: &Ended, cmdline: &str, marks: &str) -> Result<(), String> {
    let line = ended.line("NEXT KERNEL UP: ")?.trim_end();
    let told = line.split_once("UP: ").and_then(|(_, told)| told.strip_prefix(cmdline));
    let record = told.and_then(|told| told.strip_prefix(" nextkernel.record=")).unwrap_or_default();
    let fields: Vec<_> = record.split(':').collect();
    let letters: String = fields.get(4).unwrap_or(&"").chars().filter(char::is_ascii_alphabetic).collect();
    // A running counter is not 0.
    if fields.get(1) != Some(&"kexec")
        || letters != marks
        || fields.get(3).is_none_or(|counter| *counter == "0")
    {
        return Err(format!("the next kernel says {line:?}"));
    }
    ended.expect(End::Reset)
}

/// Proves that `/chosen` was written anew for the next kernel: nothing is from the boot before, and its seeds
/// were used. The kernel overwrites the seed for its addresses, and removes the seed for its random numbers;
/// that seed was enough to initialize the generator at the very start (`get_kaslr_seed`,
/// `arch/arm64/kernel/pi/kaslr_early.c`; `early_init_dt_scan_chosen`, drivers/of/fdt.c).
fn was_told_anew(ended: &Ended, is_arm: bool) -> Result<(), String> {
    says(
        ended,
        &["chosen: linux,booted-from-kexec ", "chosen: stdout-path ", "0.000000] random: crng init done"],
    )?;
    if is_arm {
        says(ended, &["KASLR enabled", "chosen: kaslr-seed 0000000000000000"])?;
    }
    if ended.console.contains("chosen: rng-seed") {
        return Err(format!("the seed was not used:\n{}", ended.console));
    }
    Ok(())
}

/// Proves that the two kernels are at different virtual addresses; each prints its own.
fn lie_elsewhere(ended: &Ended) -> Result<(), String> {
    let places: Vec<_> =
        ended.console.lines().filter_map(|line| line.trim_end().strip_suffix(" T _stext")).collect();
    match *places.as_slice() {
        [first, second] if first != second => Ok(()),
        _ => Err(format!("two different places were expected: {places:?}")),
    }
}

pub fn on_arm64_the_hook_as_pid_1_hands_over_by_the_verified_loader(test: &Test) -> Result<(), String> {
    // The line is one byte longer than the next kernel keeps.
    let long = "Q".repeat(2048 - 128 - CMDLINE.len() - 1);
    let wrong = "head -c 514 /dev/zero >/bzImage; printf HdrS >>/bzImage; head -c 1024 /dev/zero >>/bzImage
        nextkernel stage --kernel /bzImage --cmdline x\n";
    let scenario = "nextkernel check\n".to_owned()
        + wrong
        + &stage(&format!("--append {long}"))
        + &stage("--loader direct")
        + &stage("--preload no")
        + "nextkernel status; nextkernel-hook --dry-run kexec; exec nextkernel-hook kexec";
    let Some(ended) = run(test, Kernel::Own, 1, &scenario)? else { return Ok(()) };
    says(
        &ended,
        &[
            "ok    calls              kexec_file_load(2) is there",
            "it is a kernel for x86, and this machine is aarch64; name one for this machine (EINVAL)",
            "the command line has 1920 bytes, and this loader takes 1919 beside the handoff's record; leave out 1",
            "--loader direct is refused: this kernel was built without kexec_load (CONFIG_KEXEC); leave it out",
            "status 1",
            "status 0",
        ],
    )?;
    handed_over(&ended, CMDLINE, "sl")
}

pub fn debians_arm64_kernel_hands_over_by_the_direct_loader(test: &Test) -> Result<(), String> {
    let wrong = "head -c 56 /dev/zero >/riscv; printf 'RSC\\005' >>/riscv; head -c 1024 /dev/zero >>/riscv
        nextkernel stage --kernel /riscv --cmdline x\n";
    let scenario = "nextkernel check\n".to_owned()
        + wrong
        + &stage("--loader verified")
        + &stage("--preload no")
        + "grep ' _stext$' /proc/kallsyms
        nextkernel-hook --dry-run kexec; exec nextkernel-hook kexec";
    let Some(ended) = run(test, Kernel::Arm64(test.image), 1, &scenario)? else { return Ok(()) };
    says(
        &ended,
        &[
            "ok    calls              kexec_load(2) is there, and loads the next kernel; kexec_file_load(2) is not",
            "it is a kernel for riscv64, and this machine is aarch64; name one for this machine",
            "this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE)",
            "status 1",
            "status 0",
            "  loader          direct: for this kernel has no kexec_file_load",
        ],
    )?;
    was_told_anew(&ended, true)?;
    lie_elsewhere(&ended)?;
    handed_over(&ended, CMDLINE, "stol")
}

pub fn debians_riscv64_kernel_hands_over_by_the_direct_loader(test: &Test) -> Result<(), String> {
    let scenario =
        stage("--preload no --append console=ttyS0") + "nextkernel status; exec nextkernel-hook kexec";
    let Some(ended) = run(test, Kernel::Riscv64, 2, &scenario)? else { return Ok(()) };
    says(
        &ended,
        &["status 0", "  loader          direct: for this kernel has no kexec_file_load", "processors: 2"],
    )?;
    was_told_anew(&ended, false)?;
    handed_over(&ended, &format!("{CMDLINE} console=ttyS0"), "stol")
}

pub fn processors_are_taken_offline_before_the_kernel_would(test: &Test) -> Result<(), String> {
    let scenario = "echo 'offline-cpus = yes' >/etc/nextkernel.conf\n".to_owned()
        + &stage("--preload no")
        + "nextkernel-hook --dry-run kexec; exec nextkernel-hook kexec";
    let Some(ended) = run(test, Kernel::Arm64(Debian13), 4, &scenario)? else { return Ok(()) };
    says(&ended, &["status 0", "  take every processor but the first offline", "processors: 4"])?;
    let at = |text: &str| {
        ended
            .console
            .find(text)
            .ok_or_else(|| format!("the console does not say {text:?}:\n{}", ended.console))
    };
    // The jump waits for the processor that is being taken offline; the kernel's jump takes those not begun by
    // then.
    if at("psci: CPU")? > at("kexec_core: Starting new kernel")? {
        return Err(format!("all were left to the kernel:\n{}", ended.console));
    }
    handed_over(&ended, CMDLINE, "stol")
}
