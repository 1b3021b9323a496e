//! The devices of this machine: what is done with GPUs and others at night, and what may forbid it.

use nextkernel_plan::Policy;

use super::{Findings, Verdict};
use crate::conf::{self, Conf};
use crate::gpus::Gpu;
use crate::root::Root;
use crate::unbind;

/// What is done with the drivers of GPUs, and why.
pub(super) fn drivers(gpus: &[Gpu], conf: &Conf, findings: &mut Findings) {
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
pub(super) fn modules(root: &Root, gpus: &[Gpu], conf: &Conf, findings: &mut Findings) {
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
pub(super) fn others(root: &Root, conf: &Conf, findings: &mut Findings) {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{machine, says};
    use super::*;
    use crate::gpus;

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
    fn modules_that_are_named_or_would_write_to_the_firmware_are_told() {
        let scratch = machine();
        scratch.put("/sys/module/efibc/initstate", "live\n");
        says(&scratch, "efibc", Verdict::Info, "is unloaded first");
        scratch.put(conf::PATH, "modules = mei_me\n");
        says(&scratch, "module mei_me", Verdict::Info, "not loaded now");
    }
}
