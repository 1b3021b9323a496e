//! Whether the init runs the hook, and what else it would run at the end.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Findings, Verdict};
use crate::mounts::Mount;
use crate::root::{HOOK, Root};

/// Where systemd looks for an exitrd (systemd-shutdown(8), bootup(7)).
const EXITRD: &str = "/run/initramfs/shutdown";

/// The hook stands where this init will run it.
pub(super) fn hook(root: &Root, findings: &mut Findings) {
    if !root.runs_systemd() {
        let init = root.fact("/proc/1/comm").unwrap_or_else(|| "unknown".to_owned());
        let why = format!(
            "PID 1 is {init}, and not systemd: that init is not supported yet, and does not run the hook; \
             nextkernel-hook can be PID 1 itself at the end (docs/night.md)"
        );
        findings.say(Verdict::Warn, "init", why);
    }
    let Ok(found) = root.path(HOOK).metadata() else {
        let why = format!("{HOOK} is missing: nothing would be done at night; install it there");
        findings.say(Verdict::Bad, "hook", why);
        return;
    };
    let mounts = Mount::all(root);
    let mount = Mount::over(&mounts, Path::new(HOOK));
    // systemd takes an empty file, and /dev/null, for one that is switched off (`null_or_empty`,
    // src/basic/stat-util.c).
    let (verdict, sentence) = if !found.is_file() || found.len() == 0 {
        (Verdict::Bad, format!("{HOOK} is empty or no file, and systemd passes it over: install it again"))
    } else if found.permissions().mode() & 0o111 == 0 {
        (Verdict::Bad, format!("{HOOK} cannot be executed, and systemd passes it over: chmod 755 {HOOK}"))
    } else if let Some(mount) = mount.filter(|mount| mount.is_noexec()) {
        let point = mount.point.display();
        (
            Verdict::Bad,
            format!(
                "{HOOK} lies on {point}, which is mounted noexec: systemd cannot run it; remount that with exec"
            ),
        )
    } else {
        (Verdict::Ok, format!("{HOOK} is where systemd-shutdown runs it"))
    };
    findings.say(verdict, "hook", sentence);
}

/// What becomes of the root at the end: an exitrd would close it, and is not reached by a handoff yet
/// (docs/night.md).
pub(super) fn exitrd(root: &Root, findings: &mut Findings) {
    let below = Below::find(root);
    let root_is = below.map_or(String::new(), |below| {
        format!("; / lies on {}, which at a jump is synced and read-only, but not closed", below.in_words())
    });
    let Ok(found) = root.path(EXITRD).metadata() else {
        if below.is_some() {
            let why = format!("no exitrd ({EXITRD}){root_is}");
            findings.say(Verdict::Info, "exitrd", why);
        }
        return;
    };
    let mounts = Mount::all(root);
    let noexec = Mount::over(&mounts, Path::new(EXITRD)).filter(|mount| mount.is_noexec());
    let carries = root.path("/run/initramfs").join(HOOK.trim_start_matches('/')).exists();
    let sentence = if let Some(mount) = noexec {
        format!(
            "{EXITRD} is there, and systemd passes it over in silence at every shutdown, for {} is mounted noexec: \
             mount /run/initramfs with exec if you want it{root_is}",
            mount.point.display()
        )
    } else if found.permissions().mode() & 0o111 == 0 {
        format!("{EXITRD} is there, and cannot be executed: systemd passes it over in silence{root_is}")
    } else {
        let with = if carries { ", although it carries the hook, too" } else { "" };
        format!(
            "{EXITRD} is there, and a handoff does not reach it yet{with}: the hook jumps before systemd would change \
             into it; other ways down do{root_is}"
        )
    };
    findings.say(Verdict::Info, "exitrd", sentence);
}

/// What the root lies on that would have to be closed.
#[derive(Clone, Copy)]
enum Below {
    Lvm,
    Encrypted,
    Mapped,
    Array,
}

impl Below {
    fn find(root: &Root) -> Option<Below> {
        let mounts = Mount::all(root);
        let mount = Mount::at(&mounts, Path::new("/"))?;
        let device = root.path("/sys/dev/block").join(&mount.device).canonicalize().unwrap_or_default();
        // btrfs counts devices of its own; of these the node's name tells.
        let from = mount.source.strip_prefix("/dev").map(Path::to_path_buf).unwrap_or_default();
        let names: Vec<_> = device.iter().chain(from.iter()).filter_map(|name| name.to_str()).collect();
        let starts = |prefix| {
            names.iter().any(|name: &&str| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest: &str| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
        };
        if starts("dm-") || names.contains(&"mapper") {
            let uuid = std::fs::read_to_string(device.join("dm/uuid")).unwrap_or_default();
            return Some(match uuid.split('-').next() {
                Some("LVM") => Below::Lvm,
                Some("CRYPT") => Below::Encrypted,
                _ => Below::Mapped,
            });
        }
        starts("md").then_some(Below::Array)
    }

    fn in_words(self) -> &'static str {
        match self {
            Below::Lvm => "LVM",
            Below::Encrypted => "an encrypted volume",
            Below::Mapped => "a mapped device",
            Below::Array => "an array",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, executable, finding, machine, says};
    use super::*;

    #[test]
    fn a_hook_that_the_init_would_not_run_is_told_with_the_reason() {
        let scratch = machine();
        says(&scratch, "hook", Verdict::Ok, "is where systemd-shutdown runs it");
        scratch.put("/proc/self/mountinfo", "22 1 8:1 / /usr ro,noexec - ext4 /dev/sda1 ro\n");
        says(&scratch, "hook", Verdict::Bad, "noexec");
        let hook = scratch.root.path(HOOK);
        let mode = |mode| std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(mode));
        mode(0o644).unwrap_or_default();
        says(&scratch, "hook", Verdict::Bad, "chmod 755");
        mode(0o755).unwrap_or_default();
        scratch.put(HOOK, "");
        says(&scratch, "hook", Verdict::Bad, "is empty");
        std::fs::remove_file(&hook).unwrap_or_default();
        says(&scratch, "hook", Verdict::Bad, "is missing: nothing would be done at night");
    }

    #[test]
    fn an_init_that_runs_no_hook_is_named() {
        let scratch = machine();
        assert!(finding(&scratch, &asked(), "init").is_none());
        std::fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap_or_default();
        scratch.put("/proc/1/comm", "runit\n");
        says(&scratch, "init", Verdict::Warn, "PID 1 is runit, and not systemd");
    }

    #[test]
    fn what_the_root_lies_on_and_whether_an_exitrd_would_close_it_is_told() {
        let scratch = machine();
        let mounts = |device: &str, source: &str| {
            let run = "23 22 0:20 / /run rw,noexec - tmpfs tmpfs rw";
            let text = format!("22 1 {device} / / ro - xfs {source} ro\n{run}\n");
            scratch.put("/proc/self/mountinfo", &text);
        };
        mounts("8:1", "/dev/sda1");
        assert!(finding(&scratch, &asked(), "exitrd").is_none());
        scratch.put("/sys/devices/virtual/block/dm-0/dm/uuid", "LVM-abc\n");
        scratch.link("/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
        mounts("253:0", "/dev/mapper/vg-root");
        says(
            &scratch,
            "exitrd",
            Verdict::Info,
            "/ lies on LVM, which at a jump is synced and read-only, but not closed",
        );
        scratch.put("/sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
        says(&scratch, "exitrd", Verdict::Info, "/ lies on an encrypted volume");
        mounts("9:0", "/dev/md127");
        says(&scratch, "exitrd", Verdict::Info, "/ lies on an array");
        mounts("0:30", "/dev/mapper/root");
        says(&scratch, "exitrd", Verdict::Info, "/ lies on a mapped device");
        executable(&scratch, EXITRD);
        says(&scratch, "exitrd", Verdict::Info, "in silence at every shutdown, for /run is mounted noexec");
        scratch.put("/proc/self/mountinfo", "22 1 8:1 / / ro - xfs /dev/sda1 ro\n");
        says(&scratch, "exitrd", Verdict::Info, "a handoff does not reach it yet: the hook jumps");
        executable(&scratch, "/run/initramfs/usr/lib/systemd/system-shutdown/nextkernel");
        says(&scratch, "exitrd", Verdict::Info, "although it carries the hook");
        scratch.put("/run/initramfs/shutdown", "");
        std::fs::set_permissions(scratch.root.path(EXITRD), std::fs::Permissions::from_mode(0o644))
            .unwrap_or_default();
        says(&scratch, "exitrd", Verdict::Info, "cannot be executed");
    }
}
