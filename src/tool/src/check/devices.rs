//! The devices of this machine: how GPUs and other devices are handled at the end of shutdown, and what may
//! prevent that.

use nextkernel_plan::{GpuFailed, Plan, Policy};

use crate::check::answers::Answers;
use crate::check::configuration::IfInvalid;
use crate::check::finding::{Findings, Verdict};
use crate::freeing::gpus::{self, Gpu};
use crate::freeing::unbind;
use crate::machine::root::Root;
use crate::request::conf::{self, Conf};

/// Reports how the driver of each GPU is handled, and why.
pub(super) fn drivers(root: &Root, answers: &Answers, gpus: &[Gpu], conf: &Conf, findings: &mut Findings) {
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
        let held = held(root, answers, gpu);
        findings.say(verdict, format!("gpu {}", gpu.module), format!("{}{on}: {why}{held}", gpu.in_words()));
    }
    for (driver, _) in conf.gpu.iter().filter(|(driver, _)| driver != "*") {
        if !gpus.iter().any(|gpu| gpu.module == *driver) {
            let nothing = format!("{} names it, and it owns no GPU here now", conf::PATH);
            findings.say(Verdict::Info, format!("gpu {driver}"), nothing);
        }
    }
}

/// Names the modules and the process that use a driver that is to be freed.
fn held(root: &Root, answers: &Answers, gpu: &Gpu) -> String {
    if !matches!(gpu.policy, Policy::Unload | Policy::Unbind) || gpu.is_stuck() {
        return String::new();
    }
    let modules = gpus::modules_on(root, &gpu.module).join(", ");
    let modules = if modules.is_empty() { modules } else { format!("; {modules} stand on it now") };
    let process = (answers.process_on)(root, &gpu.module).map_or(String::new(), |process| {
        format!("; {process} has it open now, and is ended at night where it still does, as is whoever else")
    });
    modules + &process
}

/// Reports if modules that are to be unloaded cannot be.
pub(super) fn modules(
    root: &Root,
    plan: Option<&Plan<'_>>,
    gpus: &[Gpu],
    conf: &Conf,
    findings: &mut Findings,
) {
    let is_loaded = |module: &str| root.path("/sys/module").join(module).join("initstate").exists();
    let forbidden = Forbidden::here(root);
    if is_loaded("efibc") {
        let (verdict, why) = if let Some(Forbidden { why, .. }) = &forbidden {
            let follows =
                "will write twice to the firmware's memory and overwrite the boot loader's one-shot entry";
            (Verdict::Warn, format!("cannot be unloaded, for {why}, and {follows}"))
        } else {
            let why = "is unloaded first: at each kexec it would write twice to the firmware's memory, and take the \
                       boot loader's one-shot entry away";
            (Verdict::Info, why.to_owned())
        };
        findings.say(verdict, "efibc", why);
    }
    let (named, who): (Vec<&str>, _) = match plan {
        Some(plan) => (plan.modules.iter().collect(), "what is staged"),
        None => (conf.modules.iter().map(String::as_str).collect(), conf::PATH),
    };
    let (loaded, missing): (Vec<&str>, Vec<_>) = named.into_iter().partition(|module| is_loaded(module));
    for module in missing {
        let nothing = format!("{who} names it, and it is not loaded now");
        findings.say(Verdict::Info, format!("module {module}"), nothing);
    }
    if let Some(forbidden) = forbidden {
        forbidden_to_unload(&forbidden, gpus, loaded, findings);
    }
}

/// The reason why no module can be unloaded here.
struct Forbidden {
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
}

impl Forbidden {
    fn here(root: &Root) -> Option<Forbidden> {
        // The use count of a module is shown only if modules can be unloaded (`modinfo_refcnt`,
        // kernel/module/main.c). A module that comes or goes just now may show only some of its files.
        let modules = std::fs::read_dir(root.path("/sys/module")).into_iter().flatten().flatten();
        let modules: Vec<_> = modules.map(|entry| entry.path()).collect();
        let any_has = |file: &str| modules.iter().any(|module| module.join(file).exists());
        if any_has("initstate") && !any_has("refcnt") {
            return Some(Forbidden {
                what: "module-unloading",
                why: "this kernel was built without it (CONFIG_MODULE_UNLOAD)",
                remedy: "run a kernel that has it",
            });
        }
        let disabled = root.fact("/proc/sys/kernel/modules_disabled").as_deref() == Some("1");
        disabled.then_some(Forbidden {
            what: "modules_disabled",
            why: "kernel.modules_disabled is 1 until the next boot",
            remedy: "find out who sets it (grep -r modules_disabled /etc/sysctl.d /usr/lib/sysctl.d)",
        })
    }
}

/// Reports drivers and further modules that cannot be unloaded. A GPU may then require a full reboot.
fn forbidden_to_unload(
    Forbidden { what, why, remedy }: &Forbidden,
    gpus: &[Gpu],
    further: Vec<&str>,
    findings: &mut Findings,
) {
    let gpus: Vec<_> = gpus.iter().filter(|gpu| gpu.policy == Policy::Unload).collect();
    let unloaded: Vec<_> = gpus.iter().map(|gpu| gpu.module.as_str()).chain(further).collect();
    if unloaded.is_empty() {
        return;
    }
    let (verdict, follows) = match gpus.iter().find(|gpu| gpu.if_failed == GpuFailed::FirmwareReboot) {
        Some(gpu) => (
            Verdict::Bad,
            format!("the machine restarts through firmware instead of jumping, because of {}", gpu.module),
        ),
        None => (Verdict::Warn, "the jump is made all the same".to_owned()),
    };
    findings.say(
        verdict,
        *what,
        format!(
            "{} cannot be unloaded, for {why}: {follows}; {remedy}, or leave GPUs with `gpu = leave`",
            unloaded.join(", ")
        ),
    );
}

/// Reports on the devices that the configuration says to unbind.
pub(super) fn others(root: &Root, conf: &Conf, IfInvalid(verdict, what): IfInvalid, findings: &mut Findings) {
    match unbind::find(root, &conf.unbind) {
        Err(error) => findings.say(verdict, "unbind", format!("{error}; {what}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{answers, finding, machine, says, says_when_asked, staged};
    use crate::machine::scratch::Scratch;

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
    fn who_stands_on_a_driver_that_is_to_be_freed_is_named() {
        let scratch = machine();
        scratch.directory("/sys/module/bochs/holders/b");
        scratch.directory("/sys/module/bochs/holders/a");
        says(&scratch, "gpu bochs", Verdict::Ok, "; a, b stand on it now");
        let open = Answers { process_on: |_, module| Some(format!("'x' of {module} (7)")), ..answers() };
        says_when_asked(&scratch, &open, "gpu bochs", Verdict::Ok, "; 'x' of bochs (7) has it open now");
        scratch.put(conf::PATH, "gpu.bochs = leave\n");
        let (_, sentence) = finding(&scratch, &open, "gpu bochs").unwrap_or((Verdict::Bad, String::new()));
        assert!(sentence.contains("left to the kernel") && !sentence.contains("now"), "{sentence}");
    }

    #[test]
    fn modules_that_are_named_or_would_write_to_the_firmware_are_told() {
        let scratch = machine();
        scratch.put("/sys/module/efibc/initstate", "live\n");
        says(&scratch, "efibc", Verdict::Info, "is unloaded first");
        scratch.put(conf::PATH, "modules = mei_me\n");
        says(&scratch, "module mei_me", Verdict::Info, "nextkernel.conf names it, and it is not loaded now");
        staged(&scratch, "preload = yes\nmodule = dummy");
        says(&scratch, "module dummy", Verdict::Info, "what is staged names it");
        assert!(finding(&scratch, &answers(), "module mei_me").is_none());
    }

    #[test]
    fn modules_that_cannot_be_unloaded_are_bad_only_where_the_firmware_would_follow() {
        let scratch = machine();
        scratch.put("/proc/sys/kernel/modules_disabled", "1\n");
        scratch.put("/sys/module/efibc/initstate", "live\n");
        says(&scratch, "efibc", Verdict::Warn, "cannot be unloaded");
        says(
            &scratch,
            "modules_disabled",
            Verdict::Warn,
            "bochs cannot be unloaded, for kernel.modules_disabled is 1 until the next boot: the jump is made all the same",
        );
        scratch.put(conf::PATH, "gpu-failed = firmware-reboot\n");
        says(
            &scratch,
            "modules_disabled",
            Verdict::Bad,
            "through firmware instead of jumping, because of bochs",
        );
        scratch.put(conf::PATH, "gpu = leave\ngpu-failed = firmware-reboot\nmodules = efibc\n");
        says(&scratch, "modules_disabled", Verdict::Warn, "efibc cannot be unloaded");
        scratch.put(conf::PATH, "gpu = leave\n");
        assert!(finding(&scratch, &answers(), "modules_disabled").is_none());
        // The plan takes precedence over the configuration.
        staged(&scratch, "preload = yes\ngpu-failed = firmware-reboot");
        says(&scratch, "modules_disabled", Verdict::Bad, "because of bochs");
    }

    /// A cloud machine with a card that has no display, as its kernel showed it.
    #[test]
    fn a_kernel_that_unloads_no_module_at_all_is_known_by_what_it_does_not_count() {
        let scratch = Scratch::new();
        gpus::tests::add(&scratch, "nvidia", "0000:00:06.0", "live");
        assert!(finding(&scratch, &answers(), "module-unloading").is_none());
        std::fs::remove_file(scratch.root.path("/sys/module/nvidia/refcnt")).unwrap_or_default();
        scratch.put("/proc/modules", "nvidia 14299136 - - Live 0xffffffffc0400000 (O)\n");
        says(
            &scratch,
            "module-unloading",
            Verdict::Bad,
            "nvidia cannot be unloaded, for this kernel was built",
        );
        scratch.put("/sys/module/efibc/initstate", "live\n");
        says(&scratch, "efibc", Verdict::Warn, "cannot be unloaded, for this kernel was built without it");
    }
}
