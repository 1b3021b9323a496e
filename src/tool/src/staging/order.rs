//! The order: all that is decided before anything is written. It is resolved once, from the request, the
//! configuration and the machine; nothing that comes after it reads those.

use nextkernel_plan::{GpuFailed, Jump, On, Policy, Preload, Watchdog, limits};
use thiserror::Error;

use crate::entries::entry::{self, Entry};
use crate::entries::{self, Choice};
use crate::freeing::gpus::{self, Said};
use crate::freeing::unbind;
use crate::loading::syscall::{self, Syscall};
use crate::machine::hypervisor::Hypervisor;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::{late_loads, systemd};
use crate::report::known;
use crate::request::choices::{OnVerb, PreloadChoice};
use crate::request::conf::{self, Conf, FirmwareRequests};
use crate::request::stage::{StageRequest, Target};
use crate::staging::contents::{Contents, Sizes};
use crate::staging::extra::{self, Extra};
use crate::staging::line::{self, Additions};
use crate::staging::origin::{Origin, Original};
use crate::staging::source::{self, Source};

/// The reason why there is nothing to stage.
#[derive(Debug, Error)]
pub enum Error {
    /// Too many handoffs in a row have failed.
    #[error(
        "{so_many}, and `handoff-failed = {most}` leaves restarts to the firmware then; `nextkernel report --history` shows \
         them, `nextkernel report --seen` makes them count no more",
        so_many = known::so_many_failed(*.count)
    )]
    Failed {
        /// Number of failed handoffs.
        count: usize,
        /// The limit, `handoff-failed`.
        most: u16,
    },
    /// It cannot be found out how many handoffs failed.
    #[error("{0}; `handoff-failed` needs it")]
    Report(#[from] known::Error),
    /// The hypervisor does not allow a jump.
    #[error("{}", .0.in_words())]
    NoJump(Hypervisor),
    /// No loading syscall is usable.
    #[error(transparent)]
    Syscall(#[from] syscall::Error),
    /// Two options exclude each other.
    #[error("--no-rehearse loads nothing, and --preload keeps what was loaded; leave one out")]
    PreloadedWithoutLoad,
    /// The configuration is invalid.
    #[error("{0}; what was staged before is as it was")]
    Conf(#[from] conf::Error),
    /// The configuration's list of devices to unbind is invalid.
    #[error("{0}; what was staged before is as it was")]
    Unbind(#[from] unbind::Error),
    /// No entry could be chosen.
    #[error(transparent)]
    Entry(#[from] entry::Error),
    /// Too many initrds were named.
    #[error("{0} initrds are named, and at most {max} are joined; join some yourself", max = limits::INITRDS_MAX)]
    TooManyInitrds(usize),
    /// The command line is invalid or unknown.
    #[error(transparent)]
    Line(#[from] line::Error),
    /// An image cannot be read.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// A file of `--extra` cannot be added.
    #[error(transparent)]
    Extra(#[from] extra::Error),
}

/// An order to stage.
pub struct Order {
    /// The entry's name in the plan.
    pub entry: String,
    /// The image set to make.
    pub contents: Contents,
    /// Its sizes.
    pub sizes: Sizes,
    /// The files and the request that the set comes from.
    pub origin: Origin,
    /// The verbs that the plan covers.
    pub on: On,
    /// Whether the image is loaded while it is staged.
    pub preload: Preload,
    /// Whether the test load is left out.
    pub skips_test_load: bool,
    /// What the hook does before the jump.
    pub policies: Policies,
    /// The files that the plan names as the images' origin: the kernel and the initrds.
    pub from: (Option<String>, Vec<String>),
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The settings that the hook follows. Each is a key of the plan.
pub struct Policies {
    /// The treatment of GPU drivers.
    pub gpu: Vec<(String, Policy)>,
    /// What to do if a GPU cannot be freed.
    pub gpu_failed: Option<GpuFailed>,
    /// More modules to unload, in this order.
    pub modules: Vec<String>,
    /// The PCI addresses of devices to unbind.
    pub unbind: Vec<String>,
    /// The seconds that the jump may take.
    pub guard: Option<u16>,
    /// Whether to stop the hardware watchdog before the jump, or to arm it.
    pub watchdog: Option<Watchdog>,
    /// Whether the hook or the init makes the jump.
    pub jump: Option<Jump>,
    /// Whether to take every processor but the first offline early.
    pub offline_cpus: bool,
    /// Whether requests for the firmware are ignored.
    pub passes_firmware_over: bool,
}

impl Order {
    /// Resolves a request, on a kernel that has these loading syscalls. Writes nothing.
    pub fn resolve(root: &Root, request: &StageRequest, calls: Option<Calls>) -> Result<Order, Error> {
        if let Some(hypervisor) = Hypervisor::find(root).filter(|found| found.forbids_the_jump()) {
            return Err(Error::NoJump(hypervisor));
        }
        let conf = Conf::read(root)?;
        let (preload, late_load) = preload(root, request, &conf)?;
        see_that_few_handoffs_failed(root, &conf)?;

        let Choice { entry, once, mut notes } = choose(root, request, &conf)?;
        notes.extend(late_load);
        let menu = Original::menu(root, &entry);
        // Open the files before looking at the command line: the error for a missing file comes first.
        let (kernel, initrds) = Source::of(root, &entry.kernel, &entry.initrds)?;
        let gpus = gpus::find(root, Said::Conf(&conf));
        let additions = Additions { stale: gpus::stale_framebuffer(&gpus), once: once.as_ref() };
        let (line, about_line) = line::resolve(root, request, &conf, &entry, additions)?;
        notes.extend(about_line);
        let (policies, about_policies) = Policies::resolve(root, request, &conf)?;
        notes.extend(about_policies);
        let origin = Origin::of(request, &entry, menu, (&kernel, &initrds));
        let extra = Extra::find(root, &request.extra)?;

        let decompresses = request.decompress.unwrap_or(conf.thaw);
        let wanted = request.syscall.or(conf.loader).unwrap_or_default();
        let choice = syscall::choose(root, calls, wanted, decompresses, syscall::is_packed())?;
        notes.extend(choice.left_compressed.map(|reason| reason.to_string()));
        let contents = Contents {
            kernel,
            initrds,
            extra,
            line,
            loader: choice.syscall,
            if_compressed: choice.if_compressed,
            decompresses_kernel: decompresses
                && syscall::is_packed()
                && choice.syscall == Syscall::SegmentLoad,
            decompresses_initrd: decompresses,
        };
        Ok(Order {
            entry: called(&entry).to_owned(),
            sizes: contents.sizes()?,
            from: from(&entry, &contents)?,
            contents,
            origin,
            on: on(&request.on, preload),
            preload,
            skips_test_load: request.skips_test_load,
            policies,
            notes,
        })
    }
}

impl Policies {
    /// Returns the policies, with notes about them.
    fn resolve(root: &Root, request: &StageRequest, conf: &Conf) -> Result<(Policies, Vec<String>), Error> {
        let mut notes = Vec::new();
        if conf.offline_cpus && cfg!(target_arch = "x86_64") {
            notes.push(
                "offline-cpus = yes in /etc/nextkernel.conf costs time on x86, whose kernel stops its processors in a moment; \
                 it is for arm64 and riscv64"
                    .to_owned(),
            );
        }
        let unbind = unbind::find(root, &conf.unbind)?;
        notes.extend(unbind.left_out);
        let policies = Policies {
            gpu: conf.gpu.clone(),
            gpu_failed: conf.gpu_failed,
            modules: conf.modules.clone(),
            unbind: unbind.addresses,
            guard: conf.guard,
            watchdog: request.watchdog.or(conf.watchdog),
            jump: conf.jump,
            offline_cpus: conf.offline_cpus,
            passes_firmware_over: conf.firmware_requests == FirmwareRequests::Ignore,
        };
        Ok((policies, notes))
    }
}

/// Returns the requested entry, with notes about it.
pub fn choose(root: &Root, request: &StageRequest, conf: &Conf) -> Result<Choice, Error> {
    match &request.target {
        Target::Files { initrds, .. } if initrds.len() > limits::INITRDS_MAX => {
            Err(Error::TooManyInitrds(initrds.len()))
        }
        Target::Files { kernel, initrds } => {
            let entry = entries::explicit(root, kernel, initrds)?;
            let notes = entry.notes.clone();
            Ok(Choice { entry, once: None, notes })
        }
        Target::Entry(name) => Ok(entries::choose(root, conf, Some(&systemd::unescape(name)))?),
        Target::Default => Ok(entries::choose(root, conf, None)?),
    }
}

/// Fails if as many handoffs in a row have failed as the configuration allows.
fn see_that_few_handoffs_failed(root: &Root, conf: &Conf) -> Result<(), Error> {
    let Some(most) = conf.handoff_failed else { return Ok(()) };
    let count = known::failed(root)?.len();
    if count >= usize::from(most) { Err(Error::Failed { count, most }) } else { Ok(()) }
}

/// Decides whether the image is preloaded, and returns a note about it.
fn preload(root: &Root, request: &StageRequest, conf: &Conf) -> Result<(Preload, Option<String>), Error> {
    let preload = match (request.preload, request.skips_test_load) {
        (Some(PreloadChoice::Yes | PreloadChoice::Only), true) => return Err(Error::PreloadedWithoutLoad),
        (None, true) => PreloadChoice::No,
        (requested, _) => requested.unwrap_or(conf.preload),
    };
    let only = match preload {
        PreloadChoice::No => return Ok((Preload::No, None)),
        PreloadChoice::Yes => false,
        PreloadChoice::Only => true,
    };
    Ok(match late_loads::find(root) {
        Some(unit) => {
            let copies = if only { ", and keeps copies for that" } else { "" };
            let note = format!(
                "{unit} loads another kernel while the system goes down: the hook loads the staged one once more{copies}; \
                 where {unit} is disabled it need not"
            );
            (Preload::Again, Some(note))
        }
        None => (if only { Preload::Only } else { Preload::Yes }, None),
    })
}

/// Returns the verbs that the plan covers. With an image loaded, systemd turns a reboot into kexec by itself,
/// so a plan that covers `reboot` covers `kexec`, too.
fn on(verbs: &[OnVerb], preload: Preload) -> On {
    match (verbs.contains(&OnVerb::Kexec), verbs.contains(&OnVerb::Reboot), preload.stays_loaded()) {
        (false, true, false) => On::Reboot,
        (_, true, _) => On::KexecAndReboot,
        (_, false, _) => On::Kexec,
    }
}

/// Returns the entry's name in the plan: its id or, if that is too long, the last of its aliases that fits, or
/// else as much of the id as fits. A GRUB id includes the ids of all submenus on the way.
fn called(entry: &Entry) -> &str {
    let fits = |name: &&str| !name.is_empty() && name.len() <= limits::ENTRY_MAX;
    let aliases = entry.aliases.iter().map(String::as_str).rev();
    std::iter::once(entry.id.as_str()).chain(aliases).find(fits).unwrap_or_else(|| {
        let mut ends = (0..=limits::ENTRY_MAX).rev();
        ends.find_map(|end| entry.id.get(..end)).unwrap_or_default()
    })
}

/// Returns the files that the images come from. A file system that is mounted for this process alone cannot be
/// found afterwards, so files on it are not named.
fn from(entry: &Entry, contents: &Contents) -> Result<(Option<String>, Vec<String>), Error> {
    if entry.aside {
        return Ok((None, Vec::new()));
    }
    let kernel = contents.kernel.piece.path.to_str().map(str::to_owned);
    let mut initrds: Vec<String> = contents
        .initrds
        .iter()
        .filter_map(|source| source.piece.origin().to_str())
        .map(str::to_owned)
        .collect();
    // Several sections may come from one file, and several packed files from one directory.
    initrds.dedup();
    if initrds.len() > limits::INITRDS_MAX {
        return Err(Error::TooManyInitrds(contents.initrds.len()));
    }
    Ok((kernel, initrds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use crate::request::stage::LineFrom;

    fn files(kernel: &str) -> Target {
        Target::Files { kernel: kernel.into(), initrds: Vec::new() }
    }

    #[test]
    fn the_plan_calls_an_entry_by_its_id_or_by_an_alias_or_by_a_part_that_fits() {
        let scratch = Scratch::new();
        let (long, title) = ("é".repeat(limits::ENTRY_MAX), "Debian".to_owned());
        let entry = |aliases: &[&String]| Entry {
            id: long.clone(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            ..entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap()
        };
        assert_eq!(called(&entry(&[&"1>2".to_owned(), &title, &long])), title);
        assert_eq!(called(&entry(&[&long, &String::new()])), "é".repeat(limits::ENTRY_MAX / 2));
        assert_eq!(called(&Entry { id: "own".to_owned(), ..entry(&[&title]) }), "own");
    }

    #[test]
    fn a_unified_kernel_image_brings_its_initrds_and_command_line_and_more_comes_behind() {
        let scratch = Scratch::new();
        let uki = crate::entries::uki::tests::efi(
            0x8664,
            &[(".linux", b"k"), (".initrd", b"i"), (".cmdline", b"own"), (".ucode", b"u")],
        );
        scratch.put("/x.efi", "");
        std::fs::write(scratch.root.path("/x.efi"), uki).unwrap();
        scratch.put("/more", "more");
        let request = StageRequest {
            target: Target::Files { kernel: "/x.efi".into(), initrds: vec!["/more".into()] },
            ..StageRequest::default()
        };
        let Choice { entry, notes, .. } = choose(&scratch.root, &request, &Conf::default()).unwrap();
        let pieces = [&entry.kernel].into_iter().chain(&entry.initrds).map(ToString::to_string);
        assert_eq!(
            pieces.collect::<Vec<_>>(),
            ["/x.efi (.linux)", "/x.efi (.ucode)", "/x.efi (.initrd)", "/more"]
        );
        let line = |request: &StageRequest| {
            let (conf, none) = (Conf::default(), Additions::default());
            line::resolve(&scratch.root, request, &conf, &entry, none).unwrap().0
        };
        assert_eq!(line(&request).as_str(), "own");
        let given = StageRequest { line: LineFrom::Given("given".to_owned()), ..StageRequest::default() };
        assert_eq!(line(&given).as_str(), "given");
        assert!(notes.is_empty());
        let (_, from) = Order::resolve(&scratch.root, &request, None).unwrap().from;
        assert_eq!(from, ["/x.efi", "/more"]);
    }

    #[test]
    fn a_kernel_that_is_no_unified_image_says_nothing_about_its_command_line() {
        let scratch = Scratch::new();
        scratch.put("/vmlinuz", "MZ");
        for kernel in ["/vmlinuz", "/missing", "/run"] {
            let request = StageRequest { target: files(kernel), ..StageRequest::default() };
            let Choice { entry, .. } = choose(&scratch.root, &request, &Conf::default()).unwrap();
            let (conf, none) = (Conf::default(), Additions::default());
            let line = line::resolve(&scratch.root, &request, &conf, &entry, none);
            assert!(matches!(line, Err(line::Error::NotGiven(_))), "{kernel}");
        }
    }
}
