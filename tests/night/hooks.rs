//! Tests the base of the other properties, that the guests run the real systemd-shutdown; and how the hook works
//! beside the init's other hooks.

use super::staged::{handed_over, in_order, plan, rebooted, shutdown, stage};
use bed::guest::shutdown::Shutdown;
use bed::harness::Test;
use bed::machine::End;

pub fn systemd_shutdown_runs_the_hooks_with_the_verb(test: &Test) -> Result<(), String> {
    for (verb, end) in [("reboot", End::Reset), ("poweroff", End::PoweredOff), ("halt", End::Halted)] {
        let mut guest = Shutdown::new(test, verb);
        let hook = "#!/bin/sh\necho \"a hook ran: $# argument, $*\" >/dev/kmsg\n";
        guest.file("/usr/lib/systemd/system-shutdown/witness", 0o755, hook);
        let ended = guest.run()?;
        ended.expect(end)?;
        ended.line(&format!("a hook ran: 1 argument, {verb}"))?;
    }
    Ok(())
}

pub fn the_jump_waits_for_the_other_hooks(test: &Test) -> Result<(), String> {
    let mut guest = shutdown(test, "kexec", &stage("--preload no"))?;
    let slow = "#!/bin/sh\nsleep 6\necho the slow hook is done >/dev/kmsg\n";
    guest.file("/usr/lib/systemd/system-shutdown/slow", 0o755, slow);
    guest.counting = true;
    let ended = guest.run()?;
    handed_over(&ended, "kexec")?;
    let done = ended.console.find("the slow hook is done");
    if done.is_some() && done < ended.console.find("nextkernel: jump to ") {
        return Ok(());
    }
    Err(format!("the jump did not wait:\n{}", ended.console))
}

pub fn a_hook_that_never_ends_is_waited_for_no_longer_than_its_deadline(test: &Test) -> Result<(), String> {
    let mut guest = shutdown(test, "kexec", &stage("--preload no"))?;
    guest.file("/usr/lib/systemd/system-shutdown/endless", 0o755, "#!/bin/sh\nexec sleep 3600\n");
    guest.counting = true;
    let ended = guest.run()?;
    ended.line("nextkernel: 'sleep', another shutdown hook, still runs: going on without it")?;
    handed_over(&ended, "kexec")
}

pub fn when_another_hook_dies_by_a_signal_the_machine_ends_in_a_kernel(test: &Test) -> Result<(), String> {
    // systemd may then stop waiting for hooks, and continue beside ours: it jumps to a preloaded image, or
    // restarts through firmware if nothing is loaded or our load is in progress.
    for options in ["--preload no", ""] {
        let mut guest = shutdown(test, "kexec", &stage(options))?;
        guest.file("/usr/lib/systemd/system-shutdown/dying", 0o755, "#!/bin/sh\nkill -SEGV $$\n");
        let ended = guest.run()?;
        match ended.end {
            End::PoweredOff => ended.line("NEXT KERNEL UP").map(drop)?,
            end => ended.expect(End::Reset).map_err(|error| format!("{end:?}: {error}"))?,
        }
    }
    Ok(())
}

pub fn every_step_is_said_before_it_is_done_even_on_a_quiet_console(test: &Test) -> Result<(), String> {
    let loads = [
        "nextkernel: check that the images are the ones that were staged",
        "nextkernel: sync, for as long as it makes progress",
        "nextkernel: load /kernel: kernel of ",
    ];
    let starts =
        ["nextkernel: start what is loaded: /kernel", "nextkernel: sync, for as long as it makes progress"];
    for (options, first) in [("--preload no", &loads[..]), ("", &starts[..])] {
        let mut guest = shutdown(test, "kexec", &stage(options))?;
        guest.append = "quiet loglevel=1".into();
        let ended = guest.run()?;
        handed_over(&ended, "kexec")?;
        let then = [
            "nextkernel: wait for the init's other hooks",
            "nextkernel: sync again",
            "nextkernel: see that no file system is left writable",
            "nextkernel: settle the watchdog",
            "nextkernel: jump to /kernel",
            "NEXT KERNEL UP",
        ];
        in_order(&ended, &[first, &then[..]].concat())?;
    }
    Ok(())
}

pub fn the_guard_ends_with_the_hook(test: &Test) -> Result<(), String> {
    // This handoff fails, and systemd waits for the other hook three times as long as the guard's deadline.
    let spoiled = stage("--preload no") + &plan("guard = 5") + "rm /run/nextkernel/*/initrd\n";
    let mut guest = shutdown(test, "kexec", &spoiled)?;
    let slow = "#!/bin/sh\nsleep 15\necho the slow hook is done >/dev/kmsg\n";
    guest.file("/usr/lib/systemd/system-shutdown/slow", 0o755, slow);
    guest.counting = true;
    let ended = guest.run()?;
    ended.line("nextkernel: kexec is left to the init")?;
    ended.line("the slow hook is done")?;
    if ended.console.contains("sysrq: Resetting") {
        return Err(format!("the guard outlived the hook:\n{}", ended.console));
    }
    rebooted(&ended)
}
