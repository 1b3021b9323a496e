//! The facts of the status: the staged kernel, and the outcome of each reboot command.

use nextkernel_plan::{Plan, Preload, Record, Verb};
use serde::Serialize;

use crate::freeing::gpus::{self, Gpu};
use crate::image::cmdline;
use crate::image::header::Header;
use crate::loading::decompress;
use crate::loading::syscall::{self, Syscall};
use crate::machine::init::Init;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::systemd;
use crate::request::conf::Conf;
use crate::request::firmware::Requests;
use crate::staging::directory;
use crate::staging::ready::First;

/// All facts. The field names are stable in the JSON, and new ones may be added.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) staged: Option<StagedKernel>,
    /// Whether an image is loaded, no matter by which program.
    pub(super) loaded: bool,
    /// Whether the hook is installed where the init runs it.
    pub(super) hook_installed: bool,
    /// The name of PID 1.
    pub(super) init: String,
    /// The outcome of `systemctl kexec`. None with an init other than systemd.
    pub(super) systemctl_kexec: Option<Outcome>,
    /// The outcome of `systemctl reboot`. None with an init other than systemd.
    pub(super) systemctl_reboot: Option<Outcome>,
    /// The outcome of `nextkernel reboot`. If nothing is staged, the command stages first, and that is `Staged`, too.
    pub(super) nextkernel_reboot: Outcome,
    /// The outcome of `reboot` and of `shutdown -r`.
    pub(super) reboot: Outcome,
    /// The drivers that own a GPU. Their policies are those of the plan, or else of the configuration.
    pub(super) gpus: Vec<Gpu>,
    /// Requests for the firmware at the next restart, each of which keeps the staged kernel from starting.
    pub(super) firmware_requests: Vec<String>,
    /// The reason why there may be more requests.
    pub(super) firmware_requests_unknown: Option<String>,
    /// The handoff that started the running kernel.
    pub(super) started_by: Option<StartedBy>,
}

/// The staged kernel, as its plan has it.
#[derive(Debug, Serialize)]
pub(super) struct StagedKernel {
    pub(super) handoff: String,
    pub(super) entry: String,
    staged_at: u64,
    pub(super) on: Vec<String>,
    pub(super) preload: String,
    pub(super) kernel: Image,
    pub(super) initrd: Option<Image>,
    pub(super) cmdline: String,
    /// More modules to unload.
    pub(super) modules: Vec<String>,
    /// PCI addresses of other devices to unbind.
    pub(super) unbind: Vec<String>,
    /// The seconds that the jump may take, if the plan limits them.
    pub(super) guard: Option<u16>,
    /// `off`, or a number of seconds, if the plan has a setting.
    pub(super) watchdog: Option<String>,
    /// `hook` or `init`, if the plan has a setting.
    pub(super) jump: Option<String>,
    /// The syscall that loads the image.
    pub(super) loader: Syscall,
    /// The reason for that syscall.
    pub(super) loader_why: syscall::ChoiceReason,
    /// The parts that are decompressed already.
    pub(super) thawed: Vec<Decompressed>,
}

/// An image of the plan.
#[derive(Debug, Serialize)]
pub(super) struct Image {
    pub(super) from: Vec<String>,
    pub(super) size: u64,
    /// Whether the copy is unchanged. None if no copies are kept.
    pub(super) as_staged: Option<bool>,
}

/// A part that is decompressed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Decompressed {
    Kernel,
    Initrd,
}

/// The handoff that started the running kernel.
#[derive(Debug, Serialize)]
pub(super) struct StartedBy {
    pub(super) handoff: String,
    /// The verb of the shutdown. None if it was not recorded, as with a preloaded image.
    pub(super) verb: Option<String>,
}

/// The outcome of a reboot command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The staged kernel starts.
    Staged,
    /// The loaded image starts, without the hook.
    Loaded,
    /// The machine makes a full reboot.
    Firmware,
    /// The command refuses.
    Refused,
    /// systemd may load and start an image that it finds.
    Systemd,
}

impl Status {
    /// Gathers the facts, given the systemd version and the loading syscalls of the running system.
    pub(super) fn of(
        root: &Root,
        plan: Option<&Plan<'_>>,
        conf: &Conf,
        gpus: Vec<Gpu>,
        systemd: Option<u32>,
        calls: Option<Calls>,
    ) -> Status {
        let loaded = root.kexec_loaded();
        // If anything requests the firmware, or a GPU forbids the jump, the hook does a full reboot instead.
        let Requests { found, unread } = Requests::find(root, conf, plan);
        let requests: Vec<_> = found.iter().map(ToString::to_string).collect();
        let is_full_reboot = !requests.is_empty() || gpus::forbids_the_jump(&gpus).is_some();
        let staged = if is_full_reboot { Outcome::Firmware } else { Outcome::Staged };
        let init = Init::find(root);
        let is_systemd = init == Init::Systemd;
        let hook_installed = init.runs_the_hook(root);
        let covers = |verb| hook_installed && plan.is_some_and(|plan| plan.on.covers(verb));
        let at_kexec = match (covers(Verb::Kexec), loaded) {
            (_, false) if systemd::loads_by_itself(systemd) => Outcome::Systemd,
            (_, false) => Outcome::Refused,
            (true, true) => staged,
            (false, true) => Outcome::Loaded,
        };
        // If the init does not tell the hook about a reboot, the hook does a full reboot, unless the handoff is
        // armed.
        let told = is_systemd || init.tells_reboot();
        let at_reboot = if told && covers(Verb::Reboot) { staged } else { Outcome::Firmware };
        let asked = is_systemd || init.ask(root).is_some();
        // If nothing is staged, `nextkernel reboot` stages first.
        let starts = match First::of(root, false, plan.map(Ok)) {
            Ok(First::Use(_)) => covers(Verb::Kexec),
            Ok(First::Stage(_)) => hook_installed,
            Err(_) => false,
        };
        let of_systemctl = |leads| is_systemd.then_some(leads);
        let record = cmdline::running(root).ok().and_then(|line| Record::find(&line));
        Status {
            staged: plan.map(|plan| StagedKernel::of(root, plan, calls)),
            loaded,
            hook_installed,
            init: init.name().to_owned(),
            systemctl_kexec: of_systemctl(at_kexec),
            systemctl_reboot: of_systemctl(if loaded && systemd::reboot_becomes_kexec(systemd) {
                at_kexec
            } else {
                at_reboot
            }),
            nextkernel_reboot: if asked && starts && requests.is_empty() { staged } else { Outcome::Refused },
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
}

/// Returns the parts of a plan that are decompressed already. A decompressed x86 kernel has no image header any
/// more, and `kexec_load` alone can load it.
fn decompressed(root: &Root, plan: &Plan<'_>) -> Vec<Decompressed> {
    let open = |image| std::fs::File::open(directory::path(root, &image)).ok();
    let kernel = open(plan.kernel).filter(|_| plan.direct.is_some());
    let kernel = kernel.filter(|file| Header::read(file) == Header::Unknown).map(|_| Decompressed::Kernel);
    let initrd = plan.initrd.and_then(open).filter(|file| decompress::is_decompressed(file).unwrap_or(false));
    kernel.into_iter().chain(initrd.map(|_| Decompressed::Initrd)).collect()
}

impl StagedKernel {
    fn of(root: &Root, plan: &Plan<'_>, calls: Option<Calls>) -> StagedKernel {
        let image = |image: &nextkernel_plan::Image<'_>, from: Vec<String>| Image {
            from,
            size: image.size,
            as_staged: (plan.preload != Preload::Only).then(|| directory::is_as_staged(root, image)),
        };
        let (loader, thawed) = (Syscall::of(plan), decompressed(root, plan));
        let from = plan.kernel_from.iter().map(ToString::to_string).collect();
        StagedKernel {
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
            loader_why: syscall::ChoiceReason::of(
                root,
                calls,
                loader,
                thawed.contains(&Decompressed::Kernel),
            ),
            thawed,
        }
    }
}
