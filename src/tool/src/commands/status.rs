//! The status command: what is staged, and what each reboot command will do.

use std::fmt::Write;
use std::io;

use clap::Args;
use nextkernel_plan::{Plan, Preload, Record, Verb};
use serde::Serialize;
use thiserror::Error;

use crate::freeing::gpus::{self, Gpu, Said};
use crate::image::cmdline;
use crate::image::header::Header;
use crate::loading::decompress;
use crate::loading::syscall::{self, ChoiceReason, Syscall};
use crate::machine::init::Init;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::systemd;
use crate::request::conf::Conf;
use crate::request::firmware::Requests;
use crate::staging::directory::{self, Folder};
use crate::staging::ready::First;
use crate::words::errno::InWords;
use crate::words::say;
use crate::words::size::Size;

/// Show what is staged and what each way down leads to
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why it cannot be shown.
#[derive(Debug, Error)]
pub enum Error {
    /// The folder or the plan.
    #[error(transparent)]
    Folder(#[from] directory::Error),
    /// The output.
    #[error("the status cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// Everything that is known. Field names are stable; new ones may be added.
#[derive(Debug, Serialize)]
struct Status {
    staged: Option<Next>,
    /// Whether an image is loaded, by whomever.
    loaded: bool,
    /// Whether the hook stands where the init runs it.
    hook_installed: bool,
    /// PID 1.
    init: String,
    /// What each command leads to: `staged`, `loaded` (an image that is loaded, without the hook),
    /// `firmware`, `refused`, or `systemd` (what systemd finds by itself, if anything). The first two are systemd's,
    /// and null with another init.
    systemctl_kexec: Option<Leads>,
    systemctl_reboot: Option<Leads>,
    /// `staged`, too, where it stages first, for nothing is.
    nextkernel_reboot: Leads,
    /// `reboot` and `shutdown -r`.
    reboot: Leads,
    /// The drivers that own a GPU; what is done with them is as staged, or else as configured.
    gpus: Vec<Gpu>,
    /// Who asks for the firmware at the next restart, so that what is staged does not start.
    firmware_requests: Vec<String>,
    /// Why there may be more.
    firmware_requests_unknown: Option<String>,
    /// The handoff that started the running kernel.
    started_by: Option<StartedBy>,
}

#[derive(Debug, Serialize)]
struct Next {
    handoff: String,
    entry: String,
    staged_at: u64,
    on: Vec<String>,
    preload: String,
    kernel: Image,
    initrd: Option<Image>,
    cmdline: String,
    /// Further modules that are unloaded.
    modules: Vec<String>,
    /// PCI addresses of other devices that are unbound.
    unbind: Vec<String>,
    /// Seconds that the jump may take, where the plan says so.
    guard: Option<u16>,
    /// `off` or seconds, where the plan says so.
    watchdog: Option<String>,
    /// `hook` or `init`, where the plan says so.
    jump: Option<String>,
    /// Which of the kernel's two calls loads it: `verified` or `direct`.
    loader: Syscall,
    /// Why that one: `default`, `asked`, `thawed`, `only`, or what is against the direct one here: `no-call`,
    /// `architecture`, `hands-over`, `lockdown`, `signature`, `ima`, `load-pin`.
    loader_why: ChoiceReason,
    /// What is unpacked already: `kernel`, `initrd`.
    thawed: Vec<Thawed>,
}

#[derive(Debug, Serialize)]
struct Image {
    from: Vec<String>,
    size: u64,
    /// Not there where no copy is kept.
    as_staged: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Thawed {
    Kernel,
    Initrd,
}

#[derive(Debug, Serialize)]
struct StartedBy {
    handoff: String,
    /// Not known of an image that was preloaded.
    verb: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Leads {
    Staged,
    Loaded,
    Firmware,
    Refused,
    Systemd,
}

/// Prints it.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    let text = Folder::plan_text(root)?;
    let plan = text.as_deref().map(Plan::parse).transpose().map_err(directory::Error::Malformed)?;
    let systemd = systemd::version();
    // The plan takes precedence over the configuration. A setting that a plan cannot express has its default.
    let conf = if plan.is_some() { Ok(Conf::default()) } else { Conf::read(root) };
    let conf = conf.unwrap_or_else(|error| {
        say::note(error);
        Conf::default()
    });
    let gpus = gpus::find(root, plan.as_ref().map_or(Said::Conf(&conf), Said::Plan));
    let status = Status::of(root, plan.as_ref(), &conf, gpus, systemd, syscall::calls(root));
    say::print(&status, wish.json, || status.in_words(systemd)).map_err(Error::Output)
}

impl Status {
    fn of(
        root: &Root,
        plan: Option<&Plan<'_>>,
        conf: &Conf,
        gpus: Vec<Gpu>,
        systemd: Option<u32>,
        calls: Option<Calls>,
    ) -> Status {
        let loaded = root.kexec_loaded();
        // If so, the hook does a full reboot instead.
        let Requests { found, unread } = Requests::find(root, conf, plan);
        let requests: Vec<_> = found.iter().map(ToString::to_string).collect();
        let is_for_the_firmware = !requests.is_empty() || gpus::forbids_the_jump(&gpus).is_some();
        let staged = if is_for_the_firmware { Leads::Firmware } else { Leads::Staged };
        let init = Init::find(root);
        let is_systemd = init == Init::Systemd;
        let hook_installed = init.runs_the_hook(root);
        let covers = |verb| hook_installed && plan.is_some_and(|plan| plan.on.covers(verb));
        let at_kexec = match (covers(Verb::Kexec), loaded) {
            (_, false) if systemd::loads_by_itself(systemd) => Leads::Systemd,
            (_, false) => Leads::Refused,
            (true, true) => staged,
            (false, true) => Leads::Loaded,
        };
        // If the init does not tell the hook about a reboot, the hook does a full reboot, unless the handoff is
        // armed.
        let told = is_systemd || init.tells_reboot();
        let at_reboot = if told && covers(Verb::Reboot) { staged } else { Leads::Firmware };
        let asked = is_systemd || init.ask(root).is_some();
        // If nothing is staged, it stages first.
        let starts = match First::of(root, false, plan.map(Ok)) {
            Ok(First::Use(_)) => covers(Verb::Kexec),
            Ok(First::Stage(_)) => hook_installed,
            Err(_) => false,
        };
        let of_systemctl = |leads| is_systemd.then_some(leads);
        let record = cmdline::running(root).ok().and_then(|line| Record::find(&line));
        Status {
            staged: plan.map(|plan| Next::of(root, plan, calls)),
            loaded,
            hook_installed,
            init: init.name().to_owned(),
            systemctl_kexec: of_systemctl(at_kexec),
            systemctl_reboot: of_systemctl(if loaded && systemd::reboot_becomes_kexec(systemd) {
                at_kexec
            } else {
                at_reboot
            }),
            nextkernel_reboot: if asked && starts && requests.is_empty() { staged } else { Leads::Refused },
            reboot: if loaded && is_systemd { at_kexec } else { at_reboot },
            gpus,
            firmware_requests: requests,
            firmware_requests_unknown: unread.map(|error| error.to_string()),
            started_by: record.map(|record| StartedBy {
                handoff: record.handoff.to_string(),
                verb: record.verb.map(|verb| verb.to_string()),
            }),
        }
    }

    fn in_words(&self, systemd: Option<u32>) -> String {
        let mut words = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_words(&mut words, systemd);
        words
    }

    fn write_words(&self, out: &mut String, systemd: Option<u32>) -> std::fmt::Result {
        match &self.staged {
            Some(staged) => staged.write_words(out, self.loaded)?,
            None if self.loaded => {
                writeln!(out, "nothing is staged; an image that somebody else loaded is there")?;
            }
            None => writeln!(out, "nothing is staged")?,
        }
        let entry = self.staged.as_ref().map_or("", |staged| &staged.entry);
        let leads = |to| match to {
            Leads::Staged => format!("starts {entry}"),
            Leads::Loaded => "starts the image that is loaded, without nextkernel".to_owned(),
            Leads::Firmware => "restarts through firmware".to_owned(),
            Leads::Refused => {
                "refuses, unless systemd finds an entry to load itself: nothing is loaded".to_owned()
            }
            Leads::Systemd => {
                "is left to systemd: nothing is loaded, and it may load what it finds".to_owned()
            }
        };
        let is_systemd = self.systemctl_kexec.is_some();
        for (command, to) in
            [("systemctl kexec", self.systemctl_kexec), ("systemctl reboot", self.systemctl_reboot)]
        {
            if let Some(to) = to {
                writeln!(out, "{command:<17} {}", leads(to))?;
            }
        }
        if !is_systemd && self.staged.is_some() {
            let to = match self.nextkernel_reboot {
                Leads::Refused => "refuses (`nextkernel check` says why)".to_owned(),
                to => leads(to),
            };
            writeln!(out, "nextkernel reboot {to}")?;
        }
        writeln!(out, "reboot            {}", leads(self.reboot))?;
        if self.loaded && !is_systemd {
            writeln!(
                out,
                "                  (while an image is loaded, {}'s own scripts may start it)",
                self.init
            )?;
        } else if self.loaded {
            let whose = if systemd::reboot_becomes_kexec(systemd) { "every reboot" } else { "`reboot`" };
            writeln!(out, "                  (while an image is loaded, systemd makes {whose} a kexec)")?;
        }
        if let Some(gpu) = gpus::forbids_the_jump(&self.gpus).filter(|_| self.staged.is_some()) {
            writeln!(out, "                  (there is no jump because of {}: see below)", gpu.module)?;
        }
        for request in self.firmware_requests.iter().chain(&self.firmware_requests_unknown) {
            writeln!(out, "firmware          {request}")?;
        }
        for gpu in &self.gpus {
            writeln!(out, "{:<17} {}", format!("gpu {}", gpu.module), gpu.in_words())?;
        }
        let late = |staged: &Next| {
            staged.preload == Preload::No.to_string() && staged.on.iter().any(|on| on == "kexec")
        };
        if is_systemd && !self.loaded && self.staged.as_ref().is_some_and(late) {
            writeln!(out, "                  `nextkernel reboot` starts {entry}")?;
        }
        if let Some(StartedBy { handoff, verb }) = &self.started_by {
            let at = verb.as_ref().map_or(String::new(), |verb| format!(", at {verb}"));
            writeln!(
                out,
                "this kernel was started by handoff {handoff}{at} (`nextkernel report` shows what that took)"
            )?;
        }
        if self.staged.is_some() && !self.hook_installed {
            if is_systemd {
                let missing = "/usr/lib/systemd/system-shutdown/nextkernel is missing";
                writeln!(out, "warning: {missing}: nothing would be done at night")?;
            } else {
                let why = "`nextkernel check` says where it belongs";
                writeln!(
                    out,
                    "warning: {} does not run the hook: nothing would be done at night; {why}",
                    self.init
                )?;
            }
        }
        Ok(())
    }
}

/// What of a plan is unpacked already. A kernel of x86 that is has no header of its image any more, and the direct
/// loader alone takes it so.
fn thawed(root: &Root, plan: &Plan<'_>) -> Vec<Thawed> {
    let open = |image| std::fs::File::open(directory::path(root, &image)).ok();
    let kernel = open(plan.kernel).filter(|_| plan.direct.is_some());
    let kernel = kernel.filter(|file| Header::read(file) == Header::Unknown).map(|_| Thawed::Kernel);
    let initrd = plan.initrd.and_then(open).filter(|file| decompress::is_decompressed(file).unwrap_or(false));
    kernel.into_iter().chain(initrd.map(|_| Thawed::Initrd)).collect()
}

impl Next {
    fn of(root: &Root, plan: &Plan<'_>, calls: Option<Calls>) -> Next {
        let image = |image: &nextkernel_plan::Image<'_>, from: Vec<String>| Image {
            from,
            size: image.size,
            as_staged: (plan.preload != Preload::Only).then(|| directory::is_as_staged(root, image)),
        };
        let (loader, thawed) = (Syscall::of(plan), thawed(root, plan));
        let from = plan.kernel_from.iter().map(ToString::to_string).collect();
        Next {
            handoff: plan.handoff.to_string(),
            entry: plan.entry.to_owned(),
            staged_at: plan.staged_at,
            on: plan.on.to_string().split(' ').map(str::to_owned).collect(),
            preload: plan.preload.to_string(),
            kernel: image(&plan.kernel, from),
            initrd: plan
                .initrd
                .map(|initrd| image(&initrd, plan.initrd_from.iter().map(str::to_owned).collect())),
            cmdline: plan.cmdline.to_owned(),
            modules: plan.modules.iter().map(str::to_owned).collect(),
            unbind: plan.unbind.iter().map(str::to_owned).collect(),
            guard: plan.guard,
            watchdog: plan.watchdog.map(|watchdog| watchdog.to_string()),
            jump: plan.jump.map(|jump| jump.to_string()),
            loader,
            loader_why: ChoiceReason::of(root, calls, loader, thawed.contains(&Thawed::Kernel)),
            thawed,
        }
    }

    fn write_words(&self, out: &mut String, loaded: bool) -> std::fmt::Result {
        writeln!(out, "staged            {} (handoff {})", self.entry, self.handoff)?;
        writeln!(out, "  kernel          {}", self.kernel.in_words())?;
        match &self.initrd {
            Some(initrd) => writeln!(out, "  initrd          {}", initrd.in_words())?,
            None => writeln!(out, "  initrd          none")?,
        }
        writeln!(out, "  command line    {}", self.cmdline)?;
        writeln!(out, "  loader          {}: {}", self.loader, self.loader_why)?;
        let load = match self.preload.as_str() {
            "no" => "at the end of shutdown",
            "again" => "done, and done once more at the end of shutdown",
            "only" if !loaded => "gone, and no copies are kept: stage again",
            "only" => "done: what is loaded is started, and no copies are kept",
            _ if !loaded => "somebody has unloaded it: done once more at the end of shutdown",
            _ => "done: what is loaded is started",
        };
        writeln!(out, "  load            {load}")?;
        match self.thawed.as_slice() {
            [] => {}
            [Thawed::Kernel] => writeln!(out, "  thawed          the kernel")?,
            [Thawed::Initrd] => writeln!(out, "  thawed          the initrd")?,
            _ => writeln!(out, "  thawed          kernel and initrd")?,
        }
        if !self.modules.is_empty() {
            writeln!(out, "  unloads also    {}", self.modules.join(", "))?;
        }
        if !self.unbind.is_empty() {
            writeln!(out, "  unbinds         {}", self.unbind.join(", "))?;
        }
        if let Some(seconds) = self.guard {
            writeln!(out, "  guard           resets the machine when the jump takes {seconds} seconds")?;
        }
        match self.watchdog.as_deref() {
            Some("off") => writeln!(out, "  watchdog        is stopped before the jump")?,
            Some(seconds) => {
                writeln!(out, "  watchdog        is armed for {seconds} seconds before the jump")?;
            }
            None => {}
        }
        if self.jump.as_deref() == Some("init") {
            writeln!(out, "  jump            is made by systemd, once the hook is done")?;
        }
        Ok(())
    }
}

impl Image {
    fn in_words(&self) -> String {
        let changed = if self.as_staged == Some(false) { ", CHANGED SINCE: stage again" } else { "" };
        let from = if self.from.is_empty() {
            "from a file system that is not mounted".to_owned()
        } else {
            self.from.join(" + ")
        };
        format!("{from}, {}{changed}", Size(self.size))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::Leads::{Firmware, Loaded, Refused, Staged, Systemd};
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    const PLAN: &[u8] = b"\
nextkernel-plan 2
handoff = 0000000000000007
entry = 6.12
staged-at = 1
on = kexec
preload = yes
kernel = 0000000000000007/kernel size=1 inode=1 changed=1.000000001
cmdline = root=x
end
";

    const BOTH: Option<Calls> = Some(Calls { file: true, segments: true, loads_into_cma: false });

    fn status(loaded: bool, hook: bool, plan: Option<&str>, systemd: u32) -> Status {
        with_gpu(loaded, hook, plan, systemd, "live")
    }

    fn with_gpu(loaded: bool, hook: bool, plan: Option<&str>, systemd: u32, state: &str) -> Status {
        let scratch = Scratch::new();
        scratch.folder("/run/systemd/system");
        gpus::tests::add(&scratch, "bochs", "0000:00:02.0", state);
        scratch.put("/sys/kernel/kexec_loaded", if loaded { "1\n" } else { "0\n" });
        if hook {
            scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
        }
        let plan = plan.map(|plan| Plan::parse(plan.as_bytes()).unwrap());
        let conf = Conf::default();
        let gpus = gpus::find(&scratch.root, plan.as_ref().map_or(Said::Conf(&conf), Said::Plan));
        Status::of(&scratch.root, plan.as_ref(), &conf, gpus, Some(systemd), BOTH)
    }

    #[test]
    fn what_each_way_down_leads_to() {
        let kexec = String::from_utf8(PLAN.to_vec()).unwrap();
        let both = kexec.replace("on = kexec", "on = kexec reboot");
        let leads = |loaded, hook, plan: Option<&String>, systemd| {
            let status = status(loaded, hook, plan.map(String::as_str), systemd);
            (status.systemctl_kexec.unwrap(), status.systemctl_reboot.unwrap(), status.reboot)
        };
        assert_eq!(leads(false, true, None, 257), (Refused, Firmware, Firmware));
        assert_eq!(leads(false, true, None, 261), (Systemd, Firmware, Firmware));
        assert_eq!(leads(true, true, None, 257), (Loaded, Loaded, Loaded));
        assert_eq!(leads(true, true, None, 252), (Loaded, Firmware, Loaded));
        assert_eq!(leads(true, true, Some(&kexec), 257), (Staged, Staged, Staged));
        assert_eq!(leads(true, true, Some(&kexec), 252), (Staged, Firmware, Staged));
        assert_eq!(leads(true, true, Some(&both), 252), (Staged, Staged, Staged));
        assert_eq!(leads(false, true, Some(&kexec), 257), (Refused, Firmware, Firmware));
        assert_eq!(leads(false, true, Some(&both), 257), (Refused, Staged, Staged));
        assert_eq!(leads(true, false, Some(&both), 252), (Loaded, Firmware, Loaded));
    }

    #[test]
    fn a_gpu_that_forbids_the_jump_leads_through_firmware() {
        let plan = String::from_utf8(PLAN.to_vec()).unwrap();
        let forbidden = plan.replace("end\n", "gpu = bochs firmware-reboot\nend\n");
        let leads = |status: &Status| {
            (status.systemctl_kexec.unwrap(), status.systemctl_reboot.unwrap(), status.reboot)
        };
        for status in [
            with_gpu(true, true, Some(&forbidden), 257, "live"),
            with_gpu(true, true, Some(&plan), 257, "coming"),
        ] {
            assert_eq!(leads(&status), (Firmware, Firmware, Firmware));
            assert!(status.in_words(Some(257)).contains("there is no jump because of bochs"));
        }
        // Without the hook nothing looks at the GPU.
        assert_eq!(leads(&with_gpu(true, false, Some(&forbidden), 257, "live")), (Loaded, Loaded, Loaded));
    }

    #[test]
    fn a_request_for_the_firmware_leads_there_and_is_told() {
        let scratch = Scratch::new();
        scratch.folder("/run/systemd/system");
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
        scratch.put(crate::request::firmware::FULL, "");
        let status = |text: &[u8]| {
            let plan = Plan::parse(text).unwrap();
            Status::of(&scratch.root, Some(&plan), &Conf::default(), Vec::new(), Some(257), BOTH)
        };
        let status = status(PLAN);
        let leads = (status.systemctl_kexec, status.systemctl_reboot, status.reboot);
        assert_eq!(leads, (Some(Firmware), Some(Firmware), Firmware));
        assert!(
            status.in_words(Some(257)).contains("firmware          `nextkernel reboot --full` was given")
        );
    }

    /// With another init, which runs the hook or not.
    fn elsewhere(pid_1: &str, hooked: Option<&str>, plan: &str) -> Status {
        with_image(pid_1, hooked, Some(plan), false)
    }

    /// The same, with nothing staged, or an image that has changed since.
    fn with_image(pid_1: &str, hooked: Option<&str>, plan: Option<&str>, has_changed: bool) -> Status {
        let scratch = Scratch::new();
        scratch.put("/proc/1/comm", pid_1);
        scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
        if let Some(path) = hooked {
            scratch.put(path, "::shutdown:/usr/lib/systemd/system-shutdown/nextkernel\n");
            std::fs::set_permissions(scratch.root.path(path), std::fs::Permissions::from_mode(0o755))
                .unwrap();
        }
        let name = "0000000000000007/kernel";
        let path = format!("/run/nextkernel/{name}");
        scratch.put(&path, "1");
        let image = directory::measured(&scratch.root.path(&path).metadata().unwrap(), name).unwrap();
        if has_changed {
            scratch.put(&path, "another");
        }
        let of = format!("kernel = {name} size=1 inode=1 changed=1.000000001");
        let plan = plan.map(|plan| plan.replace(&of, &format!("kernel = {image}")));
        let plan = plan.as_ref().map(|plan| Plan::parse(plan.as_bytes()).unwrap());
        Status::of(&scratch.root, plan.as_ref(), &Conf::default(), Vec::new(), None, BOTH)
    }

    #[test]
    fn nextkernel_reboot_stages_where_nothing_is_and_refuses_what_has_changed() {
        let plan = String::from_utf8(PLAN.to_vec()).unwrap();
        let runit = Some("/etc/runit/shutdown.d/89-nextkernel.sh");
        let leads =
            |hooked, plan, has_changed| with_image("runit", hooked, plan, has_changed).nextkernel_reboot;
        assert_eq!(leads(runit, None, false), Staged);
        assert_eq!(leads(None, None, false), Refused);
        assert_eq!(leads(runit, Some(plan.as_str()), false), Staged);
        assert_eq!(leads(runit, Some(plan.as_str()), true), Refused);
    }

    #[test]
    fn with_another_init_what_it_can_be_asked_for_and_what_it_tells_the_hook_decides() {
        let kexec = String::from_utf8(PLAN.to_vec()).unwrap();
        let both = kexec.replace("on = kexec", "on = kexec reboot");
        let leads = |pid_1, hooked, plan: &str| {
            let status = elsewhere(pid_1, hooked, plan);
            assert_eq!((status.systemctl_kexec, status.systemctl_reboot), (None, None));
            (status.nextkernel_reboot, status.reboot)
        };
        let runit = Some("/etc/runit/shutdown.d/89-nextkernel.sh");
        assert_eq!(leads("runit", runit, &kexec), (Staged, Firmware));
        assert_eq!(leads("runit", runit, &both), (Staged, Staged));
        assert_eq!(leads("runit", None, &both), (Refused, Firmware));
        // This init runs the hook, but does not tell it the verb.
        assert_eq!(leads("busybox", Some("/etc/inittab"), &both), (Staged, Firmware));
        assert_eq!(leads("minit", None, &both), (Refused, Firmware));
        let words = elsewhere("runit", None, &both).in_words(None);
        assert!(
            words.contains("nextkernel reboot refuses") && words.contains("runit does not run the hook"),
            "{words}"
        );
        assert!(!words.contains("systemctl"), "{words}");
    }

    #[test]
    fn what_the_plan_says_of_the_teardown_is_shown() {
        let says =
            "module = efi_pstore\nunbind = 0000:3b:00.0\nguard = 600\nwatchdog = 60\njump = init\nend\n";
        let plan = String::from_utf8(PLAN.to_vec()).unwrap().replace("end\n", says);
        let words = status(true, true, Some(&plan), 257).in_words(Some(257));
        for line in [
            "  unloads also    efi_pstore\n",
            "  unbinds         0000:3b:00.0\n",
            "  guard           resets the machine when the jump takes 600 seconds\n",
            "  watchdog        is armed for 60 seconds before the jump\n",
            "  jump            is made by systemd, once the hook is done\n",
            "gpu bochs         is unloaded before the jump; if that fails, the jump is made all the same\n",
        ] {
            assert!(words.contains(line), "{words}");
        }
    }

    #[test]
    fn the_field_names_of_the_json_are_stable() {
        let plan = String::from_utf8(PLAN.to_vec()).unwrap();
        let json = serde_json::to_value(status(true, true, Some(&plan), 257)).unwrap();
        let mut fields = Vec::new();
        for (name, value) in json.as_object().unwrap() {
            fields.push(name.clone());
            for inner in value.as_object().into_iter().flatten() {
                fields.push(format!("{name}.{}", inner.0));
            }
        }
        fields.sort();
        assert_eq!(
            fields.join(" "),
            "firmware_requests firmware_requests_unknown gpus hook_installed init loaded nextkernel_reboot reboot staged staged.cmdline staged.entry staged.guard staged.handoff \
             staged.initrd staged.jump staged.kernel staged.loader staged.loader_why staged.modules staged.on staged.preload \
             staged.staged_at staged.thawed staged.unbind staged.watchdog started_by systemctl_kexec systemctl_reboot"
        );
        let gpu = json["gpus"][0].as_object().unwrap();
        let fields: Vec<_> = gpu.keys().map(String::as_str).collect();
        assert_eq!(fields.join(" "), "builtin devices if_failed module policy state");
        assert_eq!(
            (&json["gpus"][0]["policy"], &json["gpus"][0]["if_failed"]),
            (&"unload".into(), &"jump".into())
        );
        assert_eq!(json["staged"]["kernel"]["as_staged"], false);
        assert_eq!(json["systemctl_kexec"], "staged");
    }
}
