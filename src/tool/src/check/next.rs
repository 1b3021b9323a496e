//! The next kernel: its command line, and the means to end a jump or a boot that hangs.

use std::io::ErrorKind;

use nextkernel_plan::{Plan, Watchdog};

use crate::check::finding::{Findings, Verdict};
use crate::freeing::gpus::{self, Gpu};
use crate::image::cmdline;
use crate::machine::root::Root;
use crate::machine::superuser::is_root;
use crate::machine::watchdogs;
use crate::request::conf::Conf;

/// Reports on the next kernel's command line: the staged one, or else the one that would be staged now.
pub(super) fn command_line(
    root: &Root,
    plan: Option<&Plan<'_>>,
    gpus: &[Gpu],
    conf: &Conf,
    findings: &mut Findings,
) {
    let running;
    let line = if let Some(plan) = plan {
        plan.cmdline
    } else {
        running = cmdline::reused(root).unwrap_or_default();
        &running
    };
    let to_be = conf.panic.filter(|_| plan.is_none()).map(|seconds| seconds.to_string());
    match to_be.as_deref().or_else(|| cmdline::value(line, "panic")) {
        None | Some("0") => findings.say(
            Verdict::Info,
            "panic",
            "the next kernel is not told to restart after a panic, and stands still unless it was built otherwise; \
             on a machine that is far away say `panic = 30` in /etc/nextkernel.conf",
        ),
        Some(seconds) => {
            findings.say(Verdict::Ok, "panic", format!("the next kernel restarts after a panic (panic={seconds})"));
        }
    }
    if let (Some(gpu), Some(_)) = (gpus::stale_framebuffer(gpus), plan) {
        if !cmdline::is_without_sysfb(line) {
            findings.say(
                Verdict::Warn,
                "framebuffer",
                format!(
                    "the framebuffer that {} leaves is stale, and the next kernel may draw over its own memory there; \
                     stage with {} on the command line",
                    gpu.module,
                    cmdline::NO_SYSFB
                ),
            );
        }
    }
}

/// Checks that a hanging jump can be ended, as far as that can be tried: opens the file as the hook does, and
/// writes nothing.
pub(super) fn guard(root: &Root, seconds: Option<u16>, findings: &mut Findings) {
    let opened = std::fs::OpenOptions::new().write(true).open(root.path("/proc/sysrq-trigger"));
    let why = match opened {
        Ok(_) => {
            let seconds = seconds.unwrap_or(nextkernel_hook::sys::limits::GUARD);
            let resets =
                format!("a jump that hangs in the kernel's device shutdown is reset after {seconds} seconds");
            return findings.say(Verdict::Ok, "guard", resets);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            "this kernel has no /proc/sysrq-trigger (CONFIG_MAGIC_SYSRQ)".to_owned()
        }
        // A user other than root never may.
        Err(_) if !is_root() => return,
        Err(error) => format!(
            "root itself may not write to /proc/sysrq-trigger ({error}), and at shutdown the hook may not either"
        ),
    };
    let but = "nothing but a hardware watchdog ends a jump that hangs in the kernel's device shutdown";
    findings.say(Verdict::Warn, "guard", format!("{why}: {but}"));
}

/// Reports if the hook cannot see where a driver hangs.
pub(super) fn stacks(root: &Root, findings: &mut Findings) {
    let why = match root.read_up_to("/proc/1/stack", 1) {
        Ok(_) => return,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            "this kernel shows none (CONFIG_STACKTRACE)".to_owned()
        }
        Err(_) if !is_root() => return,
        Err(error) => {
            let scope = root.read_up_to("/proc/sys/kernel/yama/ptrace_scope", 2).unwrap_or_default();
            if scope.starts_with(b"3") {
                "kernel.yama.ptrace_scope is 3".to_owned()
            } else {
                error.to_string()
            }
        }
    };
    findings.say(
        Verdict::Info,
        "stacks",
        format!(
            "the stacks of processes cannot be read ({why}): where the driver of a GPU hangs the hook cannot tell whether a \
             jump would hang, too, and resets the machine when its time is over"
        ),
    );
}

/// Reports how far hardware watchdogs cover the next kernel.
pub(super) fn hardware_watchdogs(root: &Root, wanted: Option<Watchdog>, findings: &mut Findings) {
    let found = watchdogs::find(root);
    let at_restart = watchdogs::at_restart(root);
    let seconds = match wanted {
        Some(Watchdog::Seconds(seconds)) => Some(u32::from(seconds)),
        Some(Watchdog::Off) | None => None,
    };
    if found.is_empty() {
        let none = "no hardware watchdog has a driver here: a next kernel that hangs stays so";
        findings.say(if seconds.is_some() { Verdict::Warn } else { Verdict::Info }, "watchdog", none);
    }
    for (at, watchdog) in found.into_iter().enumerate() {
        let mut sentence = format!("{}: {}", watchdog.in_words(), watchdog.cover(at_restart));
        let too_long = watchdog.max_timeout.filter(|most| seconds.is_some_and(|seconds| seconds > *most));
        if let Some(most) = too_long {
            sentence = format!("{sentence}; and it counts to {most} seconds at most");
        }
        // The hook arms the first watchdog.
        let wanted = seconds.is_some() && at == 0;
        let falls_short = wanted && (too_long.is_some() || !watchdog.outlives_a_kexec(at_restart));
        findings.say(if falls_short { Verdict::Warn } else { Verdict::Info }, watchdog.name, sentence);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::tests::{machine, says};
    use crate::request::conf;

    #[test]
    fn a_next_kernel_that_stands_still_and_a_jump_that_nothing_ends_are_told() {
        let scratch = machine();
        scratch.put("/proc/cmdline", "root=x\n");
        says(&scratch, "panic", Verdict::Info, "stands still");
        scratch.put(conf::PATH, "panic = 5\n");
        says(&scratch, "panic", Verdict::Ok, "panic=5");
        std::fs::remove_file(scratch.root.path("/proc/sysrq-trigger")).unwrap_or_default();
        says(&scratch, "guard", Verdict::Warn, "no /proc/sysrq-trigger");
        // A directory cannot be opened for writing. It stands in for a file that a security module protects.
        std::fs::create_dir(scratch.root.path("/proc/sysrq-trigger")).unwrap();
        if is_root() {
            says(&scratch, "guard", Verdict::Warn, "root itself may not write to /proc/sysrq-trigger");
        }
        std::fs::remove_file(scratch.root.path("/proc/1/stack")).unwrap();
        says(&scratch, "stacks", Verdict::Info, "this kernel shows none (CONFIG_STACKTRACE)");
    }

    #[test]
    fn a_watchdog_is_told_with_how_far_it_covers() {
        let scratch = machine();
        says(&scratch, "watchdog", Verdict::Info, "no hardware watchdog");
        scratch.put(conf::PATH, "watchdog = 60\n");
        says(&scratch, "watchdog", Verdict::Warn, "no hardware watchdog");
        for (file, text) in [
            ("identity", "i6300ESB timer"),
            ("state", "inactive"),
            ("timeout", "30"),
            ("nowayout", "0"),
            ("max_timeout", "2046"),
        ] {
            scratch.put(&format!("/sys/class/watchdog/watchdog0/{file}"), &format!("{text}\n"));
        }
        says(
            &scratch,
            "watchdog0",
            Verdict::Warn,
            "i6300ESB timer, not armed, 30 s: it is stopped at every restart",
        );
        scratch.put("/sys/module/watchdog/parameters/stop_on_reboot", "-1\n");
        says(&scratch, "watchdog0", Verdict::Warn, "covers nothing behind the jump");
        scratch.put("/sys/module/watchdog/parameters/stop_on_reboot", "0\n");
        says(&scratch, "watchdog0", Verdict::Info, "until the next kernel's probe of the driver");
        scratch.put(conf::PATH, "watchdog = 3000\n");
        says(&scratch, "watchdog0", Verdict::Warn, "2046 seconds at most");
    }
}
