//! What the hook does itself, beside what the kernel does for it.

use super::staged::{night, stage};
use bed::harness::Test;
use bed::holder;
use bed::machine::{End, with_last_lines};
use std::time::Duration;

/// Instructions in user mode and system calls, of the hook and its children, up to the jump: less than this
/// (docs/performance.md).
const INSTRUCTIONS_MAX: u64 = 130_000;
const CALLS_MAX: u64 = 160;

/// The hook lies elsewhere, and what systemd-shutdown runs in its place steps through it.
const STEPPED: &str = "
mv /usr/lib/systemd/system-shutdown/nextkernel /usr/bin/nextkernel-hook
printf '#!/bin/sh\\nexec steps /usr/bin/nextkernel-hook \"$@\"\\n' >/usr/lib/systemd/system-shutdown/nextkernel
chmod 755 /usr/lib/systemd/system-shutdown/nextkernel
";

pub fn without_a_gpu_the_hook_does_little_itself(test: &Test) -> Result<(), String> {
    // With a load by the hook, which is more.
    let mut night = night(test, "kexec", &(stage("--preload no") + STEPPED))?;
    night.file("/usr/bin/steps", 0o755, holder::steps()?);
    // A trap for each instruction takes its time, which must not be what the init bounds.
    (night.counting, night.limit) = (true, Duration::from_secs(400));
    let ended = night.run()?;
    ended.expect(End::PoweredOff)?;
    let line = ended.line("steps ")?;
    let mut numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
    let (Some(Ok(instructions)), Some(Ok(calls))) = (numbers.next(), numbers.next()) else {
        return Err(with_last_lines(&format!("{line:?} is not what steps prints"), &ended.console));
    };
    if instructions >= INSTRUCTIONS_MAX || calls >= CALLS_MAX {
        return Err(format!("{instructions} instructions, {calls} system calls ({line})"));
    }
    Ok(())
}
