//! The same night on arm64.

use bed::arm64::{Kernel, built, run};
use bed::harness::Test;
use bed::initramfs::Ended;
use bed::machine::End;

/// What the next kernel is told.
const CMDLINE: &str = "console=ttyAMA0 staged=yes";

fn stage(options: &str) -> String {
    format!(
        "nextkernel stage --kernel /kernel.gz --initrd /next.cpio --cmdline '{CMDLINE}' {options}\necho \"status $?\"\n"
    )
}

fn says(ended: &Ended, lines: &[&str]) -> Result<(), String> {
    lines.iter().try_for_each(|line| ended.line(line).map(drop))
}

pub fn on_arm64_the_hook_as_pid_1_hands_over(test: &Test) -> Result<(), String> {
    let Some(built) = built() else { return Ok(()) };
    // One byte more than the next kernel keeps.
    let long = "Q".repeat(2048 - 64 - CMDLINE.len() - 1);
    let wrong = "head -c 514 /dev/zero >/bzImage; printf HdrS >>/bzImage; head -c 1024 /dev/zero >>/bzImage
        nextkernel stage --kernel /bzImage --cmdline x\n";
    let day = "nextkernel check\n".to_owned()
        + wrong
        + &stage(&format!("--append {long}"))
        + &stage("--hold late")
        + "nextkernel status; nextkernel-hook --dry-run kexec; exec nextkernel-hook kexec";
    let ended = run(test, &built, &Kernel::Own, &day)?;
    says(
        &ended,
        &[
            "ok    calls              kexec_file_load(2) is there",
            "it is a kernel for x86, and this machine is aarch64; name one for this machine (EINVAL)",
            "the command line has 1984 bytes, and this loader takes 1983 beside the handoff's record; leave out 1",
            "status 1",
            "status 0",
        ],
    )?;
    let line = ended.line("NEXT KERNEL UP: ")?;
    if !line.contains(&format!("UP: {CMDLINE} nextkernel.record=")) || !line.contains(":kexec:") {
        return Err(format!("the next kernel says {line:?}"));
    }
    ended.expect(End::PoweredOff)
}

pub fn debians_arm64_kernel_has_no_loader_and_by_day_staging_says_so(test: &Test) -> Result<(), String> {
    let Some(built) = built() else { return Ok(()) };
    let day = "nextkernel check\n".to_owned() + &stage("") + &stage("--no-rehearse") + "poweroff -f";
    let ended = run(test, &built, &Kernel::Debian(test.image), &day)?;
    says(
        &ended,
        &[
            "bad   calls              this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE), and no other",
            "nextkernel: this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE), and no other loader is there",
            "status 1",
        ],
    )?;
    if ended.console.contains("status 0") {
        return Err(format!("something was staged:\n{}", ended.console));
    }
    ended.expect(End::PoweredOff)
}
