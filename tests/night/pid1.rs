//! Tests the hook as PID 1: it never exits, whatever it finds.

use super::staged::{HOOK, handed_over, in_order, rebooted, shutdown, stage};
use bed::harness::Test;
use bed::machine::End;

pub fn as_pid_1_it_hands_over(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "", &(stage("--preload no") + &format!("exec {HOOK} kexec")))?.run()?;
    handed_over(&ended, "kexec")
}

pub fn as_pid_1_it_carries_out_what_the_plan_does_not_cover(test: &Test) -> Result<(), String> {
    for (word, end) in
        [("poweroff", End::PoweredOff), ("reboot", End::Reset), ("", End::Reset), ("no-verb", End::Reset)]
    {
        let ended = shutdown(test, "", &(stage("--preload no") + &format!("exec {HOOK} {word}")))?.run()?;
        ended.expect(end).map_err(|error| format!("at {word:?}: {error}"))?;
    }
    Ok(())
}

pub fn as_pid_1_with_nothing_at_all_it_restarts_the_machine(test: &Test) -> Result<(), String> {
    let scenario = format!("umount /proc /sys /run; exec {HOOK} kexec <&- >&- 2>&-");
    rebooted(&shutdown(test, "", &scenario)?.run()?)
}

/// The commands of docs/boards.md, verbatim except for the file names.
const BOARD: &str = "
mkdir board
nextkernel embed board/nextkernel --kernel /kernel --initrd /next.cpio --cmdline 'console=ttyS0 embedded=yes' || echo EMBEDDING FAILED
cp /usr/lib/systemd/system-shutdown/nextkernel board/init
(cd board && find . | cpio -o -H newc) >board.cpio
";

pub fn an_initramfs_of_one_program_starts_the_kernel_that_it_holds(test: &Test) -> Result<(), String> {
    // The first kernel here plays the board's firmware: it starts the board's own kernel and initramfs.
    let firmware = "nextkernel stage --kernel /kernel --initrd board.cpio --cmdline 'console=ttyS0 board=yes' --preload no\n";
    let mut guest = shutdown(test, "", &format!("{BOARD}{firmware}exec {HOOK} kexec"))?;
    (guest.memory, guest.real) = (768, true);
    let ended = guest.run()?;
    ended.expect(End::PoweredOff)?;
    in_order(
        &ended,
        &[
            "nextkernel: jump to /kernel",
            "board=yes",
            "nextkernel: load /kernel: kernel of ",
            "nextkernel: jump to /kernel",
            "NEXT KERNEL UP: console=ttyS0 embedded=yes nextkernel.record=",
        ],
    )
}

pub fn as_pid_1_with_an_empty_plan_or_a_full_run_it_restarts_the_machine(test: &Test) -> Result<(), String> {
    let full = "dd if=/dev/zero of=/run/nextkernel/full 2>/dev/null; : >/run/nextkernel/plan";
    for (directory, spoiled) in [
        ("/run/nextkernel", "mkdir -p /run/nextkernel; : >/run/nextkernel/plan".to_owned()),
        ("/run/nextkernel", stage("--preload no") + full),
        ("/nextkernel", "mkdir -p /nextkernel; echo nextkernel-plan 2 >/nextkernel/plan".to_owned()),
    ] {
        let ended = shutdown(test, "", &(spoiled + &format!("\nexec {HOOK} kexec <&- >&- 2>&-")))?.run()?;
        ended.line(&format!("nextkernel: no handoff: {directory}/plan: line "))?;
        rebooted(&ended)?;
    }
    Ok(())
}
