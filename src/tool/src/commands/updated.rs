//! The updated command, which the triggers of package managers call after an update. If the administrator has
//! configured that, it stages the new kernel. A kernel that was staged from files that have changed is staged
//! again or unstaged.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use crate::entries::entry::{self, Entry, EntryKind};
use crate::entries::survey::Survey;
use crate::machine::elsewhere::see_that_this_is_the_system;
use crate::machine::root::Root;
use crate::machine::superuser::is_root;
use crate::request::choices::OnVerb;
use crate::request::conf::{Conf, OnUpdate};
use crate::request::stage::{StageRequest, Target};
use crate::staging::origin::{Known, Origin, Original};
use crate::staging::unstage::{self, Condition};
use crate::staging::{order, stage};
use crate::words::say;

/// The time for which files must not change before they count as complete. A kernel and its initrd are written
/// one after the other.
const REST: Duration = Duration::from_secs(2);

/// The number of waits, and the number of new attempts if files change in between.
const ROUNDS: usize = 30;

/// Tell that kernels or initrds were updated
///
/// What package managers' hooks call; docs/updates.md tells which. What is staged from files that have changed since
/// is staged again by the same wish, or unstaged where that fails; what is staged of a kernel that was removed is
/// unstaged. With `stage-on-update` in /etc/nextkernel.conf the kernel is staged that the boot loader would then boot,
/// or VERSION where that cannot be told. The exit status is 0 whatever comes of it, for the package manager's sake: a
/// line on standard error tells.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// The version of the kernel that was installed, or whose initrd was built
    version: Option<String>,
    /// The version of a kernel that was removed
    #[arg(long, value_name = "VERSION", conflicts_with = "version")]
    removed: Option<String>,
    /// Wait until nothing has been written for two seconds
    #[arg(long)]
    wait: bool,
}

/// The decision after an update.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing is done, and this message is printed.
    Leave(Option<String>),
    /// The staged kernel is unstaged, and this message is printed.
    Unstage(String),
    /// This request is staged. If that fails, a staged kernel that is stale is unstaged.
    Stage { request: Box<StageRequest>, stale: bool },
}

/// Stages or unstages after an update, and prints a message about it.
pub fn run(root: &Root, arguments: &Arguments) {
    if !is_root() {
        return say::note("updated: /run/nextkernel belongs to root; nothing was done");
    }
    if let Err(elsewhere) = see_that_this_is_the_system(root) {
        return say::note(format_args!("updated: nothing was done: {elsewhere}"));
    }
    let unstage = |root: &Root, condition: &Condition| unstage::unstage(root, condition).map(drop);
    let staging = Staging { stage: &stage::quietly, unstage: &unstage };
    for _ in 0..ROUNDS {
        let before = if arguments.wait { at_rest(root) } else { files(root) };
        if let Some(sentence) = updated(root, arguments, &staging) {
            say::note(sentence);
        }
        if !arguments.wait || files(root) == before {
            break;
        }
    }
}

/// Returns the present state of the files from which the staged images were made.
fn files(root: &Root) -> Option<Vec<Option<Original>>> {
    Origin::staged(root).map(|known| known.origin.now(root))
}

/// Waits until the files do not change any more. Returns their state.
fn at_rest(root: &Root) -> Option<Vec<Option<Original>>> {
    let mut before = files(root);
    for _ in 0..ROUNDS {
        std::thread::sleep(REST);
        let now = files(root);
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// The acts of staging and unstaging. Tests have their own.
struct Staging<'a> {
    stage: &'a dyn Fn(&Root, &StageRequest) -> Result<(), stage::Error>,
    unstage: &'a dyn Fn(&Root, &Condition) -> Result<(), unstage::Error>,
}

/// Stages or unstages. Returns the message for the user.
fn updated(root: &Root, arguments: &Arguments, staging: &Staging<'_>) -> Option<String> {
    let (conf, wrong) = match Conf::read(root) {
        Ok(conf) => (conf, None),
        Err(error) => (Conf::default(), Some(error.to_string())),
    };
    let known = Origin::staged(root);
    if let Some(known) = &known {
        known.origin.enter();
    }
    let entry = known.as_ref().and_then(|known| known.entry.clone());
    let staged = entry.clone().unwrap_or_default();
    // Another handoff may have been staged by now.
    let handoff = known.as_ref().and_then(|known| known.handoff);
    let unstage = || (staging.unstage)(root, &Condition { handoff, ..Condition::default() });
    match decide(root, arguments, &conf, known.as_ref()) {
        Step::Leave(said) => said.or(wrong),
        Step::Unstage(said) => Some(match unstage() {
            Ok(()) => said,
            Err(error) => format!("warning: {staged} is stale, and cannot be unstaged: {error}"),
        }),
        Step::Stage { request, stale } => {
            let why = match (staging.stage)(root, &request) {
                Ok(()) => return Some(done(root)),
                Err(error) => error.to_string(),
            };
            let Some(Known { origin, entry: Some(_), .. }) = known.filter(|_| stale) else {
                return Some(format!("after the update nothing new is staged: {why}"));
            };
            if let Err(error) = unstage() {
                return Some(format!("warning: {staged} is stale, and cannot be unstaged: {error}"));
            }
            let _ = origin.keep_disarmed(root);
            Some(format!(
                "{staged} is no longer staged, for its files changed, and it cannot be staged again: {why}"
            ))
        }
    }
}

/// Returns the message after staging.
fn done(root: &Root) -> String {
    let text = crate::staging::directory::Directory::plan_text(root).ok().flatten().unwrap_or_default();
    match nextkernel_plan::Plan::parse(&text) {
        Ok(plan) => format!("{} is staged, after the update, for {}", plan.entry, plan.on),
        Err(_) => "what is staged after the update cannot be read".to_owned(),
    }
}

/// Decides what to do, given the origin of the staged or disarmed kernel.
fn decide(root: &Root, arguments: &Arguments, conf: &Conf, known: Option<&Known>) -> Step {
    let key = conf.stage_on_update;
    let Some(Known { origin, entry, .. }) = known else {
        if key == OnUpdate::No || arguments.removed.is_some() || is_staged(root) {
            return Step::Leave(None);
        }
        return match by_key(root, conf, arguments.version.as_deref()) {
            Ok(request) => Step::Stage { request: Box::new(request), stale: false },
            Err(why) => Step::Leave(Some(why)),
        };
    };
    let by_update = origin.request.by_update;
    let follows = if by_update { key != OnUpdate::No } else { origin.request.follow };
    let staged = entry.as_deref().unwrap_or("what was disarmed");
    let is_gone = origin.is_gone(root)
        || arguments.removed.as_deref().is_some_and(|removed| is_of(&origin.kernel.path, removed));
    if is_gone && !follows {
        let said = format!("{staged} was removed: it is no longer staged");
        return if entry.is_some() { Step::Unstage(said) } else { Step::Leave(None) };
    }
    let again = match (by_update && follows, &arguments.version, origin.request.target.entry()) {
        (false, ..) => Ok(origin.request.clone()),
        // No version was given: the initrd of a kernel that was staged by its version was built again.
        (true, None, Some(_)) if !is_gone => Ok(StageRequest { on: verbs(key), ..origin.request.clone() }),
        (true, version, _) => by_key(root, conf, version.as_deref()),
    };
    let stale = is_gone || origin.has_changed(root);
    let again = match again {
        Ok(again) => again,
        Err(why) if is_gone => return Step::Unstage(format!("{staged} was removed, and is unstaged: {why}")),
        // At least repeat the original request.
        Err(_) if stale => origin.request.clone(),
        Err(why) => return Step::Leave(Some(why)),
    };
    // If no entry can be chosen now, staging reports that, if it matters.
    let leads_to = order::choose(root, &again, conf).ok().map(|choice| choice.entry.kernel.path);
    let leads_to = leads_to.and_then(|path| std::path::absolute(path).ok());
    let elsewhere = leads_to.is_some_and(|path| path != origin.kernel.path);
    match (stale || entry.is_none(), elsewhere) {
        (_, false) if is_gone => Step::Unstage(format!("{staged} was removed: it is no longer staged")),
        (_, true) if follows => Step::Stage { request: Box::new(again), stale },
        // Nobody agreed to another kernel in its place.
        (true, true) if origin.has_other_images(root) && entry.is_some() => Step::Unstage(format!(
            "{staged} is no longer staged: its files changed, and another kernel is chosen now"
        )),
        (true, false) => Step::Stage { request: Box::new(again), stale: true },
        (false, false) if again.on != origin.request.on => {
            Step::Stage { request: Box::new(again), stale: false }
        }
        (false, false) if by_update || follows => Step::Leave(None),
        _ => Step::Leave(
            arguments
                .version
                .as_deref()
                .filter(|version| key != OnUpdate::No && !is_of(&origin.kernel.path, version))
                .map(|version| format!("{staged} was staged by hand and stays so, not {version}")),
        ),
    }
}

/// Returns whether a kernel is staged whose origin is not known. An unreadable plan counts, too.
fn is_staged(root: &Root) -> bool {
    !matches!(crate::staging::directory::Directory::plan_text(root), Ok(None))
}

/// Returns the verbs for which the key has a kernel staged.
fn verbs(key: OnUpdate) -> Vec<OnVerb> {
    match key {
        OnUpdate::No | OnUpdate::Kexec => vec![OnVerb::Kexec],
        OnUpdate::Reboot => vec![OnVerb::Kexec, OnVerb::Reboot],
    }
}

/// Returns the request that the key `stage-on-update` asks for: the entry that the boot loader would boot, if it has
/// an entry for the new kernel; the new kernel itself, if the boot loader's choice is unknown.
fn by_key(root: &Root, conf: &Conf, version: Option<&str>) -> Result<StageRequest, String> {
    let by_update =
        StageRequest { on: verbs(conf.stage_on_update), by_update: true, ..StageRequest::default() };
    let survey = Survey::of(root, conf);
    match (&survey.default, version, &survey.loader) {
        (Ok(default), Some(version), Some(loader))
            if !is_entry_of(&default.entry, version)
                && !survey
                    .entries
                    .iter()
                    .any(|entry| entry.kind != EntryKind::Convention && is_entry_of(entry, version)) =>
        {
            Err(format!(
                "{loader} has no entry for {version} yet: nothing new is staged; when it has, `nextkernel updated {version}`"
            ))
        }
        (Ok(_), _, _) => Ok(by_update),
        // The next restart does not use the snapshot that a version here would name.
        (Err(why @ entry::Error::OtherSnapshot { .. }), ..) => {
            Err(format!("after the update nothing new is staged: {why}"))
        }
        (Err(_), Some(version), _) => {
            Ok(StageRequest { target: Target::Entry(version.to_owned()), ..by_update })
        }
        (Err(why), None, _) => Err(format!("after the update nothing new is staged: {why}")),
    }
}

/// Returns whether an entry is of this version, by any of its names or by its kernel.
fn is_entry_of(entry: &Entry, version: &str) -> bool {
    let names = entry.version.iter().chain([&entry.id]).chain(&entry.aliases);
    let words = entry.title.iter().flat_map(|title| title.split_ascii_whitespace());
    names.map(String::as_str).chain(words).any(|name| name == version) || is_of(&entry.kernel.path, version)
}

/// Returns whether a kernel's path has this version: vmlinuz-VERSION, VERSION/linux, or MACHINE-VERSION.efi, with
/// or without a counter.
fn is_of(kernel: &Path, version: &str) -> bool {
    let mut parts = kernel.iter().filter_map(|part| part.to_str());
    parts.any(|part| {
        let stem = part.strip_suffix(".efi").unwrap_or(part);
        let stem = stem.split_once('+').filter(|(_, count)| is_counter(count)).map_or(stem, |(stem, _)| stem);
        stem == version || stem.strip_suffix(version).is_some_and(|before| before.ends_with('-'))
    })
}

fn is_counter(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::header;
    use crate::loading::test_load;
    use crate::machine::scratch::Scratch;
    use crate::machine::sys::Calls;
    use crate::request::stage::LineFrom;
    use crate::staging::directory::Directory;
    use nextkernel_plan::{On, Plan};
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Returns a machine on which kernel 1 is installed, and /vmlinuz is that one.
    fn machine(key: &str) -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/dev/urandom", "at first");
        scratch.put("/proc/cmdline", "root=x");
        scratch.put("/etc/nextkernel.conf", &format!("stage-on-update = {key}"));
        install(&scratch, "1");
        links(&scratch, "1");
        scratch
    }

    fn install(scratch: &Scratch, version: &str) {
        put_initrd(scratch, version, b"initrd");
        let kernel = header::tests::image(&[(0x202, b"HdrS"), (0x260, &(1_u32 << 20).to_le_bytes())]);
        fs::write(scratch.root.path(format!("/boot/vmlinuz-{version}")), kernel).unwrap();
    }

    fn put_initrd(scratch: &Scratch, version: &str, content: &[u8]) {
        let initrd = crate::image::archive::tests::entry("init", content, None);
        let path = format!("/boot/initrd.img-{version}");
        scratch.put(&path, "");
        fs::write(scratch.root.path(path), initrd).unwrap();
    }

    fn links(scratch: &Scratch, version: &str) {
        let link = scratch.root.path("/vmlinuz");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("boot/vmlinuz-{version}"), link).unwrap();
    }

    fn stage(root: &Root, request: &StageRequest) -> Result<(), stage::Error> {
        let calls = Some(Calls { file: true, segments: true, loads_into_cma: false });
        stage::stage(root, &StageRequest { skips_test_load: true, ..request.clone() }, calls).map(drop)
    }

    fn by_hand(scratch: &Scratch, request: &StageRequest) -> String {
        stage(&scratch.root, request).unwrap();
        staged(scratch).unwrap().0
    }

    /// Returns the staged handoff, the version of its kernel, and its verbs.
    fn staged(scratch: &Scratch) -> Option<(String, String, On)> {
        let text = Directory::plan_text(&scratch.root).unwrap()?;
        let plan = Plan::parse(&text).unwrap();
        let kernel = plan.kernel_from.unwrap().rsplit_once('-').map(|(_, version)| version.to_owned());
        Some((plan.handoff.to_string(), kernel.unwrap_or_default(), plan.on))
    }

    static COUNT: AtomicU32 = AtomicU32::new(0);

    fn told(scratch: &Scratch, arguments: &Arguments) -> Option<String> {
        let unstage = |root: &Root, condition: &Condition| {
            unstage::unstage_with(root, condition, || Ok::<_, test_load::Error>(())).map(drop)
        };
        // Each handoff has another id.
        scratch.put("/dev/urandom", &format!("{:08}", COUNT.fetch_add(1, Ordering::Relaxed)));
        updated(&scratch.root, arguments, &Staging { stage: &stage, unstage: &unstage })
    }

    fn installed(version: &str) -> Arguments {
        Arguments { version: Some(version.to_owned()), ..Arguments::default() }
    }

    #[test]
    fn nothing_is_staged_where_the_administrator_did_not_say_so() {
        let scratch = machine("no");
        assert_eq!((told(&scratch, &installed("1")), staged(&scratch)), (None, None));
        let request = StageRequest::default();
        let handoff = by_hand(&scratch, &request);
        install(&scratch, "2");
        links(&scratch, "2");
        assert_eq!(told(&scratch, &installed("2")), None);
        assert_eq!(staged(&scratch).unwrap().0, handoff);
    }

    #[test]
    fn the_new_kernel_is_staged_for_what_the_key_says_and_replaced_by_the_next() {
        for (key, on) in [("kexec", On::Kexec), ("reboot", On::KexecAndReboot)] {
            let scratch = machine(key);
            assert!(
                told(&scratch, &installed("1")).unwrap().starts_with("1 is staged, after the update, for")
            );
            install(&scratch, "2");
            links(&scratch, "2");
            told(&scratch, &installed("2")).unwrap();
            let (handoff, kernel, verbs) = staged(&scratch).unwrap();
            assert_eq!((kernel.as_str(), verbs), ("2", on));
            assert_eq!(told(&scratch, &installed("2")), None);
            assert_eq!(staged(&scratch).unwrap().0, handoff);
        }
    }

    #[test]
    fn where_nobody_can_tell_what_is_booted_next_it_is_the_version_that_was_installed() {
        let scratch = machine("kexec");
        install(&scratch, "2");
        fs::remove_file(scratch.root.path("/vmlinuz")).unwrap();
        told(&scratch, &installed("2")).unwrap();
        assert_eq!(staged(&scratch).unwrap().1, "2");
        assert!(told(&scratch, &Arguments::default()).is_none(), "and nothing has changed since");
    }

    #[test]
    fn a_menu_that_does_not_know_the_new_kernel_stages_nothing_and_one_that_does_decides() {
        let scratch = machine("kexec");
        let entry = |version| {
            format!(
                "menuentry 'Debian {version}' {{\n linux /boot/vmlinuz-{version} root=x\n initrd /boot/initrd.img-{version}\n}}\n"
            )
        };
        scratch.put("/proc/self/mountinfo", "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n");
        scratch.put("/boot/grub/grub.cfg", &entry("1"));
        install(&scratch, "2");
        let said = told(&scratch, &installed("2")).unwrap();
        assert!(said.contains("has no entry for 2 yet") && staged(&scratch).is_none(), "{said}");
        // The administrator's default is the old kernel, and stays so.
        scratch.put("/boot/grub/grub.cfg", &(entry("1") + &entry("2")));
        let said = told(&scratch, &installed("2"));
        assert_eq!(staged(&scratch).map(|staged| staged.1), Some("1".to_owned()), "{said:?}");
    }

    #[test]
    fn an_initrd_that_was_built_again_is_staged_again_by_the_same_request_or_disarmed() {
        for key in ["no", "kexec"] {
            let scratch = machine(key);
            let request = StageRequest {
                append: vec!["quiet".to_owned()],
                ..StageRequest::of_entry(Some("1".to_owned()))
            };
            let first = by_hand(&scratch, &request);
            put_initrd(&scratch, "1", b"longer initrd");
            assert!(told(&scratch, &installed("1")).unwrap().starts_with("1 is staged"));
            let (second, ..) = staged(&scratch).unwrap();
            assert_ne!(first, second);
            let text = Directory::plan_text(&scratch.root).unwrap().unwrap();
            assert_eq!(Plan::parse(&text).unwrap().cmdline, "root=x quiet");
            // While the initrd is missing nothing is staged. The next initrd is staged again.
            fs::remove_file(scratch.root.path("/boot/initrd.img-1")).unwrap();
            let said = told(&scratch, &installed("1")).unwrap();
            assert!(said.contains("no longer staged, for its files changed") && staged(&scratch).is_none());
            put_initrd(&scratch, "1", b"at last");
            assert!(told(&scratch, &installed("1")).unwrap().starts_with("1 is staged"));
            assert!(!Directory::place(&scratch.root, crate::staging::directory::DISARMED).exists());
        }
    }

    #[test]
    fn a_removed_kernel_is_unstaged_whatever_the_key_says() {
        let removed = Arguments { removed: Some("1".to_owned()), ..Arguments::default() };
        for (key, still_there) in [("no", true), ("no", false), ("kexec", true)] {
            let scratch = machine(key);
            by_hand(&scratch, &StageRequest::of_entry(Some("1".to_owned())));
            if !still_there {
                fs::remove_file(scratch.root.path("/boot/vmlinuz-1")).unwrap();
            }
            assert_eq!(told(&scratch, &removed).unwrap(), "1 was removed: it is no longer staged");
            assert!(staged(&scratch).is_none());
        }
        let scratch = machine("no");
        let handoff = by_hand(&scratch, &StageRequest::default());
        let other = Arguments { removed: Some("11".to_owned()), ..Arguments::default() };
        assert_eq!((told(&scratch, &other), staged(&scratch).unwrap().0), (None, handoff));
    }

    #[test]
    fn what_follows_the_boot_loader_goes_on_to_the_kernel_that_is_left() {
        let scratch = machine("no");
        let request = StageRequest { follow: true, ..StageRequest::default() };
        by_hand(&scratch, &request);
        install(&scratch, "2");
        links(&scratch, "2");
        told(&scratch, &installed("2")).unwrap();
        assert_eq!(staged(&scratch).unwrap().1, "2");
        fs::remove_file(scratch.root.path("/boot/vmlinuz-2")).unwrap();
        links(&scratch, "1");
        told(&scratch, &Arguments { removed: Some("2".to_owned()), ..Arguments::default() }).unwrap();
        assert_eq!(staged(&scratch).unwrap().1, "1");
    }

    #[test]
    fn what_was_staged_by_hand_is_never_replaced_by_another_kernel() {
        let scratch = machine("reboot");
        scratch.put("/tmp/x", "");
        fs::copy(scratch.root.path("/boot/vmlinuz-1"), scratch.root.path("/tmp/k-9")).unwrap();
        let request = StageRequest {
            target: Target::Files { kernel: "/tmp/k-9".into(), initrds: Vec::new() },
            line: LineFrom::Given("root=x".to_owned()),
            ..StageRequest::default()
        };
        let handoff = by_hand(&scratch, &request);
        install(&scratch, "2");
        let said = told(&scratch, &installed("2")).unwrap();
        assert!(said.ends_with("was staged by hand and stays so, not 2"), "{said}");
        assert_eq!(staged(&scratch).unwrap().0, handoff);
    }

    #[test]
    fn a_key_that_was_taken_back_lets_what_it_staged_follow_no_more() {
        let scratch = machine("reboot");
        told(&scratch, &installed("1")).unwrap();
        scratch.put("/etc/nextkernel.conf", "");
        install(&scratch, "2");
        links(&scratch, "2");
        assert_eq!(told(&scratch, &installed("2")), None);
        assert_eq!(staged(&scratch).unwrap().1, "1");
        scratch.put("/etc/nextkernel.conf", "stage-on-update = kexec");
        told(&scratch, &installed("2")).unwrap();
        let (_, kernel, on) = staged(&scratch).unwrap();
        assert_eq!((kernel.as_str(), on), ("2", On::Kexec));
    }

    #[test]
    fn a_kernels_version_is_the_whole_of_it() {
        for (path, version, is) in [
            ("/boot/vmlinuz-6.12.1-amd64", "6.12.1-amd64", true),
            ("/boot/vmlinuz-6.12.1-amd64", "12.1-amd64", false),
            ("/boot/efi/machine/6.12.1/linux", "6.12.1", true),
            ("/efi/EFI/Linux/machine-6.12.1+3-0.efi", "6.12.1", true),
            ("/efi/EFI/Linux/machine-6.12.1.efi", "6.12.1", true),
            ("/boot/vmlinuz-6.12.1+deb13-amd64", "6.12.1+deb13-amd64", true),
            ("/boot/vmlinuz-6.12.10", "6.12.1", false),
        ] {
            assert_eq!(is_of(path.as_ref(), version), is, "{path} {version}");
        }
    }
}
