//! The traces of the firmware and the boot loader, and the state that a jump does not renew.

use std::fs;
use std::path::Path;

use nextkernel_plan::Plan;

use crate::check::finding::{Findings, Verdict};
use crate::entries::subvolume;
use crate::image::cmdline;
use crate::machine::attach::POINTS;
use crate::machine::hypervisor::Hypervisor;
use crate::machine::root::Root;
use crate::machine::{efi, luks, processor};
use crate::report::history::History;
use crate::report::known;
use crate::report::words::Date;
use crate::request::conf::Conf;
use crate::request::firmware::Requests;
use crate::staging::origin::Origin;

/// Reports a hypervisor that forbids a jump, or may hang at one.
pub(super) fn hypervisor(root: &Root, findings: &mut Findings) {
    if let Some(hypervisor) = Hypervisor::find(root) {
        let verdict = if hypervisor.forbids_the_jump() { Verdict::Bad } else { Verdict::Warn };
        findings.say(verdict, "hypervisor", hypervisor.in_words());
    }
}

/// Marks of a guest whose memory the host cannot read: the devices through which a guest requests a report of
/// itself (`drivers/virt/coco`). The other mark is the processor's flag (arch/x86/include/asm/cpufeatures.h).
const CONFIDENTIAL: [(&str, &str); 2] =
    [("TDX", "/sys/class/misc/tdx_guest"), ("SEV-SNP", "/sys/class/misc/sev-guest")];

/// Warns about a confidential guest, whose shared pages must become private again before a jump.
pub(super) fn confidential(root: &Root, findings: &mut Findings) {
    let is_flagged = processor::flags(root).split_ascii_whitespace().any(|flag| flag == "tdx_guest");
    let by_device = CONFIDENTIAL.iter().find(|(_, device)| root.path(device).exists()).map(|(name, _)| *name);
    if let Some(name) = by_device.or(is_flagged.then_some("TDX")) {
        let why = format!(
            "this is a confidential guest ({name}): older kernels do not take back what they share with the host, and freeze at a \
             jump (canonical/tdx, issue 204); and what was measured at its launch stays that of the first kernel; try it once \
             with a console at hand"
        );
        findings.say(Verdict::Warn, "confidential", why);
    }
}

/// Reports requests for the firmware at the next restart. The hook then does a full reboot.
pub(super) fn firmware(root: &Root, conf: &Conf, plan: Option<&Plan<'_>>, findings: &mut Findings) {
    let Requests { found, unread } = Requests::find(root, conf, plan);
    for request in found {
        let so = format!("the next restart goes through the firmware, whatever is staged: {request}");
        findings.say(Verdict::Bad, "firmware", so);
    }
    if let Some(error) = unread {
        let so =
            format!("whether somebody asks for the firmware at the next restart cannot be told: {error}");
        findings.say(Verdict::Warn, "firmware", so);
    } else if root.path("/sys/firmware/efi").is_dir() && !efi::are_there(root) {
        let so = "whether somebody asks for the firmware at the next restart cannot be told: its variables are not mounted \
                  (mount -t efivarfs efivarfs /sys/firmware/efi/efivars); the hook mounts them";
        findings.say(Verdict::Warn, "firmware", so);
    }
}

/// Reports failed handoffs that nobody has acknowledged.
pub(super) fn handoffs(root: &Root, conf: &Conf, findings: &mut Findings) {
    let most = conf.handoff_failed.map(usize::from);
    let failed = match known::failed(root) {
        Ok(failed) => failed,
        Err(error) => return findings.say(Verdict::Warn, "handoffs", error.to_string()),
    };
    if let Some(last) = failed.first() {
        let (verdict, then) = match most {
            Some(most) if failed.len() >= most => (Verdict::Bad, "nothing is staged until then"),
            _ => (Verdict::Warn, "the next may fail, too"),
        };
        let why = format!(
            "{}: the firmware started this machine on {} UTC, and nothing was kept of a next system in between; {then}; \
             `nextkernel report --history` shows them, and `nextkernel report --seen` makes them count no more",
            known::so_many_failed(failed.len()),
            Date(last.started_at)
        );
        findings.say(verdict, "handoffs", why);
    } else if most.is_some() && History::read(root).is_ok_and(|history| history.boots.is_empty()) {
        let why = "`handoff-failed` is set, and no boot is kept yet: nextkernel-report.service does that, once it is enabled";
        findings.say(Verdict::Warn, "handoffs", why);
    }
}

/// Reports if another btrfs subvolume is the default one now: the next restart is meant to start that one's
/// kernel.
pub(super) fn snapshot(root: &Root, plan: &Plan<'_>, findings: &mut Findings) {
    if subvolume::is_named(plan.cmdline) {
        return;
    }
    let Ok(Some((current, default))) = subvolume::other_than_default(root, Path::new("/boot")) else {
        return;
    };
    let was_named = Origin::staged(root).is_some_and(|known| known.origin.request.is_named());
    let verdict = if was_named { Verdict::Warn } else { Verdict::Bad };
    let why = format!(
        "what is staged is from the subvolume {current}, which runs now, and the next restart takes the default one, {default}: \
         `nextkernel reboot --full` goes there, and `nextkernel stage ENTRY` says that this one is meant"
    );
    findings.say(verdict, "snapshot", why);
}

/// The deployment for which ostree writes a boot entry while the system goes down, after everything that was
/// chosen before (ostree-finalize-staged.service; `_OSTREE_SYSROOT_RUNSTATE_STAGED`).
const STAGED_DEPLOYMENT: &str = "/run/ostree/staged-deployment";

/// Reports a deployment that is written at shutdown, unless it is locked. The next restart is meant to start
/// it, and the files that an older entry names may be deleted.
pub(super) fn deployment(root: &Root, findings: &mut Findings) {
    let is_locked = root.path(format!("{STAGED_DEPLOYMENT}-locked")).exists();
    if root.path(STAGED_DEPLOYMENT).exists() && !is_locked {
        let why = format!(
            "a deployment is staged ({STAGED_DEPLOYMENT}), whose boot entry is written as the system goes down: nothing that is \
             staged now starts it, and what it names may be gone by then; `nextkernel reboot --full` starts the deployment, \
             `ostree admin undeploy 0` (`rpm-ostree cleanup --pending`) takes it back"
        );
        findings.say(Verdict::Bad, "deployment", why);
    }
}

/// Reports on an entry that is on trial. `LoaderBootCountPath` names its file as it was when the firmware
/// started it. It still does so after a jump, when systemd-bless-boot would mark that entry good because of
/// another kernel's boot (`verb_set`, src/bless-boot/bless-boot.c).
pub(super) fn counting(root: &Root, findings: &mut Findings) {
    let path = match efi::text(root, "LoaderBootCountPath") {
        Ok(Some(path)) => path.replace('\\', "/"),
        Ok(None) => return,
        Err(error) => {
            findings.say(Verdict::Info, "boot counting", error.to_string());
            return;
        }
    };
    let relative = path.trim_start_matches('/');
    let is_there = |name: &str| POINTS.iter().any(|point| root.path(point).join(name).exists());
    if is_there(relative) {
        let why = format!(
            "{path} is on trial and not blessed yet: behind a jump systemd-bless-boot would call it good, whatever \
             kernel runs then; wait until `systemctl is-active systemd-bless-boot` says so, or bless it yourself \
             (/usr/lib/systemd/systemd-bless-boot good)"
        );
        findings.say(Verdict::Warn, "boot counting", why);
    } else if blessed(relative).is_some_and(|name| is_there(&name)) {
        let good = "the entry that the boot loader started is blessed; the next kernel's is not counted, for only the \
                    boot loader counts";
        findings.say(Verdict::Ok, "boot counting", good);
    } else {
        let directory = Path::new(relative).parent().unwrap_or(Path::new(""));
        let mounted =
            POINTS.iter().map(|point| Path::new(point).join(directory)).find(|seen| root.path(seen).is_dir());
        // An update removes the entry of the running kernel, too.
        let (verdict, why) = match mounted {
            Some(seen) => (
                Verdict::Warn,
                format!(
                    "gone from {}: behind a jump systemd-bless-boot.service fails for want of it, and the next system counts \
                     as degraded; a restart through the firmware ends that (`nextkernel reboot --full`)",
                    seen.display()
                ),
            ),
            None => (
                Verdict::Info,
                format!(
                    "not found now: mount its partition to see whether it is blessed ({})",
                    POINTS.join(", ")
                ),
            ),
        };
        let why = format!("{path} was on trial when the boot loader started it, and is {why}");
        findings.say(verdict, "boot counting", why);
    }
}

/// Returns the name without the counter: `x.conf` for `x+2-1.conf`.
fn blessed(counted: &str) -> Option<String> {
    let (stem, suffix) = counted.rsplit_once('.')?;
    let (name, _) = stem.rsplit_once('+')?;
    Some(format!("{name}.{suffix}"))
}

/// Warns about volumes that the TPM unlocks: a jump neither resets the TPM's registers nor makes the
/// measurements of a boot (systemd-cryptenroll(1), systemd-pcrphase(8)).
pub(super) fn tpm(root: &Root, plan: Option<&Plan<'_>>, findings: &mut Findings) {
    let crypttab = fs::read_to_string(root.path("/etc/crypttab")).unwrap_or_default();
    let mut bound: Vec<String> = Vec::new();
    for line in crypttab.lines().map(str::trim_ascii).filter(|line| !line.starts_with('#')) {
        let mut fields = line.split_ascii_whitespace();
        let (name, options) = (fields.next().unwrap_or_default(), fields.nth(2).unwrap_or_default());
        if by_tpm(options) {
            bound.push(format!("{name} in /etc/crypttab"));
        }
    }
    let running = cmdline::running(root).unwrap_or_default();
    let line = plan.map_or(running.as_str(), |plan| plan.cmdline);
    let named = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        matches!(name, "rd.luks.options" | "luks.options") && by_tpm(parameter)
    };
    bound.extend(cmdline::parameters(line).filter(named).map(|it| format!("{it} on the command line")));
    bound.extend(luks::unlocked_by_tpm(root));
    if !bound.is_empty() {
        let why = format!(
            "the TPM unlocks a volume here ({}), and a jump does not reset its registers: bound to PCR 7 alone it is \
             unlocked again, bound to 11 or to the signed policy of a unified kernel image it is not; have a passphrase \
             or a recovery key at hand, and on a machine that nobody is near use `reboot`",
            bound.join(", ")
        );
        findings.say(Verdict::Warn, "tpm", why);
    }
}

/// Warns if dracut will not find the kernel in FIPS mode. It verifies the kernel before the boot goes on, and
/// finds it by a parameter that boot loaders add (its module fips; dracut's issue 1539).
pub(super) fn fips(root: &Root, plan: Option<&Plan<'_>>, findings: &mut Findings) {
    let Some(plan) = plan.filter(|_| root.path("/usr/lib/dracut").is_dir()) else { return };
    let lies_where_dracut_looks = plan.kernel_from.is_some_and(|path| path.starts_with("/boot/vmlinuz-"));
    if cmdline::value(plan.cmdline, "fips") == Some("1")
        && !lies_where_dracut_looks
        && cmdline::value(plan.cmdline, "BOOT_IMAGE").is_none()
    {
        let why = "fips=1 is on the next kernel's line, and BOOT_IMAGE= is not, which boot loaders add: dracut finds the kernel \
                   by it where it does not lie in /boot itself, as with ostree, and ends the boot otherwise; stage with --append \
                   BOOT_IMAGE=PATH, which is the kernel's path on /boot";
        findings.say(Verdict::Warn, "fips", why);
    }
}

fn by_tpm(options: &str) -> bool {
    let device = options.split("tpm2-device=").nth(1).unwrap_or_default();
    !device.is_empty() && !device.starts_with(',')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::tests::{answers, finding, machine, says, staged};
    use crate::report;
    use crate::request::stage::{LineFrom, StageRequest, Target};
    use crate::staging::stage;

    #[test]
    fn a_hypervisor_that_forbids_the_jump_is_bad_and_one_that_may_hang_is_a_warning() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "hypervisor").is_none());
        scratch.put("/sys/class/dmi/id/sys_vendor", "Google\n");
        scratch.put("/sys/class/dmi/id/product_name", "Google Compute Engine\n");
        says(&scratch, "hypervisor", Verdict::Warn, "reported to hang");
        scratch.put("/sys/hypervisor/type", "xen\n");
        says(&scratch, "hypervisor", Verdict::Warn, "soft reset");
        scratch.put("/sys/hypervisor/guest_type", "PV\n");
        says(&scratch, "hypervisor", Verdict::Bad, "use `reboot`");
    }

    #[test]
    fn a_confidential_guest_is_told() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "confidential").is_none());
        scratch.put("/proc/cpuinfo", "flags\t\t: fpu tdx_guest\n");
        says(&scratch, "confidential", Verdict::Warn, "(TDX)");
        scratch.put("/proc/cpuinfo", "flags\t\t: fpu sev_snp\n");
        assert!(finding(&scratch, &answers(), "confidential").is_none(), "a host");
        scratch.directory("/sys/class/misc/sev-guest");
        says(&scratch, "confidential", Verdict::Warn, "(SEV-SNP)");
    }

    #[test]
    fn a_request_for_the_firmware_is_bad_and_named() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "firmware").is_none());
        crate::machine::efi::tests::put_global(&scratch, "BootNext", &[2, 0]);
        says(&scratch, "firmware", Verdict::Bad, "`efibootmgr --delete-bootnext` takes it back");
        let scratch = machine();
        scratch.directory("/sys/firmware/efi/efivars");
        says(&scratch, "firmware", Verdict::Warn, "its variables are not mounted");
    }

    #[test]
    fn a_handoff_that_failed_is_told_until_somebody_has_seen_it() {
        use crate::report::boot::Boot;
        use crate::report::boot::tests::firmware;
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "handoffs").is_none());
        scratch.put("/etc/nextkernel.conf", "handoff-failed = 2");
        says(&scratch, "handoffs", Verdict::Warn, "nextkernel-report.service does that");
        let failed = |id: u8| Boot {
            boot_id: format!("{id}f0e0d0c-0b0a-0908-0706-050403020100"),
            failed: Some("00000000000000a7".to_owned()),
            ..firmware()
        };
        let mut history = History::default();
        history.push(firmware());
        history.push(failed(2));
        history.write(&scratch.root).unwrap();
        says(&scratch, "handoffs", Verdict::Warn, "a handoff failed: the firmware");
        history.push(failed(3));
        history.write(&scratch.root).unwrap();
        says(&scratch, "handoffs", Verdict::Bad, "2 handoffs in a row failed");
        let request = StageRequest {
            target: Target::Files { kernel: "/k".into(), initrds: Vec::new() },
            line: LineFrom::Given("x".to_owned()),
            ..StageRequest::default()
        };
        let refused = stage::stage(&scratch.root, &request, None).unwrap_err().to_string();
        assert!(refused.starts_with("2 handoffs in a row failed"), "{refused}");
        report::history::see(&scratch.root, &failed(3).boot_id).unwrap();
        assert!(finding(&scratch, &answers(), "handoffs").is_none());
    }

    #[test]
    fn a_deployment_that_is_written_at_shutdown_is_bad() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "deployment").is_none());
        scratch.put(STAGED_DEPLOYMENT, "x");
        says(&scratch, "deployment", Verdict::Bad, "whose boot entry is written as the system goes down");
        scratch.put("/run/ostree/staged-deployment-locked", "");
        assert!(finding(&scratch, &answers(), "deployment").is_none());
    }

    #[test]
    fn an_entry_on_trial_is_told_until_it_is_blessed() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "boot counting").is_none());
        efi::tests::set(&scratch, "LoaderBootCountPath", &["\\loader\\entries\\arch+2-1.conf"]);
        says(&scratch, "boot counting", Verdict::Info, "mount its partition");
        scratch.put("/efi/loader/entries/arch+2-1.conf", "");
        says(
            &scratch,
            "boot counting",
            Verdict::Warn,
            "/loader/entries/arch+2-1.conf is on trial and not blessed yet",
        );
        let entries = scratch.root.path("/efi/loader/entries");
        let _ = fs::rename(entries.join("arch+2-1.conf"), entries.join("arch.conf"));
        says(&scratch, "boot counting", Verdict::Ok, "is blessed");
        let _ = fs::remove_file(entries.join("arch.conf"));
        says(&scratch, "boot counting", Verdict::Warn, "is gone from /efi/loader/entries");
    }

    #[test]
    fn in_fips_mode_what_a_boot_loader_adds_is_missed() {
        let scratch = machine();
        scratch.directory("/usr/lib/dracut");
        let stage = |line: &str| {
            staged(&scratch, "preload = yes");
            let plan = fs::read_to_string(scratch.root.path("/run/nextkernel/plan")).unwrap_or_default();
            scratch.put("/run/nextkernel/plan", &plan.replace("root=x panic=7", line));
        };
        for (line, is_told) in
            [("fips=1", true), ("fips=1 BOOT_IMAGE=/k", false), ("fips=0", false), ("quiet", false)]
        {
            stage(line);
            assert_eq!(finding(&scratch, &answers(), "fips").is_some(), is_told, "{line}");
        }
    }

    #[test]
    fn a_volume_that_the_tpm_unlocks_is_told_wherever_it_is_said() {
        let scratch = machine();
        scratch.put(
            "/etc/crypttab",
            "# root x none tpm2-device=auto\nswap /dev/sda2 /dev/urandom swap\na b - luks,tpm2-device=\n",
        );
        assert!(finding(&scratch, &answers(), "tpm").is_none());
        scratch.put("/etc/crypttab", "root UUID=5f3a none luks,tpm2-device=auto,discard\n");
        says(&scratch, "tpm", Verdict::Warn, "(root in /etc/crypttab)");
        scratch.put("/etc/crypttab", "");
        scratch.put("/proc/cmdline", "root=x rd.luks.options=tpm2-device=auto panic=30\n");
        says(&scratch, "tpm", Verdict::Warn, "recovery key");
        // The staged kernel has a command line of its own.
        staged(&scratch, "preload = yes");
        assert!(finding(&scratch, &answers(), "tpm").is_none());
    }
}
