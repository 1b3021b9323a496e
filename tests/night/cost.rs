//! Tests the cost of the hook's own work, apart from the kernel's work for it.

use super::staged::{shutdown, stage};
use bed::harness::Test;
use bed::host::programs;
use bed::machine::{End, with_last_lines};
use std::time::Duration;

/// Upper bounds for user-mode instructions and system calls of the hook and its children up to the jump
/// (docs/performance.md).
const INSTRUCTIONS_MAX: u64 = 130_000;
const CALLS_MAX: u64 = 160;

/// Moves the hook, and puts a script in its place with which systemd-shutdown single-steps through it.
const STEPPED: &str = "
mv /usr/lib/systemd/system-shutdown/nextkernel /usr/bin/nextkernel-hook
printf '#!/bin/sh\\nexec steps /usr/bin/nextkernel-hook \"$@\"\\n' >/usr/lib/systemd/system-shutdown/nextkernel
chmod 755 /usr/lib/systemd/system-shutdown/nextkernel
";

pub fn without_a_gpu_the_hook_does_little_itself(test: &Test) -> Result<(), String> {
    // The hook loads the image itself here, which is more work.
    let mut guest = shutdown(test, "kexec", &(stage("--preload no") + STEPPED))?;
    guest.file("/usr/bin/steps", 0o755, programs::steps()?);
    // A trap for each instruction takes time, and the init's deadline must not cut that short.
    (guest.counting, guest.limit) = (true, Duration::from_secs(400));
    let ended = guest.run()?;
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
