//! The hook as PID 1: it never ends, whatever it finds.

use crate::staged::{HOOK, handed_over, night, rebooted, stage};
use bed::harness::Test;
use bed::machine::End;

pub fn as_pid_1_it_hands_over(test: &Test) -> Result<(), String> {
    let ended = night(test, "", &(stage("--hold late") + &format!("exec {HOOK} kexec")))?.run()?;
    handed_over(&ended, "kexec")
}

pub fn as_pid_1_it_carries_out_what_the_plan_does_not_cover(test: &Test) -> Result<(), String> {
    for (word, end) in
        [("poweroff", End::PoweredOff), ("reboot", End::Reset), ("", End::Reset), ("no-verb", End::Reset)]
    {
        let ended = night(test, "", &(stage("--hold late") + &format!("exec {HOOK} {word}")))?.run()?;
        ended.expect(end).map_err(|error| format!("at {word:?}: {error}"))?;
    }
    Ok(())
}

pub fn as_pid_1_with_nothing_at_all_it_restarts_the_machine(test: &Test) -> Result<(), String> {
    let day = format!("umount /proc /sys /run; exec {HOOK} kexec <&- >&- 2>&-");
    rebooted(&night(test, "", &day)?.run()?)
}
