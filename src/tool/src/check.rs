//! What may stand between this machine and its next kernel: a list of findings, each a sentence.

use std::io;
use std::os::unix::fs::MetadataExt;

use clap::Args;
use nextkernel_plan::{Plan, Policy, Watchdog};
use serde::Serialize;
use thiserror::Error;

use crate::conf::{self, Conf};
use crate::errno::InWords;
use crate::folder::Folder;
use crate::gpus::{self, Gpu, Said};
use crate::root::Root;
use crate::{cmdline, facts, rehearse, unbind, watchdogs};

/// Tell what may stand between this machine and its next kernel
///
/// Each finding is ok, info (worth knowing), warn (it works, and may fail where it need not) or bad (it
/// will fail). The exit status is 1 if anything is bad, else 0. It changes nothing; as root it sees what is
/// staged, too.
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why the exit status is not 0.
#[derive(Debug, Error)]
pub enum Error {
    /// Something is bad.
    #[error("not as it should be: {}; each says above what to do", .0.join(", "))]
    Bad(Vec<String>),
    /// The output.
    #[error("the findings cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// Everything that was found. Field names are stable; new ones may be added.
#[derive(Debug, Serialize)]
struct Found {
    findings: Vec<Finding>,
}

/// What is said of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    sentence: String,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// It works, and may fail where it need not.
    Warn,
    /// It will fail.
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Info => "info",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

/// Prints the findings.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    let found = Found { findings: all(root) };
    let in_words = || found.findings.iter().map(Finding::in_words).collect();
    facts::print(&found, wish.json, in_words).map_err(Error::Output)?;
    let bad = found.findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad);
    let bad: Vec<_> = bad.map(|finding| finding.what).collect();
    if bad.is_empty() { Ok(()) } else { Err(Error::Bad(bad)) }
}

impl Finding {
    fn in_words(&self) -> String {
        format!("{:<5} {:<18} {}\n", self.verdict.word(), self.what, self.sentence)
    }
}

/// The list that is being made.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, verdict: Verdict, what: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict, sentence: sentence.into() });
    }
}

fn all(root: &Root) -> Vec<Finding> {
    let mut findings = Findings::default();
    let conf = configuration(root, &mut findings);
    let text = Folder::plan_text(root);
    let plan = staged(root, text.as_ref(), &mut findings);
    let gpus = gpus::find(root, plan.as_ref().map_or(Said::Conf(&conf), Said::Plan));
    drivers(&gpus, &conf, &mut findings);
    modules(root, &gpus, &conf, &mut findings);
    others(root, &conf, &mut findings);
    load(root, &mut findings);
    guard(root, plan.as_ref().map_or(conf.guard, |plan| plan.guard), &mut findings);
    next_command_line(root, plan.as_ref(), &gpus, &conf, &mut findings);
    hardware_watchdogs(root, plan.as_ref().map_or(conf.watchdog, |plan| plan.watchdog), &mut findings);
    findings.0
}

/// /etc/nextkernel.conf can be read, and is what was staged.
fn configuration(root: &Root, findings: &mut Findings) -> Conf {
    match Conf::read(root) {
        Err(error) => {
            findings.say(Verdict::Bad, "configuration", format!("{error}; until then nothing can be staged"));
        }
        Ok(conf) => {
            let said = if root.path(conf::PATH).exists() {
                "can be read"
            } else {
                "is not there: the defaults hold"
            };
            findings.say(Verdict::Ok, "configuration", format!("{} {said}", conf::PATH));
            return conf;
        }
    }
    Conf::default()
}

/// What is staged can be read, and somebody will read it at night.
fn staged<'a>(
    root: &Root,
    text: Result<&'a Option<Vec<u8>>, &crate::folder::Error>,
    findings: &mut Findings,
) -> Option<Plan<'a>> {
    if !root.hook_installed() {
        let why = "/usr/lib/systemd/system-shutdown/nextkernel is missing: nothing would be done at night; install it there";
        findings.say(Verdict::Bad, "hook", why);
    }
    let text = match text {
        Ok(Some(text)) => text,
        Ok(None) => {
            findings.say(Verdict::Info, "staged", "nothing is staged: `nextkernel stage` does that");
            return None;
        }
        Err(error) => {
            findings.say(Verdict::Info, "staged", format!("what is staged is not looked at: {error}"));
            return None;
        }
    };
    match Plan::parse(text) {
        Ok(plan) => {
            // The time of the last change, which a file moved there has, too.
            let changed =
                root.path(conf::PATH).metadata().ok().and_then(|found| u64::try_from(found.ctime()).ok());
            if changed.is_some_and(|changed| changed > plan.staged_at) {
                let stale = format!(
                    "{} was changed since: stage again, for the plan holds what it said then",
                    conf::PATH
                );
                findings.say(Verdict::Warn, "staged", stale);
            } else {
                findings.say(Verdict::Ok, "staged", format!("{} is staged", plan.entry));
            }
            Some(plan)
        }
        Err(error) => {
            findings.say(Verdict::Bad, "staged", crate::folder::Error::Malformed(error).to_string());
            None
        }
    }
}

/// What is done with the drivers of GPUs, and why.
fn drivers(gpus: &[Gpu], conf: &Conf, findings: &mut Findings) {
    if gpus.is_empty() {
        findings.say(Verdict::Ok, "gpu", "no driver here owns a GPU: nothing is to be unloaded for one");
    }
    for gpu in gpus {
        let (default, known) = gpu.default;
        let (verdict, why) = if gpu.is_stuck() {
            let why = "unless it comes back from there, every reboot(2) waits for it without end, and the hook resets the \
                       machine instead; the kernel log says what happened to it (dmesg)";
            (Verdict::Bad, why.to_owned())
        } else if gpu.policy == default {
            (Verdict::Ok, known.to_owned())
        } else {
            let verdict = if gpu.policy == Policy::FirmwareReboot { Verdict::Warn } else { Verdict::Info };
            (verdict, format!("so it is configured; the default is {default}, for {known}"))
        };
        let on =
            if gpu.devices.is_empty() { String::new() } else { format!(" (on {})", gpu.devices.join(", ")) };
        findings.say(verdict, format!("gpu {}", gpu.module), format!("{}{on}: {why}", gpu.in_words()));
    }
    for (driver, _) in conf.gpu.iter().filter(|(driver, _)| driver != "*") {
        if !gpus.iter().any(|gpu| gpu.module == *driver) {
            let nothing = format!("{} names it, and it owns no GPU here now", conf::PATH);
            findings.say(Verdict::Info, format!("gpu {driver}"), nothing);
        }
    }
}

/// Modules can be unloaded where some are to be.
fn modules(root: &Root, gpus: &[Gpu], conf: &Conf, findings: &mut Findings) {
    let is_loaded = |module: &str| root.path("/sys/module").join(module).join("initstate").exists();
    if is_loaded("efibc") {
        let why = "is unloaded first: at each kexec it would write twice to the firmware's memory, and take the boot \
                   loader's one-shot entry away";
        findings.say(Verdict::Info, "efibc", why);
    }
    for module in conf.modules.iter().filter(|module| !is_loaded(module)) {
        let nothing = format!("{} names it, and it is not loaded now", conf::PATH);
        findings.say(Verdict::Info, format!("module {module}"), nothing);
    }
    let of_gpus = gpus.iter().filter(|gpu| gpu.policy == Policy::Unload).map(|gpu| gpu.module.as_str());
    let others = conf.modules.iter().map(String::as_str).filter(|module| is_loaded(module));
    let unloaded: Vec<_> = of_gpus.chain(others).collect();
    let forbidden = root.fact("/proc/sys/kernel/modules_disabled").as_deref() == Some("1");
    if forbidden && !unloaded.is_empty() {
        findings.say(
            Verdict::Bad,
            "modules_disabled",
            format!(
                "kernel.modules_disabled is 1 until the next boot, and {} cannot be unloaded; find out who sets it \
                 (grep -r modules_disabled /etc/sysctl.d /usr/lib/sysctl.d), or leave them with `gpu = leave`",
                unloaded.join(", ")
            ),
        );
    }
}

/// What the configuration says of other devices.
fn others(root: &Root, conf: &Conf, findings: &mut Findings) {
    match unbind::find(root, &conf.unbind) {
        Err(error) => {
            findings.say(Verdict::Bad, "unbind", format!("{error}; until then nothing can be staged"));
        }
        Ok(found) => {
            for sentence in found.left_out {
                findings.say(Verdict::Info, "unbind", sentence);
            }
            if !found.addresses.is_empty() {
                let all = found.addresses.join(", ");
                findings.say(
                    Verdict::Ok,
                    "unbind",
                    format!("{all}: unbound at the same time, just before the jump"),
                );
            }
        }
    }
}

/// The kernel loads another one.
fn load(root: &Root, findings: &mut Findings) {
    let (verdict, so) = if root.kexec_loaded() {
        (Verdict::Warn, "what is loaded now is what can be jumped to, without the handoff's record")
    } else {
        (Verdict::Bad, "nothing can be loaded")
    };
    if root.fact("/proc/sys/kernel/kexec_load_disabled").as_deref() == Some("1") {
        let why = "kernel.kexec_load_disabled is 1 and stays so until the next boot; find out who sets it \
                   (grep -r kexec_load_disabled /etc/sysctl.d /usr/lib/sysctl.d)";
        findings.say(verdict, "load", format!("{so}: {why}"));
    }
    match rehearse::calls_left(root) {
        Some(0) => {
            let why = "kernel.kexec_load_limit_reboot is spent: each attempt costs one, and only a boot gives new ones";
            findings.say(verdict, "load", format!("{so}: {why}"));
        }
        Some(left) => {
            let why = "until the next boot: staging takes two or three, the night's included";
            findings.say(
                Verdict::Info,
                "load",
                format!("kernel.kexec_load_limit_reboot allows {left} more {why}"),
            );
        }
        None => {}
    }
}

/// A jump that hangs can be ended.
fn guard(root: &Root, seconds: Option<u16>, findings: &mut Findings) {
    if root.path("/proc/sysrq-trigger").exists() {
        let seconds = seconds.unwrap_or(nextkernel_hook::limits::GUARD);
        let resets =
            format!("a jump that hangs in the kernel's device shutdown is reset after {seconds} seconds");
        findings.say(Verdict::Ok, "guard", resets);
    } else {
        let why = "this kernel has no /proc/sysrq-trigger (CONFIG_MAGIC_SYSRQ): nothing but a hardware watchdog ends a \
                   jump that hangs in the kernel's device shutdown";
        findings.say(Verdict::Warn, "guard", why);
    }
}

/// What the next kernel is told: of what is staged, or of what would be staged now.
fn next_command_line(
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

/// How far a hardware watchdog covers the next kernel.
fn hardware_watchdogs(root: &Root, wanted: Option<Watchdog>, findings: &mut Findings) {
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
        // The hook arms the first.
        let wanted = seconds.is_some() && at == 0;
        let falls_short = wanted && (too_long.is_some() || !watchdog.outlives_a_kexec(at_restart));
        findings.say(if falls_short { Verdict::Warn } else { Verdict::Info }, watchdog.name, sentence);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::Scratch;
    use std::fs;

    /// A machine on which all is well.
    fn machine() -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
        scratch.put("/proc/sysrq-trigger", "");
        scratch.put("/proc/cmdline", "root=x panic=30\n");
        gpus::tests::add(&scratch, "bochs", "0000:00:02.0", "live");
        scratch
    }

    /// The verdict and sentence of one finding.
    fn finding(scratch: &Scratch, what: &str) -> (Verdict, String) {
        let found = all(&scratch.root).into_iter().find(|finding| finding.what == what);
        found.map(|finding| (finding.verdict, finding.sentence)).unwrap()
    }

    fn says(scratch: &Scratch, what: &str, verdict: Verdict, words: &str) {
        let (found, sentence) = finding(scratch, what);
        assert!(found == verdict && sentence.contains(words), "{what}: {found:?}: {sentence}");
    }

    #[test]
    fn where_all_is_well_nothing_is_worse_than_worth_knowing() {
        let findings = all(&machine().root);
        assert!(findings.iter().all(|f| matches!(f.verdict, Verdict::Ok | Verdict::Info)), "{findings:?}");
        let json = serde_json::to_value(Found { findings }).unwrap();
        let first = json.pointer("/findings/0").unwrap().as_object().unwrap();
        assert_eq!(first.keys().map(String::as_str).collect::<Vec<_>>(), ["sentence", "verdict", "what"]);
        assert_eq!(json.pointer("/findings/0/verdict").unwrap(), "ok");
    }

    #[test]
    fn every_gpu_is_told_with_what_is_done_and_why() {
        let scratch = machine();
        gpus::tests::add(&scratch, "i915", "0000:00:03.0", "live");
        gpus::tests::add(&scratch, "radeon", "0000:00:04.0", "coming");
        scratch.put(conf::PATH, "gpu.bochs = firmware-reboot\ngpu.amdgpu = leave\n");
        says(
            &scratch,
            "gpu bochs",
            Verdict::Warn,
            "instead of jumping (on 0000:00:02.0): so it is configured; the default is unload, for unloading is cheap",
        );
        says(&scratch, "gpu i915", Verdict::Ok, "its own shutdown");
        says(&scratch, "gpu radeon", Verdict::Bad, "every reboot(2) waits for it");
        says(&scratch, "gpu amdgpu", Verdict::Info, "owns no GPU here now");
    }

    #[test]
    fn what_cannot_work_is_bad() {
        let scratch = machine();
        for (path, text, what, words) in [
            (conf::PATH, "gpus = leave\n", "configuration", "line 1: there is no key 'gpus'"),
            (conf::PATH, "unbind = 0000:00:02.0\n", "unbind", "what carries / cannot be told"),
            ("/proc/sys/kernel/modules_disabled", "1\n", "modules_disabled", "bochs cannot be unloaded"),
            ("/proc/sys/kernel/kexec_load_disabled", "1\n", "load", "nothing can be loaded"),
            ("/proc/sys/kernel/kexec_load_limit_reboot", "0\n", "load", "is spent"),
            ("/run/nextkernel/plan", "nextkernel-plan 2\n", "staged", "version 2"),
        ] {
            scratch.put(path, text);
            says(&scratch, what, Verdict::Bad, words);
            fs::remove_file(scratch.root.path(path)).unwrap();
        }
        scratch.put("/proc/sys/kernel/kexec_load_disabled", "1\n");
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        says(&scratch, "load", Verdict::Warn, "what is loaded now");
        fs::remove_file(scratch.root.path("/usr/lib/systemd/system-shutdown/nextkernel")).unwrap();
        says(&scratch, "hook", Verdict::Bad, "nothing would be done at night");
    }

    #[test]
    fn what_may_fail_where_it_need_not_is_told() {
        let scratch = machine();
        scratch.put("/sys/module/efibc/initstate", "live\n");
        says(&scratch, "efibc", Verdict::Info, "is unloaded first");
        scratch.put("/proc/cmdline", "root=x\n");
        says(&scratch, "panic", Verdict::Info, "stands still");
        scratch.put(conf::PATH, "panic = 5\nmodules = mei_me\n");
        says(&scratch, "panic", Verdict::Ok, "panic=5");
        says(&scratch, "module mei_me", Verdict::Info, "not loaded now");
        fs::remove_file(scratch.root.path("/proc/sysrq-trigger")).unwrap();
        says(&scratch, "guard", Verdict::Warn, "no /proc/sysrq-trigger");
    }

    #[test]
    fn what_is_staged_is_judged_as_it_was_staged() {
        let scratch = machine();
        gpus::tests::add(&scratch, "xe", "0000:00:03.0", "live");
        let plan = "\
nextkernel-plan 1
handoff = 0000000000000007
entry = 6.12
staged-at = 4000000000
on = kexec
hold = late
kernel = 0000000000000007/kernel size=1 inode=1 changed=1.000000001
cmdline = root=x panic=7
gpu = xe firmware-reboot
end
";
        scratch.put("/run/nextkernel/plan", plan);
        scratch.put(conf::PATH, "gpu.xe = unload\n");
        says(&scratch, "staged", Verdict::Ok, "6.12 is staged");
        says(&scratch, "gpu xe", Verdict::Warn, "restarts through firmware");
        says(&scratch, "framebuffer", Verdict::Warn, "initcall_blacklist=sysfb_init");
        says(&scratch, "panic", Verdict::Ok, "panic=7");
        scratch.put("/run/nextkernel/plan", &plan.replace("4000000000", "1"));
        says(&scratch, "staged", Verdict::Warn, "stage again");
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
