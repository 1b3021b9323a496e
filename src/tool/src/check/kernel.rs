//! The limits of the running kernel: whether it loads another kernel at all, and which ones.

use nextkernel_plan::Plan;

use crate::check::answers::Answers;
use crate::check::finding::{Findings, Verdict};
use crate::loading::policy::{self, Against};
use crate::loading::restriction::Restriction;
use crate::loading::syscall;
use crate::machine::efi;
use crate::machine::kconfig::Kconfig;
use crate::machine::root::Root;
use crate::machine::sys::Calls;

/// Reports whether the kernel loads another one, and with which syscall.
pub(super) fn load(root: &Root, answers: &Answers, findings: &mut Findings) {
    let against = Against::find(root, answers.calls);
    match (answers.calls, against) {
        (Some(Calls { file: true, loads_into_cma: true, .. }), against) => {
            let (verdict, so) = match against.filter(|against| against.forbids()) {
                None => (
                    Verdict::Ok,
                    "kexec_load(2) loads the next kernel: this one's kexec_file_load(2) would load it into CMA".to_owned(),
                ),
                forbidden => (Verdict::Bad, syscall::into_cma(forbidden)),
            };
            findings.say(verdict, "calls", so);
        }
        (Some(Calls { file: true, segments, .. }), against) => {
            let other = match against {
                _ if !segments => "; kexec_load(2) is not".to_owned(),
                Some(against) => format!("; kexec_load(2) is not for --loader direct and --thaw: {against}"),
                None => "; so is kexec_load(2), for --loader direct and --thaw".to_owned(),
            };
            findings.say(
                Verdict::Ok,
                "calls",
                format!("kexec_file_load(2) is there, which loads the next kernel{other}"),
            );
        }
        (Some(Calls { file: false, .. }), Some(against)) if against.forbids() => {
            findings.say(Verdict::Bad, "calls", syscall::no_call(Some(against)));
        }
        (Some(Calls { file: false, .. }), _) => findings.say(
            Verdict::Ok,
            "calls",
            "kexec_load(2) is there, and loads the next kernel; kexec_file_load(2) is not (CONFIG_KEXEC_FILE)",
        ),
        (None, _) => findings.say(
            Verdict::Info,
            "calls",
            "whether this kernel has kexec_file_load(2) cannot be asked here",
        ),
    }
    let (verdict, so) = if root.kexec_loaded() {
        (Verdict::Warn, "what is loaded now is what can be started, and no other")
    } else {
        (Verdict::Bad, "nothing can be loaded")
    };
    match Restriction::to_calls(root) {
        // A user other than root may run the check. That this user cannot load is no finding.
        None | Some(Restriction::NotRoot) => {}
        Some(bar) => findings.say(verdict, "load", format!("{so}: {bar}")),
    }
    if let Some(left) = policy::calls_left(root).filter(|left| *left > 0) {
        let verdict = if left < 2 { Verdict::Warn } else { Verdict::Info };
        findings.say(
            verdict,
            "load",
            format!(
                "kernel.kexec_load_limit_reboot allows {left} more until the next boot: staging takes two or three, the \
                 night's included"
            ),
        );
    }
}

/// Reports which kernels the running kernel accepts.
pub(super) fn signatures(root: &Root, plan: Option<&Plan<'_>>, findings: &mut Findings) {
    let secure_boot = efi::secure_boot(root) == Some(true);
    let locked_down = policy::is_locked_down(root);
    let boot = if secure_boot { "Secure Boot is on" } else { "Secure Boot is off" };
    let config = Kconfig::find(root);
    let has = |name: &str| config.as_ref().is_some_and(|config| config.has(name));
    let forced = policy::demands_signature(root, config.as_ref());
    let (verdict, sentence) = if locked_down && (config.is_none() || has("KEXEC_SIG")) {
        (
            Verdict::Info,
            "lockdown is in force: only a kernel whose signature this one can verify is loaded, the distribution's own",
        )
    } else if forced {
        (
            Verdict::Info,
            "every kernel must be signed by a key that this one knows; staging shows whether yours is",
        )
    } else if locked_down {
        (
            Verdict::Ok,
            "lockdown is in force, and does not stop kernels from being loaded: this one was built without CONFIG_KEXEC_SIG",
        )
    } else if config.is_none() {
        (
            Verdict::Ok,
            "no lockdown; how this kernel was built (CONFIG_KEXEC_SIG_FORCE) cannot be told, but staging shows whether \
             it wants a signature",
        )
    } else {
        (Verdict::Ok, "no signature is demanded of the next kernel")
    };
    findings.say(verdict, "signature", format!("{sentence} ({boot})"));
    if policy::appraises(root) {
        let loads = plan.is_some_and(|plan| !plan.preload.starts_what_is_loaded());
        let why = "IMA appraises kernels that are loaded (/sys/kernel/security/ima/policy): the kernel's file needs its \
                   signature, and the copy in /run has none; what is preloaded is what is started";
        let (verdict, then) = if loads {
            (Verdict::Warn, ", and the hook is to load: stage without --preload no")
        } else {
            (Verdict::Info, ", so do not stage with --preload no")
        };
        findings.say(verdict, "ima", format!("{why}{then}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::tests::{answers, machine, says, says_when_asked, staged};
    use crate::machine::efi;
    use std::fs;

    #[test]
    fn a_kernel_that_has_not_the_call_is_bad_and_one_that_cannot_be_asked_is_not() {
        let scratch = machine();
        let with = |calls| Answers { calls, ..answers() };
        let calls = |file, segments| with(Some(Calls { file, segments, loads_into_cma: false }));
        let says =
            |answers: &Answers, verdict, words| says_when_asked(&scratch, answers, "calls", verdict, words);
        says(&calls(true, true), Verdict::Ok, "so is kexec_load(2)");
        says(&calls(true, false), Verdict::Ok, "kexec_load(2) is not");
        says(&calls(false, true), Verdict::Ok, "kexec_load(2) is there, and loads the next kernel");
        says(
            &calls(false, false),
            Verdict::Bad,
            "and the direct loader is no way round: this kernel was built",
        );
        let cma = |segments| with(Some(Calls { file: true, segments, loads_into_cma: true }));
        says(&cma(true), Verdict::Ok, "would load it into CMA");
        says(&cma(false), Verdict::Bad, "cannot be told not to, and the direct loader is no way round");
        scratch.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        says(&calls(true, true), Verdict::Ok, "is not for --loader direct and --thaw: lockdown");
        says(&calls(false, true), Verdict::Bad, "is no way round: lockdown is in force");
        fs::remove_file(scratch.root.path("/sys/kernel/security/lockdown")).unwrap();
        says(&with(None), Verdict::Info, "cannot be asked");
    }

    #[test]
    fn what_forbids_loading_is_told_with_what_is_left() {
        let scratch = machine();
        for (path, text, verdict, words) in [
            ("/proc/sys/kernel/kexec_load_limit_reboot", "5\n", Verdict::Info, "allows 5 more"),
            ("/proc/sys/kernel/kexec_load_limit_reboot", "1\n", Verdict::Warn, "allows 1 more"),
            ("/proc/sys/kernel/kexec_load_limit_reboot", "0\n", Verdict::Bad, "is spent"),
            (
                "/proc/sys/kernel/kexec_load_disabled",
                "1\n",
                Verdict::Bad,
                "nothing can be loaded: kernel.kexec_load_disabled",
            ),
            ("/proc/self/uid_map", "0 100000 65536\n", Verdict::Bad, "container"),
        ] {
            scratch.put(path, text);
            says(&scratch, "load", verdict, words);
            fs::remove_file(scratch.root.path(path)).unwrap_or_default();
        }
        scratch.put("/proc/sys/kernel/kexec_load_disabled", "1\n");
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        says(&scratch, "load", Verdict::Warn, "what is loaded now");
    }

    #[test]
    fn lockdown_secure_boot_and_a_kernel_that_demands_signatures_are_told_apart() {
        let scratch = machine();
        let signature = |verdict, words| says(&scratch, "signature", verdict, words);
        signature(Verdict::Ok, "cannot be told");
        scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
        scratch.put("/boot/config-6.12", "CONFIG_KEXEC_SIG=y\nCONFIG_IMA_ARCH_POLICY=y\n");
        signature(Verdict::Ok, "no signature is demanded of the next kernel (Secure Boot is off)");
        efi::tests::set_secure_boot(&scratch, 1);
        signature(Verdict::Info, "must be signed by a key that this one knows");
        scratch.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        signature(Verdict::Info, "lockdown is in force: only a kernel whose signature");
        signature(Verdict::Info, "(Secure Boot is on)");
        scratch.put("/boot/config-6.12", "# CONFIG_KEXEC_SIG is not set\n");
        signature(Verdict::Ok, "does not stop kernels");
        scratch.put("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
        scratch.put("/boot/config-6.12", "CONFIG_KEXEC_SIG_FORCE=y\n");
        signature(Verdict::Info, "must be signed");
    }

    #[test]
    fn where_ima_appraises_kernels_one_must_be_kept_loaded() {
        let scratch = machine();
        scratch.put(
            "/sys/kernel/security/ima/policy",
            "measure func=KEXEC_KERNEL_CHECK\nappraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n",
        );
        says(&scratch, "ima", Verdict::Info, "do not stage with --preload no");
        staged(&scratch, "preload = no");
        says(&scratch, "ima", Verdict::Warn, "the hook is to load");
    }
}
