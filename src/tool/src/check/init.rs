//! Whether the init runs the hook, and whether it switches to an exitrd at the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nextkernel_plan::{Jump, Plan};

use crate::check::answers::Answers;
use crate::check::finding::{Findings, Verdict};
use crate::machine::exitrd::{DIRECTORY, Found, Runs, SHUTDOWN, Whose};
use crate::machine::init::{Hooked, Init};
use crate::machine::layers::Layer;
use crate::machine::mounts::Mount;
use crate::machine::root::{HOOK, Root};
use crate::machine::systemd;
use crate::machine::uncovered::{self, Then};
use crate::request::conf::Conf;

/// Reports whether the hook is installed, and this init will run it.
pub(super) fn hook(root: &Root, findings: &mut Findings) {
    let init = Init::find(root);
    if init != Init::Systemd {
        let (verdict, sentence) = runs_it(root, &init);
        findings.say(verdict, "init", sentence);
    }
    let Ok(found) = root.path(HOOK).metadata() else {
        let why = format!("{HOOK} is missing: nothing would be done at night; install it there");
        findings.say(Verdict::Bad, "hook", why);
        return;
    };
    let mounts = Mount::all(root);
    let mount = Mount::over(&mounts, Path::new(HOOK));
    let passes = format!("{} passes it over", init.name());
    // systemd treats an empty file and /dev/null as switched off (`null_or_empty`, src/basic/stat-util.c).
    let (verdict, sentence) = if !found.is_file() || found.len() == 0 {
        (Verdict::Bad, format!("{HOOK} is empty or no file, and {passes}: install it again"))
    } else if found.permissions().mode() & 0o111 == 0 {
        (Verdict::Bad, format!("{HOOK} cannot be executed, and {passes}: chmod 755 {HOOK}"))
    } else if let Some(mount) = mount.filter(|mount| mount.is_noexec()) {
        let (point, name) = (mount.point.display(), init.name());
        let why = format!(
            "{HOOK} lies on {point}, which is mounted noexec: {name} cannot run it; remount that with exec"
        );
        (Verdict::Bad, why)
    } else if let Some(goes) = goes_away(root, &init) {
        goes
    } else if init == Init::Systemd {
        (Verdict::Ok, format!("{HOOK} is where systemd-shutdown runs it"))
    } else {
        (Verdict::Ok, format!("{HOOK} is there, and can be executed"))
    };
    findings.say(verdict, "hook", sentence);
}

/// Reports a hook that comes with a layer that systemd removes before it runs hooks. This does not matter if an
/// exitrd carries the hook.
fn goes_away(root: &Root, init: &Init) -> Option<(Verdict, String)> {
    if *init != Init::Systemd || matches!(Runs::look(root), Runs::Yes { carries: true }) {
        return None;
    }
    match uncovered::then(root, HOOK) {
        Then::Something => None,
        Then::Nothing { point, source } => {
            let (point, source) = (point.display(), source.display());
            let why = format!(
                "{HOOK} comes with what is mounted at {point} ({source}), which is gone when systemd runs hooks: nothing would \
                 be done at night; put it below that, or let an exitrd carry it (`nextkernel exitrd`)"
            );
            Some((Verdict::Bad, why))
        }
        Then::Unknown { point, why } => {
            let why = format!(
                "{HOOK} may come with what is mounted at {}, which is gone when systemd runs hooks: {why}",
                point.display()
            );
            Some((Verdict::Warn, why))
        }
    }
}

/// Returns whether an init other than systemd runs the hook, as a finding.
fn runs_it(root: &Root, init: &Init) -> (Verdict, String) {
    if let Init::Unknown(name) = init {
        let why = format!(
            "PID 1 is {name}, which is not known here: whether it runs the hook cannot be told; nextkernel-hook can \
             be PID 1 itself at the end (docs/boards.md)"
        );
        return (Verdict::Warn, why);
    }
    let name = init.name();
    match init.hooked(root) {
        Hooked::By(path) => (Verdict::Ok, format!("PID 1 is {name}, and {} runs the hook", path.display())),
        Hooked::NotExecutable(path) => {
            let path = path.display();
            (
                Verdict::Bad,
                format!("{name} cannot execute {path}, which would run the hook: chmod 755 {path}"),
            )
        }
        Hooked::Behind(line) => (
            Verdict::Bad,
            format!(
                "{name} executes `{line}`, the first such line of /etc/inittab, and not the later one that runs the \
                 hook: remove it"
            ),
        ),
        Hooked::No(place) => (
            Verdict::Bad,
            format!("PID 1 is {name}, and does not run the hook: it belongs there {place} (units/README.md)"),
        ),
    }
}

/// Reports what happens to the root at the jump: it is closed if an exitrd carries the hook, and otherwise only
/// read-only.
pub(super) fn exitrd(root: &Root, findings: &mut Findings) {
    let is_systemd = Init::find(root) == Init::Systemd;
    let layers = Layer::all(root);
    let unclosable = Layer::unclosable(root);
    let on = words(&layers);
    let left = on.as_ref().map_or_else(String::new, |on| {
        format!("; / lies on {on}, which at a jump is synced and read-only, but not closed")
    });
    let closed = on.as_ref().map_or_else(String::new, |on| format!(", and {on} below it closed"));
    let (found, runs) = (Found::look(root), Runs::look(root));
    let (verdict, sentence) = match (found, runs) {
        _ if !is_systemd => {
            // Only systemd switches to an exitrd.
            let Some(on) = on else { return };
            (
                Verdict::Info,
                format!("/ lies on {on}, which at a jump is synced and read-only, but not closed"),
            )
        }
        // An array may have been added since.
        (Found::Ours { .. }, _) if unclosable.is_some() => (
            Verdict::Warn,
            format!(
                "nextkernel's is ready at {DIRECTORY}, and cannot close {}: `nextkernel exitrd --remove`, and use your \
                 initramfs generator's with our module in it (initramfs/)",
                unclosable.map_or_else(String::new, |what| what.in_words())
            ),
        ),
        (Found::Ours { is_current: true }, Runs::Yes { .. }) => (
            Verdict::Ok,
            format!("nextkernel's is ready at {DIRECTORY}: before the jump / is unmounted{closed}"),
        ),
        (Found::Ours { .. }, _) => (
            Verdict::Warn,
            format!(
                "nextkernel's at {DIRECTORY} does not hold the hook that is installed: `nextkernel exitrd` renews it"
            ),
        ),
        (_, Runs::Noexec(point)) => (
            Verdict::Info,
            format!(
                "{SHUTDOWN} is there, and systemd passes it over in silence at every shutdown, for {point} is mounted \
                 noexec: mount {DIRECTORY} with exec if you want it{left}"
            ),
        ),
        (_, Runs::NotExecutable) => (
            Verdict::Info,
            format!("{SHUTDOWN} is there, and cannot be executed: systemd passes it over in silence{left}"),
        ),
        (found, Runs::Yes { carries: true }) => (
            Verdict::Ok,
            format!("{}, carries the hook: before the jump / is unmounted{closed}", whose(&found)),
        ),
        (found, Runs::Yes { carries: false }) => (
            Verdict::Warn,
            format!(
                "{}, does not carry the hook, and a handoff does not reach it: the hook on the host jumps before \
                 systemd would change into it{left}; put the hook into it (initramfs/)",
                whose(&found)
            ),
        ),
        (Found::Theirs(maker), Runs::Missing) => to_come(root, &maker, &left, &closed),
        (Found::Nothing, Runs::Missing) => {
            if on.is_none() {
                return;
            }
            let how = match unclosable {
                Some(_) => "your initramfs generator's, with our module in it, could (initramfs/)",
                None => "`systemctl enable --now nextkernel-exitrd` keeps one ready that closes it",
            };
            (Verdict::Info, format!("there is none{left}; {how}"))
        }
    };
    findings.say(verdict, "exitrd", sentence);
}

fn whose(found: &Found) -> String {
    let maker = match found {
        Found::Theirs(Whose::Dracut) => "dracut's",
        Found::Theirs(Whose::Mkinitcpio) => "mkinitcpio's",
        Found::Theirs(Whose::Nixos) => "NixOS's",
        _ => "somebody's",
    };
    format!("{maker}, {SHUTDOWN}")
}

/// Returns the finding for an exitrd that is made only when the machine goes down.
fn to_come(root: &Root, maker: &Whose, left: &str, closed: &str) -> (Verdict, String) {
    let (name, carries, how) = match maker {
        Whose::Dracut => ("dracut's", has_dracut_module(root), "initramfs/dracut"),
        Whose::Mkinitcpio => {
            let conf = fs::read_to_string(root.path(DIRECTORY).join("mkinitcpio-shutdown.conf"));
            ("mkinitcpio's", conf.is_ok_and(|conf| conf.contains("nextkernel")), "initramfs/mkinitcpio")
        }
        // Its contents depend on the configuration that the system was built from.
        Whose::Nixos => ("NixOS's", false, "initramfs/nixos"),
        Whose::Unknown(path) => {
            let why =
                format!("there is none, and {path}, which is not known here, lies where one would be{left}");
            return (Verdict::Info, why);
        }
    };
    if carries {
        let since = match maker {
            Whose::Dracut => {
                "; it is unpacked from the initramfs of the running kernel, made anew since? (dracut -f)"
            }
            _ => "",
        };
        let sentence = format!(
            "{name} is made at the shutdown, and is told to carry the hook: before the jump / is unmounted{closed}{since}"
        );
        return (Verdict::Info, sentence);
    }
    let sentence = format!(
        "{name} is made at the shutdown, and nothing here says that it carries the hook; without it the hook on the \
         host jumps before{left}; {how} puts it in"
    );
    (Verdict::Info, sentence)
}

fn has_dracut_module(root: &Root) -> bool {
    let modules = fs::read_dir(root.path("/usr/lib/dracut/modules.d")).into_iter().flatten().flatten();
    modules.filter_map(|entry| entry.file_name().into_string().ok()).any(|name| name.ends_with("nextkernel"))
}

/// Names the layers, each kind once; `None` if there are none.
fn words(layers: &[Layer]) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for layer in layers {
        let word = layer.in_words();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    (!words.is_empty()).then(|| words.join(" on "))
}

/// The device with which systemd keeps the file descriptors of services, so that they survive a kexec (LUO).
const LUO: &str = "/dev/liveupdate";

/// Reports which program jumps, and what is lost because of that.
pub(super) fn jump(
    root: &Root,
    answers: &Answers,
    plan: Option<&Plan<'_>>,
    conf: &Conf,
    findings: &mut Findings,
) {
    let jump = plan.map_or(conf.jump, |plan| plan.jump).unwrap_or(Jump::Hook);
    let hands_on = systemd::hands_descriptors_on(answers.systemd) && root.path(LUO).exists();
    let alone = match Found::look(root) {
        Found::Ours { .. } => Some("nextkernel's"),
        Found::Theirs(Whose::Dracut) => Some("dracut's"),
        _ => None,
    };
    let (verdict, sentence) = match jump {
        Jump::Init if Init::find(root) != Init::Systemd => {
            (Verdict::Warn, "jump = init is for systemd; this init makes no jump, and the hook does".to_owned())
        }
        Jump::Init if alone.is_some() => (
            Verdict::Warn,
            format!(
                "jump = init, and in {} exitrd there is no systemd: there the hook jumps all the same, and the file \
                 descriptors that systemd keeps for services are lost; do without that exitrd, or with jump = hook",
                alone.unwrap_or_default()
            ),
        ),
        Jump::Init if !hands_on => (
            Verdict::Info,
            "jump = init: systemd jumps after the hook; that gains nothing here, for this systemd hands no file \
             descriptors on (261 and later do, where the kernel has /dev/liveupdate)"
                .to_owned(),
        ),
        Jump::Init => (
            Verdict::Ok,
            "jump = init: systemd jumps after the hook, and hands on the file descriptors that it keeps".to_owned(),
        ),
        Jump::Hook if hands_on => (
            Verdict::Info,
            "the hook jumps, and the file descriptors that this systemd would hand on to the next kernel (LUO) are \
             lost; jump = init keeps them"
                .to_owned(),
        ),
        Jump::Hook => return,
    };
    findings.say(verdict, "jump", sentence);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::{answers, executable, finding, machine, says, says_when_asked};
    use crate::machine::scratch::Scratch;

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
    fn an_init_is_asked_whether_it_runs_the_hook_where_that_one_looks() {
        let scratch = machine();
        assert!(finding(&scratch, &answers(), "init").is_none());
        std::fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap_or_default();
        scratch.put("/proc/1/comm", "minit\n");
        says(&scratch, "init", Verdict::Warn, "PID 1 is minit, which is not known here");
        scratch.put("/proc/1/comm", "openrc-init\n");
        let place = "does not run the hook: it belongs there as a service of the runlevel shutdown";
        says(&scratch, "init", Verdict::Bad, place);
        let service = "/etc/runlevels/shutdown/nextkernel";
        scratch.put(service, "");
        says(&scratch, "init", Verdict::Bad, &format!("chmod 755 {service}"));
        executable(&scratch, service);
        says(&scratch, "init", Verdict::Ok, &format!("PID 1 is openrc-init, and {service} runs the hook"));
        says(&scratch, "hook", Verdict::Ok, "is there, and can be executed");
    }

    #[test]
    fn a_restart_line_before_the_hooks_is_named() {
        let scratch = machine();
        std::fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap_or_default();
        scratch.put("/proc/1/comm", "busybox\n");
        scratch.put("/etc/inittab", &format!("::restart:/sbin/init\n::restart:{HOOK} kexec\n"));
        says(&scratch, "init", Verdict::Bad, "busybox init executes `::restart:/sbin/init`, the first");
    }

    /// A machine whose root is an encrypted volume, with /run mounted with these options.
    fn encrypted(run: &str) -> Scratch {
        let scratch = machine();
        scratch.put("/sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
        scratch.link("/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
        mounted(&scratch, run, "");
        scratch
    }

    fn mounted(scratch: &Scratch, run: &str, more: &str) {
        let root = "22 1 253:0 / / ro - xfs /dev/mapper/root ro";
        scratch.put(
            "/proc/self/mountinfo",
            &format!("{root}\n23 22 0:20 / /run {run} - tmpfs tmpfs rw\n{more}"),
        );
    }

    const OURS: &str = "24 23 0:21 / /run/initramfs rw,nosuid,nodev - tmpfs nextkernel rw\n";
    const OPEN: &str =
        "/ lies on an encrypted volume, which at a jump is synced and read-only, but not closed";

    #[test]
    fn what_the_root_lies_on_and_what_would_close_it_is_told() {
        let scratch = machine();
        scratch.put("/proc/self/mountinfo", "22 1 8:1 / / ro - xfs /dev/sda1 ro\n");
        assert!(finding(&scratch, &answers(), "exitrd").is_none());
        let scratch = encrypted("rw,noexec");
        says(&scratch, "exitrd", Verdict::Info, OPEN);
        says(&scratch, "exitrd", Verdict::Info, "`systemctl enable --now nextkernel-exitrd` keeps one ready");
        scratch.put("/sys/block/md127/md/metadata_version", "external:imsm\n");
        says(&scratch, "exitrd", Verdict::Info, "your initramfs generator's");
        std::fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap_or_default();
        let elsewhere =
            finding(&scratch, &answers(), "exitrd").map(|(_, sentence)| sentence).unwrap_or_default();
        assert!(elsewhere.contains("not closed") && !elsewhere.contains("there is none"), "{elsewhere}");
    }

    #[test]
    fn with_our_exitrd_the_root_is_closed_and_an_older_hook_in_it_is_told() {
        let scratch = encrypted("rw,noexec");
        mounted(&scratch, "rw,noexec", OURS);
        executable(&scratch, SHUTDOWN);
        says(
            &scratch,
            "exitrd",
            Verdict::Ok,
            "before the jump / is unmounted, and an encrypted volume below it closed",
        );
        scratch.put(SHUTDOWN, "an older program");
        says(&scratch, "exitrd", Verdict::Warn, "`nextkernel exitrd` renews it");
        scratch.put("/sys/block/md127/md/metadata_version", "external:imsm\n");
        says(&scratch, "exitrd", Verdict::Warn, "cannot close md127, an array that mdmon(8) looks after");
    }

    #[test]
    fn somebody_elses_exitrd_is_told_with_what_it_means_for_a_handoff() {
        let scratch = encrypted("rw,noexec");
        executable(&scratch, SHUTDOWN);
        says(&scratch, "exitrd", Verdict::Info, "in silence at every shutdown, for /run is mounted noexec");
        mounted(&scratch, "rw", "");
        says(
            &scratch,
            "exitrd",
            Verdict::Warn,
            "the hook on the host jumps before systemd would change into it",
        );
        says(&scratch, "exitrd", Verdict::Warn, OPEN);
        executable(&scratch, "/run/initramfs/usr/lib/systemd/system-shutdown/nextkernel");
        says(&scratch, "exitrd", Verdict::Ok, "carries the hook: before the jump / is unmounted");
        scratch.put(SHUTDOWN, "");
        std::fs::set_permissions(scratch.root.path(SHUTDOWN), std::fs::Permissions::from_mode(0o644))
            .unwrap_or_default();
        says(&scratch, "exitrd", Verdict::Info, "cannot be executed");
    }

    #[test]
    fn an_exitrd_that_is_only_made_at_the_shutdown_is_judged_by_what_it_is_told_to_carry() {
        let scratch = encrypted("rw");
        scratch.put("/run/initramfs/.need_shutdown", "");
        says(&scratch, "exitrd", Verdict::Info, "dracut's is made at the shutdown, and nothing here says");
        scratch.directory("/usr/lib/dracut/modules.d/90nextkernel");
        says(
            &scratch,
            "exitrd",
            Verdict::Info,
            "dracut's is made at the shutdown, and is told to carry the hook",
        );
        let conf = "/run/initramfs/mkinitcpio-shutdown.conf";
        scratch.put(conf, "HOOKS=(sd-shutdown)\n");
        says(&scratch, "exitrd", Verdict::Info, "initramfs/mkinitcpio puts it in");
        scratch.put(conf, "HOOKS=(sd-shutdown)\nHOOKS+=(nextkernel)\n");
        says(&scratch, "exitrd", Verdict::Info, "mkinitcpio's is made at the shutdown, and is told to carry");
    }

    #[test]
    fn who_jumps_and_what_is_lost_by_it_is_told() {
        let scratch = machine();
        let answers = Answers { systemd: Some(261), ..answers() };
        assert!(finding(&scratch, &answers, "jump").is_none());
        scratch.put(LUO, "");
        says_when_asked(&scratch, &answers, "jump", Verdict::Info, "jump = init keeps them");
        scratch.put(crate::request::conf::PATH, "jump = init\n");
        says_when_asked(&scratch, &answers, "jump", Verdict::Ok, "hands on the file descriptors");
        mounted(&scratch, "rw", OURS);
        says_when_asked(&scratch, &answers, "jump", Verdict::Warn, "there the hook jumps all the same");
        mounted(&scratch, "rw", "");
        scratch.put("/run/initramfs/.need_shutdown", "");
        says_when_asked(&scratch, &answers, "jump", Verdict::Warn, "in dracut's exitrd there is no systemd");
        std::fs::remove_dir_all(scratch.root.path("/run/initramfs")).unwrap_or_default();
        let answers = Answers { systemd: Some(257), ..answers };
        says_when_asked(&scratch, &answers, "jump", Verdict::Info, "gains nothing here");
        std::fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap_or_default();
        says_when_asked(&scratch, &answers, "jump", Verdict::Warn, "is for systemd");
    }
}
