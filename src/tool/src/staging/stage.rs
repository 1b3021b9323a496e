//! Staging: choose the next kernel, copy its images to /run, where they outlive the file systems, test-load
//! them, and write the plan.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nextkernel_plan::{GpuPolicy, HandoffId, List, On, Plan, Preload, limits};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use thiserror::Error;

use crate::entries::entry::{self, Entry};
use crate::entries::{self, Choice};
use crate::freeing::gpus::{self, Gpu, Said};
use crate::freeing::unbind;
use crate::image::cmdline;
use crate::loading::loader::{self, Loader};
use crate::loading::prepare::handed_out::Look;
use crate::loading::test_load::{self, Files};
use crate::loading::{policy, refusal};
use crate::machine::elsewhere::Elsewhere;
use crate::machine::hypervisor::Hypervisor;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::{efi, late_loads, memory, systemd};
use crate::report::{self, known};
use crate::request::arguments::Wish;
use crate::request::choices::{OnVerb, PreloadChoice};
use crate::request::conf::{self, Conf, FirmwareRequests};
use crate::staging::directory::{self, Folder, NewSet};
use crate::staging::extra::{self, Extra};
use crate::staging::images::{self, Source};
use crate::staging::origin::{Origin, Original};
use crate::staging::set::{self, Beside, Made, Order, Place};
use crate::words::errno::InWords;
use crate::words::quoted::quoted;
use crate::words::size::Size;

/// Maximum number of characters of user input that a note shows.
const SHOWN_MAX: usize = 40;

/// Number of load calls at the end of shutdown, if the kernel limits their number.
const NIGHTS_CALLS: u64 = 1;

/// The reason why nothing was staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error("/run/nextkernel belongs to root; run this with sudo")]
    NotRoot,
    /// `/` is not the running system.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
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
    Loader(#[from] loader::Error),
    /// Two options exclude each other.
    #[error("--no-rehearse loads nothing, and --preload keeps what was loaded; leave one out")]
    PreloadedWithoutLoad,
    /// Explicit files were given without a command line.
    #[error("{} says nothing about its command line; add --reuse-cmdline, or --cmdline TEXT", .0.display())]
    NoCommandLine(PathBuf),
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
    CommandLine(#[from] cmdline::Error),
    /// An image cannot be copied.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// The image set cannot be made.
    #[error(transparent)]
    Set(#[from] set::Error),
    /// A file of `--extra` cannot be added.
    #[error(transparent)]
    Extra(#[from] extra::Error),
    /// /run/nextkernel cannot be used.
    #[error(transparent)]
    Folder(#[from] directory::Error),
    /// There is too little room in /run.
    #[error("/run has {} free, and staging needs {}: {way_out}", Size(*.room), Size(*.need))]
    NoRoom {
        /// Bytes free.
        room: u64,
        /// Bytes needed.
        need: u64,
        /// The remedy.
        way_out: String,
    },
    /// There is too little memory.
    #[error(
        "staging takes {} of memory for a moment, and {} can be had without killing anything{}; free some, {}use a smaller \
         initrd, {}or leave the trial load out with --no-rehearse, if services that end leave enough for the load at shutdown",
        Size(*.need),
        Size(*.available),
        if *.huge > 0 { format!(", for {} are kept as huge pages that nobody uses", Size(*.huge)) } else { String::new() },
        if *.huge > 0 { "give those back (sysctl vm.nr_hugepages=0), " } else { "" },
        if *.thaws { "leave --thaw out, " } else { "" }
    )]
    NoMemory {
        /// Whether decompression was requested.
        thaws: bool,
        /// Bytes needed.
        need: u64,
        /// Bytes available.
        available: u64,
        /// Bytes of huge pages that are not in use.
        huge: u64,
    },
    /// The kernel allows too few loads until the next boot.
    #[error(
        "kernel.kexec_load_limit_reboot allows {left} more loads until the next boot, and staging takes {need}, \
         the night's included; --no-rehearse takes one"
    )]
    LimitTooLow {
        /// Number of loads left.
        left: u64,
        /// Number of loads that staging takes, including the one at the end of shutdown.
        need: u64,
    },
    /// The kernel refuses the image.
    #[error("{error}; what was staged before is as it was")]
    Refused {
        /// The kernel's error.
        error: test_load::Error,
    },
    /// The kernel took the image once, and refused it the second time.
    #[error(
        "{error}; nothing new is staged, and what was loaded before is loaded no more: stage again, or `nextkernel unstage`"
    )]
    RefusedAgain {
        /// The kernel's error.
        error: test_load::Error,
    },
    /// The kernel took the image, and fails to unload it.
    #[error("{error}; the new image is still loaded, and no plan is for it: `nextkernel unstage` unloads it")]
    StaysLoaded {
        /// The kernel's error on unloading.
        error: test_load::Error,
    },
    /// A signal asked this process to end.
    #[error("{0} came while the images were copied; what was staged before is as it was")]
    Interrupted(Signal),
    /// No id could be generated for the handoff.
    #[error("/dev/urandom cannot be read: {}", InWords(.0))]
    NoRandom(io::Error),
}

/// Stages without printing anything.
pub fn quietly(root: &Root, wish: &Wish) -> Result<(), Error> {
    stage(root, wish, loader::calls(root)).map(drop)
}

/// The result of staging.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) handoff: HandoffId,
    /// Notes for the user, in addition to the status.
    pub(crate) notes: Vec<String>,
}

/// Stages on a kernel that has these loading syscalls.
pub(crate) fn stage(root: &Root, wish: &Wish, calls: Option<Calls>) -> Result<Staged, Error> {
    if let Some(hypervisor) = Hypervisor::find(root).filter(|found| found.forbids_the_jump()) {
        return Err(Error::NoJump(hypervisor));
    }
    let conf = Conf::read(root)?;
    let (preload, late_load) = preload(root, wish, &conf)?;
    if let Some(most) = conf.handoff_failed {
        let count = known::failed(root)?.len();
        if count >= usize::from(most) {
            return Err(Error::Failed { count, most });
        }
    }
    let Choice { entry, once, mut notes } = chosen(root, wish, &conf)?;
    notes.extend(late_load);
    let menu = Original::menu(root, &entry);
    // Open the files before looking at the command line: the error for a missing file comes first.
    let (kernel, initrds) = Source::of(root, &entry)?;
    let gpus = gpus::find(root, Said::Conf(&conf));
    let (line, said) = command_line(root, wish, &entry, &conf, gpus::stale_framebuffer(&gpus))?;
    notes.extend(said);
    let line = match once {
        Some(once) => cmdline::checked(&cmdline::with(&line, &once.parameter()), &[])?,
        None => line,
    };
    if conf.offline_cpus && cfg!(target_arch = "x86_64") {
        notes.push(
            "offline-cpus = yes in /etc/nextkernel.conf costs time on x86, whose kernel stops its processors in a moment; \
             it is for arm64 and riscv64"
                .to_owned(),
        );
    }
    let others = unbind::find(root, &conf.unbind)?;
    notes.extend(others.left_out.iter().cloned());
    let origin = Origin::of(wish, &entry, menu, (&kernel, &initrds));
    let extra = Extra::find(root, &wish.extra)?;
    let order = order(root, wish, &conf, calls, (&kernel, &initrds, &extra, &line), &mut notes)?;

    let sizes = order.sizes()?;
    let to_load = |bytes: u64| if wish.no_rehearse { 0 } else { bytes };
    let thaws = order.thaws_kernel || order.thaws_initrd;
    if let Some(why) = refusal::too_large(root, sizes.memory()).filter(|_| order.loader == Loader::Direct) {
        return Err(set::Error::TooLarge(why).into());
    }
    let folder = Folder::open(root)?;
    let Left { may_be_loaded, interrupted } = clear_up(root, &folder)?;
    see_that_there_is_room(&folder, sizes.room())?;
    let staged = sizes.room().saturating_sub(set::SPARE);
    see_that_there_is_memory(root, staged.saturating_add(to_load(sizes.to_load())), thaws)?;

    let unloads = !preload.stays_loaded() && (!wish.no_rehearse || may_be_loaded);
    let need = NIGHTS_CALLS + u64::from(!wish.no_rehearse) + u64::from(unloads);
    if let Some(left) = policy::calls_left(root).filter(|left| *left < need) {
        return Err(Error::LimitTooLow { left, need });
    }

    // From here on signals are deferred. Half-copied files, which may include a key of `--extra`, are removed
    // on an error, and no image without a plan stays loaded.
    let uninterrupted = Uninterrupted::begin(root);
    let handoff = new_id(root)?;
    let set = folder.new_set(handoff)?;
    let place = Place { root, folder: &folder, set: &set };
    let mut made = set::make(place, &order, || see_that_nobody_interrupts(uninterrupted.as_ref()))?;
    // A wrapped kernel may state a wrong size, so check again with the real sizes. The copies already take
    // their memory.
    see_that_there_is_memory(root, to_load(made.to_load()), thaws)?;

    origin.write(&set)?;

    let names = ["kernel", "initrd", "parameters"].map(|name| format!("{handoff}/{name}"));
    let [kernel_name, initrd_name, parameters_name] = &names;
    let direct = made.direct.as_ref().map(|direct| {
        Ok::<_, Error>(direct.plan(measured(&folder, &direct.parameters, parameters_name)?)?)
    });
    let mut plan = Plan {
        handoff,
        entry: called(&entry),
        staged_at: now(),
        on: on(&wish.on, preload),
        preload,
        kernel: measured(&folder, &made.kernel.copy, kernel_name)?,
        initrd: made.initrd.as_ref().map(|copy| measured(&folder, copy, initrd_name)).transpose()?,
        // A file system that is mounted for this process alone cannot be found afterwards.
        kernel_from: kernel.piece.path.to_str().filter(|_| !entry.aside),
        initrd_from: if entry.aside { List::new() } else { paths(&initrds)? },
        cmdline: &line,
        gpu: list(conf.gpu.iter().map(|(driver, policy)| GpuPolicy { driver, policy: *policy })),
        gpu_failed: conf.gpu_failed,
        modules: list(conf.modules.iter().map(String::as_str)),
        unbind: list(others.addresses.iter().map(String::as_str)),
        guard: conf.guard,
        watchdog: wish.watchdog.or(conf.watchdog),
        jump: conf.jump,
        offline_cpus: conf.offline_cpus,
        passes_firmware_over: conf.firmware_requests == FirmwareRequests::Ignore,
        direct: direct.transpose()?,
    };
    see_that_nobody_interrupts(uninterrupted.as_ref())?;
    let acts = Acts { loads: !wish.no_rehearse, unloads, interrupted };
    let took = try_out(place, &order, &mut plan, &mut made, &acts)?;
    commit(root, &folder, set, &plan, &acts)?;
    notes.extend(made.notes);
    let loader = Loader::of(&plan).to_string();
    if let Err(error) = report::history::staged(root, handoff, plan.entry, &loader, took) {
        notes.push(format!(
            "`nextkernel report` will not know how long the load took: its history cannot be written: {}",
            InWords(&error)
        ));
    }
    Ok(Staged { handoff, notes })
}

/// Decides what to make of the files, and adds notes about it.
fn order<'a>(
    root: &Root,
    wish: &Wish,
    conf: &Conf,
    calls: Option<Calls>,
    (kernel, initrds, extra, line): (&'a Source, &'a [Source], &'a Extra, &'a str),
    notes: &mut Vec<String>,
) -> Result<Order<'a>, Error> {
    let (wanted, thaws) = (wish.loader.or(conf.loader).unwrap_or_default(), wish.thaw.unwrap_or(conf.thaw));
    let is_packed = loader::is_packed();
    let choice = loader::choose(root, calls, wanted, thaws, is_packed)?;
    notes.extend(choice.frozen.map(|frozen| frozen.to_string()));
    Ok(Order {
        kernel,
        initrds,
        extra,
        line,
        loader: choice.loader,
        unthawed: choice.unthawed,
        thaws_kernel: thaws && is_packed && choice.loader == Loader::Direct,
        thaws_initrd: thaws,
    })
}

/// The steps after the image set is made.
#[allow(clippy::struct_excessive_bools)]
struct Acts {
    /// The image is test-loaded.
    loads: bool,
    /// The loaded image is unloaded again.
    unloads: bool,
    interrupted: bool,
}

/// Writes the proposed plan and test-loads it. Returns how long the load took.
fn try_out(
    place: Place<'_>,
    order: &Order<'_>,
    plan: &mut Plan<'_>,
    made: &mut Made,
    acts: &Acts,
) -> Result<Option<Duration>, Error> {
    let (root, folder) = (place.root, place.folder);
    folder.propose(plan)?;
    let load = || test_load(place, order, plan, made, acts);
    let unload = || test_load::unload(root, NIGHTS_CALLS);
    let rehearsed = rehearsed(acts.loads.then_some(load), acts.unloads.then_some(unload));
    rehearsed.inspect_err(|error| {
        if !acts.interrupted && !matches!(error, Error::StaysLoaded { .. }) {
            folder.withdraw();
        }
    })
}

/// Makes the proposed plan the active one.
fn commit(root: &Root, folder: &Folder, set: NewSet, plan: &Plan<'_>, acts: &Acts) -> Result<(), Error> {
    folder.commit(plan.handoff, set).map_err(|error| {
        // If nothing is loaded, the previous plan's image is loaded at the end of shutdown, provided that it
        // has copies.
        let is_known = !plan.preload.stays_loaded() || test_load::unload(root, 0).is_ok();
        if is_known && !acts.interrupted {
            folder.withdraw();
        }
        Error::Folder(error)
    })?;
    if plan.preload == Preload::Only {
        folder.drop_copies(plan);
    }
    Ok(())
}

/// Loads the image as the plan says, and returns how long that took. If the hook will load by segments, and the
/// kernel allocates pages for that in the very memory that the segments are to go to, changes the plan so that
/// they go elsewhere.
fn test_load(
    place: Place<'_>,
    order: &Order<'_>,
    plan: &mut Plan<'_>,
    made: &mut Made,
    acts: &Acts,
) -> Result<Duration, Error> {
    let root = place.root;
    let later = NIGHTS_CALLS + u64::from(acts.unloads);
    let load = |plan: &Plan<'_>, made: &Made| load(root, plan, made, later);
    let may_move = !plan.preload.starts_what_is_loaded() && policy::calls_left(root).is_none();
    let look = made.direct.as_ref().filter(|_| may_move);
    let look = look.and_then(|direct| Look::before(root, direct.segments()));
    let took = load(plan, made).map_err(|error| Error::Refused { error })?;
    let Some(look) = look.filter(|look| look.may_be_in_its_own_way(root)) else { return Ok(took) };
    let unload = || test_load::unload(root, later);
    let avoided = match look.blocks(root, unload) {
        Ok(avoided) => avoided,
        // Unloading failed, but the image is meant to stay loaded.
        Err(_) if !acts.unloads => return Ok(took),
        Err(error) => return Err(Error::StaysLoaded { error }),
    };
    // If there is no other place, the image stays where it is and loads more slowly.
    let moved = !avoided.is_empty() && made.move_away(place, order, &avoided).is_ok();
    if let (true, Some(old), Some(direct)) = (moved, plan.direct, &made.direct) {
        plan.direct = Some(direct.plan(measured(place.folder, &direct.parameters, old.parameters.name)?)?);
        place.folder.propose(plan)?;
    }
    load(plan, made).map_err(|error| Error::RefusedAgain { error })
}

/// Loads the image, and returns how long that took.
fn load(root: &Root, plan: &Plan<'_>, made: &Made, later: u64) -> Result<Duration, test_load::Error> {
    let line = if plan.preload.stays_loaded() {
        test_load::preloaded(plan.cmdline, plan.handoff)
    } else {
        test_load::longest(plan.cmdline)
    };
    let (kernel, initrd) = (&made.kernel, made.initrd.as_ref());
    match (&plan.direct, &made.direct) {
        (Some(direct), Some(Beside { parameters, .. })) => {
            let files = Files { kernel: &kernel.copy, initrd, parameters };
            test_load::load_direct(root, files, direct, &line, later)
        }
        _ => test_load::load(root, kernel.judged(), initrd, &line, later),
    }
}

/// Loads, and unloads again unless the image is to stay. Returns how long the load took.
fn rehearsed(
    load: Option<impl FnOnce() -> Result<Duration, Error>>,
    unload: Option<impl FnOnce() -> Result<(), test_load::Error>>,
) -> Result<Option<Duration>, Error> {
    let loaded = load.map(|load| load()).transpose()?;
    unload.map_or(Ok(()), |unload| unload()).map_err(|error| match loaded {
        Some(_) => Error::StaysLoaded { error },
        None => Error::Refused { error },
    })?;
    Ok(loaded)
}

/// The remains of the previous stage.
struct Left {
    /// An image of ours may be loaded.
    may_be_loaded: bool,
    /// The previous stage was interrupted, and the loaded image may be one that no plan names. The mark stays
    /// until that image is gone.
    interrupted: bool,
}

/// Cleans up after a stage that was killed.
fn clear_up(root: &Root, folder: &Folder) -> Result<Left, Error> {
    if !root.kexec_loaded() {
        folder.withdraw();
    }
    let interrupted = folder.was_interrupted();
    let text = Folder::plan_text(root)?;
    let Ok(plan) = text.as_deref().map(Plan::parse).transpose() else {
        // If the plan is unreadable, we cannot know which set belongs to it or whether its image is loaded.
        return Ok(Left { may_be_loaded: true, interrupted });
    };
    folder.sweep(plan.as_ref().map(|plan| plan.handoff));
    let preloaded = plan.is_some_and(|plan| plan.preload.stays_loaded());
    Ok(Left { may_be_loaded: interrupted || preloaded, interrupted })
}

/// Blocks the signals of terminals and service managers while it exists; SIGKILL still ends the process. A
/// signal that arrives takes effect between two steps, or after the last one.
struct Uninterrupted {
    before: SigSet,
    asking: SigSet,
}

impl Uninterrupted {
    /// Blocks the signals, except those that the parent process has set to be ignored, as nohup(1) does: once
    /// blocked, they would be noticed.
    fn begin(root: &Root) -> Option<Uninterrupted> {
        let ignored = refusal::process_status(root, "SigIgn:");
        let ignored = ignored.and_then(|bits| u64::from_str_radix(&bits, 16).ok()).unwrap_or(0);
        let asking = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter();
        let asking: SigSet = asking.filter(|signal| (ignored >> (*signal as i32 - 1)) & 1 == 0).collect();
        let before = asking.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?;
        Some(Uninterrupted { before, asking })
    }

    /// Returns a pending signal, if there is one, and consumes it.
    fn heard(&self) -> Option<Signal> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signal = SignalFd::with_flags(&self.asking, flags).ok()?.read_signal().ok()??;
        Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()
    }
}

impl Drop for Uninterrupted {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

fn see_that_nobody_interrupts(uninterrupted: Option<&Uninterrupted>) -> Result<(), Error> {
    uninterrupted.and_then(Uninterrupted::heard).map_or(Ok(()), |signal| Err(Error::Interrupted(signal)))
}

/// Returns the entry's name in the plan: its id or, if that is too long, the last of its aliases that fits, or
/// else as much of the id as fits. A GRUB id includes the ids of all submenus on the way.
fn called(entry: &Entry) -> &str {
    let fits = |name: &&str| !name.is_empty() && name.len() <= limits::ENTRY_MAX;
    let also = entry.also.iter().map(String::as_str).rev();
    std::iter::once(entry.id.as_str()).chain(also).find(fits).unwrap_or_else(|| {
        let mut ends = (0..=limits::ENTRY_MAX).rev();
        ends.find_map(|end| entry.id.get(..end)).unwrap_or_default()
    })
}

/// Decides whether the image is preloaded, and returns a note about it.
fn preload(root: &Root, wish: &Wish, conf: &Conf) -> Result<(Preload, Option<String>), Error> {
    let preload = match (wish.preload, wish.no_rehearse) {
        (Some(PreloadChoice::Yes | PreloadChoice::Only), true) => return Err(Error::PreloadedWithoutLoad),
        (None, true) => PreloadChoice::No,
        (wished, _) => wished.unwrap_or(conf.preload),
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

/// Returns the requested entry, with notes about it.
pub fn chosen(root: &Root, wish: &Wish, conf: &Conf) -> Result<Choice, Error> {
    if wish.initrd.len() > limits::INITRDS_MAX {
        return Err(Error::TooManyInitrds(wish.initrd.len()));
    }
    if let Some(kernel) = &wish.kernel {
        let entry = entries::explicit(root, kernel, &wish.initrd)?;
        let notes = entry.notes.clone();
        Ok(Choice { entry, once: None, notes })
    } else {
        let name = wish.entry.as_deref().map(systemd::unescape);
        Ok(entries::choose(root, conf, name.as_deref())?)
    }
}

/// Returns the next kernel's command line, with notes about it.
fn command_line(
    root: &Root,
    wish: &Wish,
    entry: &Entry,
    conf: &Conf,
    stale: Option<&Gpu>,
) -> Result<(String, Vec<String>), Error> {
    let own = entry.cmdline.as_ref().filter(|_| !wish.reuse_cmdline);
    let given = wish.cmdline.as_ref().or(own);
    let mut base = match (given, &wish.kernel) {
        (Some(line), _) => line.clone(),
        (None, Some(kernel)) if !wish.reuse_cmdline => return Err(Error::NoCommandLine(kernel.clone())),
        (None, _) => cmdline::reused(root)?,
    };
    if given.is_none() && conf.panic.is_some() {
        // The parameter may come from the configuration at the time when this kernel was staged.
        base = cmdline::without(&base, "panic");
    }
    let mut notes = Vec::new();
    for named in &wish.remove {
        match cmdline::removed(&base, named) {
            Some(fewer) => base = fewer,
            None => notes.push(format!("--remove: {} is not on the command line", quoted(named, SHOWN_MAX))),
        }
    }
    let mut line = cmdline::checked(&base, &wish.append)?;
    let panic = conf.panic.filter(|_| cmdline::value(&line, "panic").is_none());
    if let Some(seconds) = wish.panic.or(panic) {
        line = cmdline::with(&cmdline::without(&line, "panic"), &format!("panic={seconds}"));
    }
    if let Some(Gpu { module, .. }) = stale.filter(|_| !cmdline::is_without_sysfb(&line)) {
        let add = cmdline::NO_SYSFB;
        // A command line that the user gave is left unchanged.
        if wish.cmdline.is_none() {
            line = cmdline::without_sysfb(&line);
            notes
                .push(format!("{add} is on the command line: the framebuffer that {module} leaves is stale"));
        } else {
            notes.push(format!(
                "warning: the framebuffer that {module} leaves is stale, and the next kernel may draw over its own \
                 memory there; add {add} to --cmdline"
            ));
        }
    }
    if conf.acpi_rsdp && cmdline::value(&line, "acpi_rsdp").is_none() {
        match efi::acpi_root(root) {
            Some(address) => line = cmdline::with(&line, &format!("acpi_rsdp={address}")),
            None => notes.push(
                "acpi-rsdp: this machine's firmware tells no address (/sys/firmware/efi/systab); nothing is added".into(),
            ),
        }
    }
    Ok((cmdline::checked(&line, &[])?, notes))
}

/// Copies items of the configuration into a list of the plan. Both have the same limits, so nothing is lost.
fn list<T: Copy, const N: usize>(items: impl Iterator<Item = T>) -> List<T, N> {
    let mut list = List::new();
    for item in items {
        let _ = list.push(item);
    }
    list
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

fn see_that_there_is_room(folder: &Folder, need: u64) -> Result<(), Error> {
    let room = folder.room()?;
    if room >= need {
        return Ok(());
    }
    let way_out = way_to_room(folder.size()?, folder.taken(), room, need);
    Err(Error::NoRoom { room, need, way_out })
}

fn way_to_room(size: u64, taken: u64, room: u64, need: u64) -> String {
    let larger = size.saturating_add(need - room).div_ceil(1 << 20);
    let grow = format!("enlarge it (mount -o remount,size={larger}M /run)");
    if room + taken >= need { format!("`nextkernel unstage` frees {}; or {grow}", Size(taken)) } else { grow }
}

/// Returns an error if memory is short: the kernel would kill processes rather than refuse a load.
fn see_that_there_is_memory(root: &Root, need: u64, thaws: bool) -> Result<(), Error> {
    match memory::available(root) {
        Some(available) if available < need => {
            Err(Error::NoMemory { thaws, need, available, huge: memory::unused_huge_pages(root) })
        }
        _ => Ok(()),
    }
}

/// Returns the current time in seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns a new, random id for a handoff. Fails if /dev/urandom cannot be read.
pub fn new_id(root: &Root) -> Result<HandoffId, Error> {
    let mut bytes = [0; 8];
    let random = File::open(root.path("/dev/urandom")).and_then(|mut file| file.read_exact(&mut bytes));
    random.map_err(Error::NoRandom)?;
    Ok(HandoffId(u64::from_ne_bytes(bytes)))
}

fn measured<'a>(folder: &Folder, copy: &File, name: &'a str) -> Result<nextkernel_plan::Image<'a>, Error> {
    let io = |error| directory::Error::Io { path: folder.path(name), error };
    let found = copy.metadata().map_err(io)?;
    Ok(directory::measured(&found, name).ok_or_else(|| io(io::ErrorKind::InvalidData.into()))?)
}

fn paths(sources: &[Source]) -> Result<List<&str, { limits::INITRDS_MAX }>, Error> {
    let (mut paths, mut last) = (List::new(), None);
    for path in sources.iter().filter_map(|source| source.piece.origin().to_str()) {
        // Several sections may come from one file, and several packed files from one directory.
        if last.replace(path) == Some(path) {
            continue;
        }
        paths.push(path).map_err(|_| Error::TooManyInitrds(sources.len()))?;
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::freeing::gpus;
    use crate::image::header;
    use crate::machine::scratch::Scratch;

    const NO_SYSFB: &str = "initcall_blacklist=sysfb_init";

    const BOTH: Option<Calls> = Some(Calls { file: true, segments: true, loads_into_cma: false });

    /// Returns the command line and the notes of a machine that was started with `running`, with i915 or
    /// without.
    fn staged(running: &str, wish: &Wish, panic: Option<u16>, i915: bool) -> (String, Vec<String>) {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", running);
        if i915 {
            gpus::tests::add(&scratch, "i915", "0000:00:02.0", "live");
        }
        let conf = Conf { panic, ..Conf::default() };
        let gpus = gpus::find(&scratch.root, Said::Conf(&conf));
        let entry = entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap();
        command_line(&scratch.root, wish, &entry, &conf, gpus::stale_framebuffer(&gpus)).unwrap()
    }

    fn line(running: &str, wish: &Wish, panic: Option<u16>) -> String {
        staged(running, wish, panic, false).0
    }

    #[test]
    fn an_entrys_own_line_is_taken_and_can_be_added_to_or_overridden() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "root=running panic=1");
        let entry = |own: &str| Entry {
            cmdline: Some(own.to_owned()),
            ..entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap()
        };
        let conf = Conf { panic: Some(30), ..Conf::default() };
        let line = |wish: &Wish, own| command_line(&scratch.root, wish, &entry(own), &conf, None).unwrap().0;
        let append = |append: &str| Wish { append: vec![append.to_owned()], ..Wish::default() };
        assert_eq!(line(&Wish::default(), "root=own"), "root=own panic=30");
        assert_eq!(line(&Wish::default(), "root=own panic=5"), "root=own panic=5");
        assert_eq!(line(&Wish::default(), ""), "panic=30");
        assert_eq!(line(&append("quiet"), "root=own"), "root=own quiet panic=30");
        let reuse = Wish { reuse_cmdline: true, ..append("quiet") };
        assert_eq!(line(&reuse, "root=own"), "root=running quiet panic=30");
        let given = Wish { cmdline: Some("root=given".to_owned()), ..Wish::default() };
        assert_eq!(line(&given, "root=own"), "root=given panic=30");
    }

    #[test]
    fn what_was_said_last_about_a_panic_counts() {
        let (reuse, given) =
            (Wish::default(), |line: &str| Wish { cmdline: Some(line.to_owned()), ..Wish::default() });
        assert_eq!(line("root=x panic=1", &reuse, None), "root=x panic=1");
        assert_eq!(line("root=x panic=1 quiet", &reuse, Some(30)), "root=x quiet panic=30");
        let append = Wish { append: vec!["panic=5".to_owned()], ..Wish::default() };
        assert_eq!(line("root=x panic=1", &append, Some(30)), "root=x panic=5");
        assert_eq!(line("", &given("root=x panic=5"), Some(30)), "root=x panic=5");
        assert_eq!(line("", &given("root=x"), Some(30)), "root=x panic=30");
        let wished = Wish { panic: Some(60), ..append };
        assert_eq!(line("root=x panic=1", &wished, Some(30)), "root=x panic=60");
        assert_eq!(line("root=x -- single", &reuse, Some(30)), "root=x panic=30 -- single");
    }

    #[test]
    fn the_next_kernel_is_kept_from_a_stale_framebuffer_where_the_line_is_ours() {
        let (line, notes) = staged("root=x", &Wish::default(), None, true);
        assert_eq!(line, format!("root=x {NO_SYSFB}"));
        assert!(matches!(notes.as_slice(), [note] if note.contains("i915")), "{notes:?}");
        let given = Wish { cmdline: Some("root=x".to_owned()), ..Wish::default() };
        let (line, notes) = staged("", &given, None, true);
        assert_eq!(line, "root=x");
        assert!(matches!(notes.as_slice(), [note] if note.starts_with("warning") && note.contains(NO_SYSFB)));
        assert_eq!(staged("root=x", &Wish::default(), None, false), ("root=x".to_owned(), Vec::new()));
    }

    #[test]
    fn what_is_to_be_left_out_goes_before_anything_is_appended() {
        let wish = |remove: &[&str], append: &str| Wish {
            remove: remove.iter().map(ToString::to_string).collect(),
            append: vec![append.to_owned()],
            ..Wish::default()
        };
        let (line, notes) = staged("root=x quiet splash -- quiet", &wish(&["quiet"], ""), None, false);
        assert_eq!((line.as_str(), notes.len()), ("root=x splash -- quiet", 0));
        let (line, notes) = staged("root=x", &wish(&["quiet", "root=x"], "quiet"), Some(30), false);
        assert_eq!(line, "quiet panic=30");
        assert_eq!(notes, ["--remove: 'quiet' is not on the command line"]);
    }

    #[test]
    fn the_root_of_the_acpi_tables_is_told_where_it_is_wanted_and_never_twice() {
        let scratch = Scratch::new();
        let entry = entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap();
        let staged = |running: &str, acpi_rsdp| {
            scratch.put("/proc/cmdline", running);
            let conf = Conf { acpi_rsdp, ..Conf::default() };
            command_line(&scratch.root, &Wish::default(), &entry, &conf, None).unwrap()
        };
        let (line, notes) = staged("root=x", true);
        assert!(line == "root=x" && notes.concat().contains("/sys/firmware/efi/systab"), "{notes:?}");
        scratch.put("/sys/firmware/efi/systab", "ACPI20=0x3fbfa014\nACPI=0x3fbfa000\n");
        let (once, notes) = staged("root=x -- single", true);
        assert!(once == "root=x acpi_rsdp=0x3fbfa014 -- single" && notes.is_empty(), "{once}");
        assert_eq!(staged(&once, true).0, once);
        assert_eq!(staged("acpi-rsdp=0x1", true).0, "acpi-rsdp=0x1");
        assert_eq!(staged("root=x", false).0, "root=x");
    }

    #[test]
    fn from_where_no_jump_is_possible_nothing_is_staged() {
        let scratch = Scratch::new();
        scratch.put("/sys/hypervisor/type", "xen\n");
        scratch.put("/sys/hypervisor/guest_type", "PV\n");
        assert!(matches!(
            stage(&scratch.root, &Wish::default(), BOTH),
            Err(Error::NoJump(Hypervisor::XenPv))
        ));
    }

    /// A machine on which a kernel of 1024 bytes, which unpacks to 32 MiB, can be staged without a test load.
    fn machine() -> (Scratch, Wish) {
        let scratch = Scratch::new();
        let kernel = header::tests::image(&[(0x202, b"HdrS"), (0x260, &(32_u32 << 20).to_le_bytes())]);
        std::fs::write(scratch.root.path("/vmlinuz"), kernel).unwrap();
        scratch.put("/dev/urandom", "12345678");
        let wish = Wish {
            kernel: Some("/vmlinuz".into()),
            cmdline: Some("root=x".to_owned()),
            no_rehearse: true,
            ..Wish::default()
        };
        (scratch, wish)
    }

    #[test]
    fn a_file_that_is_not_there_is_said_to_be_so_before_it_is_asked_for_a_command_line() {
        let (scratch, wish) = machine();
        let without = |kernel: &str| Wish { kernel: Some(kernel.into()), cmdline: None, ..wish.clone() };
        let refused = |kernel| stage(&scratch.root, &without(kernel), BOTH).unwrap_err().to_string();
        assert!(refused("/missing").starts_with("the kernel /missing cannot be read: "));
        assert!(refused("/vmlinuz").starts_with("/vmlinuz says nothing about its command line"));
    }

    #[test]
    fn where_run_is_too_small_the_size_that_is_enough_is_told() {
        const MIB: u64 = 1 << 20;
        let grow = "enlarge it (mount -o remount,size=115M /run)";
        assert_eq!(way_to_room(97 * MIB, 0, 6 * MIB + 1, 24 * MIB), grow);
        assert_eq!(way_to_room(97 * MIB, 8 * MIB, 6 * MIB + 1, 24 * MIB), grow);
        let way_out = way_to_room(97 * MIB, 20 * MIB, 6 * MIB, 24 * MIB);
        assert_eq!(way_out, format!("`nextkernel unstage` frees 21 MB; or {grow}"));
    }

    #[test]
    fn the_memory_that_a_load_takes_holds_what_the_kernel_is_unpacked_to() {
        let (scratch, late) = machine();
        let wish = Wish { no_rehearse: false, ..late };
        scratch.put("/proc/meminfo", "MemAvailable: 32769 kB\n");
        let Err(Error::NoMemory { need, .. }) = stage(&scratch.root, &wish, BOTH) else { unreachable!() };
        // The copy, the file as the kernel reads it, and the segment.
        assert_eq!(need, 1024 + 1024 + (32 << 20));
        let late = Wish { no_rehearse: true, ..wish };
        assert!(stage(&scratch.root, &late, BOTH).is_ok());
    }

    #[test]
    fn what_is_staged_is_the_handoff_that_is_told_and_a_long_name_is_told_shorter() {
        let (scratch, wish) = machine();
        let Staged { handoff, .. } = stage(&scratch.root, &wish, BOTH).unwrap();
        let text = Folder::plan_text(&scratch.root).unwrap().unwrap();
        assert_eq!(Plan::parse(&text).unwrap().handoff, handoff);
        let (long, title) = ("é".repeat(limits::ENTRY_MAX), "Debian".to_owned());
        let entry = |also: &[&String]| Entry {
            id: long.clone(),
            also: also.iter().map(ToString::to_string).collect(),
            ..entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap()
        };
        assert_eq!(called(&entry(&[&"1>2".to_owned(), &title, &long])), title);
        assert_eq!(called(&entry(&[&long, &String::new()])), "é".repeat(limits::ENTRY_MAX / 2));
        assert_eq!(called(&Entry { id: "own".to_owned(), ..entry(&[&title]) }), "own");
    }

    #[test]
    fn the_mark_of_an_interrupted_stage_outlives_one_that_fails_while_anything_is_loaded() {
        let (scratch, wish) = machine();
        let mark = scratch.root.path("/run/nextkernel/plan.new");
        for (loaded, stays) in [("1\n", true), ("0\n", false)] {
            scratch.put("/run/nextkernel/plan.new", "");
            scratch.put("/sys/kernel/kexec_loaded", loaded);
            scratch.put("/proc/meminfo", "MemAvailable: 0 kB\n");
            assert!(matches!(stage(&scratch.root, &wish, BOTH), Err(Error::NoMemory { .. })));
            assert_eq!(mark.exists(), stays, "{loaded}");
        }
    }

    #[test]
    fn an_image_that_stays_loaded_is_told_from_one_that_was_never_taken() {
        let refusal = || test_load::tests::refusal("unload");
        let (take, refuse) = (|| Ok(Duration::ZERO), || Err(Error::Refused { error: refusal() }));
        let (unload, keep) = (|| Ok(()), || Err(refusal()));
        let none = None::<fn() -> Result<Duration, Error>>;
        let stays = rehearsed(Some(take), Some(keep)).unwrap_err().to_string();
        assert!(stays.ends_with("`nextkernel unstage` unloads it"), "{stays}");
        for refused in [rehearsed(Some(refuse), Some(unload)), rehearsed(none, Some(keep))] {
            assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        }
        assert!(rehearsed(Some(take), Some(unload)).is_ok_and(|took| took.is_some()));
        assert!(rehearsed(none, None::<fn() -> _>).is_ok_and(|took| took.is_none()));
    }

    #[test]
    fn who_interrupts_is_heard_between_two_steps_and_nothing_half_copied_is_left() {
        let (scratch, wish) = machine();
        let outer = Uninterrupted::begin(&scratch.root).unwrap();
        assert!(see_that_nobody_interrupts(Some(&outer)).is_ok());
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        let ended = stage(&scratch.root, &wish, BOTH).unwrap_err().to_string();
        assert!(ended.starts_with("SIGTERM came while"), "{ended}");
        let left = std::fs::read_dir(scratch.root.path("/run/nextkernel")).unwrap().count();
        assert_eq!(left, 1, "the lock alone");
        assert!(outer.heard().is_none());
        scratch.put("/proc/self/status", "SigIgn:\t0000000000004000\n");
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        assert!(stage(&scratch.root, &wish, BOTH).is_ok(), "it is ignored here");
        assert_eq!(outer.heard(), Some(Signal::SIGTERM));
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
        let wish = Wish { kernel: Some("/x.efi".into()), initrd: vec!["/more".into()], ..Wish::default() };
        let Choice { entry, notes, .. } = chosen(&scratch.root, &wish, &Conf::default()).unwrap();
        let pieces = [&entry.kernel].into_iter().chain(&entry.initrds).map(ToString::to_string);
        assert_eq!(
            pieces.collect::<Vec<_>>(),
            ["/x.efi (.linux)", "/x.efi (.ucode)", "/x.efi (.initrd)", "/more"]
        );
        let line = |wish: &Wish| command_line(&scratch.root, wish, &entry, &Conf::default(), None).unwrap().0;
        assert_eq!(line(&wish), "own");
        assert_eq!(line(&Wish { cmdline: Some("given".to_owned()), ..Wish::default() }), "given");
        assert!(notes.is_empty());
        let sources = entry.initrds.iter().map(|piece| Source::open(&scratch.root, "initrd", piece));
        let sources: Vec<_> = sources.collect::<Result<_, _>>().unwrap();
        assert_eq!(paths(&sources).unwrap().iter().collect::<Vec<_>>(), ["/x.efi", "/more"]);
    }

    #[test]
    fn a_kernel_that_is_no_unified_image_says_nothing_about_its_command_line() {
        let scratch = Scratch::new();
        scratch.put("/vmlinuz", "MZ");
        for kernel in ["/vmlinuz", "/missing", "/run"] {
            let wish = Wish { kernel: Some(kernel.into()), ..Wish::default() };
            let Choice { entry, .. } = chosen(&scratch.root, &wish, &Conf::default()).unwrap();
            let line = command_line(&scratch.root, &wish, &entry, &Conf::default(), None);
            assert!(matches!(line, Err(Error::NoCommandLine(_))), "{kernel}");
        }
    }

    #[test]
    fn a_line_that_is_reused_does_not_grow() {
        let (once, _) = staged("root=x -- single", &Wish::default(), Some(30), true);
        assert_eq!(once, format!("root=x panic=30 {NO_SYSFB} -- single"));
        let (again, notes) = staged(&once, &Wish::default(), Some(30), true);
        assert_eq!(again.len(), once.len());
        assert!(notes.is_empty());
    }
}
