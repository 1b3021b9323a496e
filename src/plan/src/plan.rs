use core::fmt;

use crate::direct::{Area, Direct, Segment, address};
use crate::image::number;
use crate::teardown::{GpuFailed, GpuPolicy, Watchdog, guard_seconds, is_module, is_pci_address};
use crate::{HandoffId, Image, List, On, limits};

/// The version of the plan's format that this crate reads and writes. Tool and hook are installed together,
/// so a plan of another version is refused.
pub const VERSION: u32 = 2;

const TITLE: &str = "nextkernel-plan ";
const END: &str = "end";

/// Whether the image is loaded at staging, and what the hook does with an image that is already loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preload {
    /// It is loaded only at the end of shutdown.
    No,
    /// It stays loaded, as after `kexec -l`, and the hook starts the loaded image. If none is loaded any
    /// more, the hook loads it.
    Yes,
    /// It stays loaded, and the hook loads it once more, because something else loads another image at the
    /// end of shutdown.
    Again,
    /// It stays loaded, and the image set has no copies. If no image is loaded any more, none is started.
    Only,
}

impl Preload {
    const ALL: [Preload; 4] = [Preload::No, Preload::Yes, Preload::Again, Preload::Only];

    /// Whether an image stays loaded while the system runs.
    #[must_use]
    pub const fn stays_loaded(self) -> bool {
        !matches!(self, Preload::No)
    }

    /// Whether the hook starts an image that is already loaded.
    #[must_use]
    pub const fn starts_what_is_loaded(self) -> bool {
        matches!(self, Preload::Yes | Preload::Only)
    }

    const fn word(self) -> &'static str {
        match self {
            Preload::No => "no",
            Preload::Yes => "yes",
            Preload::Again => "again",
            Preload::Only => "only",
        }
    }

    /// Returns the variant for a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Preload> {
        Preload::ALL.into_iter().find(|preload| preload.word() == word)
    }
}

impl fmt::Display for Preload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// The program that makes the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The hook.
    Hook,
    /// systemd, after the hook has loaded the kernel and returned. From version 261 on, systemd then hands on
    /// the file descriptors that it keeps for services (LUO). Only at `kexec`.
    Init,
}

impl Jump {
    /// Returns the variant for a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Jump> {
        match word {
            "hook" => Some(Jump::Hook),
            "init" => Some(Jump::Init),
            _ => None,
        }
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Jump::Hook => "hook",
            Jump::Init => "init",
        })
    }
}

/// One staged handoff. It borrows from the text from which it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<'a> {
    /// The id of the handoff.
    pub handoff: HandoffId,
    /// The name of the entry for people: a version, or the kernel's path.
    pub entry: &'a str,
    /// The time of staging, in seconds since the epoch.
    pub staged_at: u64,
    /// The verbs at which the plan is carried out.
    pub on: On,
    /// Whether the image was preloaded.
    pub preload: Preload,
    /// The kernel.
    pub kernel: Image<'a>,
    /// The initrd, with all its parts joined. Not every kernel needs one.
    pub initrd: Option<Image<'a>>,
    /// The file from which the kernel was copied.
    pub kernel_from: Option<&'a str>,
    /// The files from which the initrd was joined, in order.
    pub initrd_from: List<&'a str, { limits::INITRDS_MAX }>,
    /// The command line, without the record.
    pub cmdline: &'a str,
    /// The administrator's policies for GPU drivers. Other drivers are handled by the default of their
    /// family.
    pub gpu: List<GpuPolicy<'a>, { limits::GPU_POLICIES_MAX }>,
    /// The action if the driver of a GPU could not be unloaded, if the administrator has set one.
    pub gpu_failed: Option<GpuFailed>,
    /// Further modules to unload, in this order.
    pub modules: List<&'a str, { limits::MODULES_MAX }>,
    /// PCI addresses of other devices to unbind from their drivers, all at the same time.
    pub unbind: List<&'a str, { limits::UNBIND_MAX }>,
    /// The number of seconds that the jump may take before the guard resets the machine, if the administrator
    /// has set one.
    pub guard: Option<u16>,
    /// The setting of the hardware watchdog, if the administrator has made one.
    pub watchdog: Option<Watchdog>,
    /// The program that makes the jump, if the administrator has chosen one.
    pub jump: Option<Jump>,
    /// Whether all processors but the first are taken offline early, because the administrator wants it.
    pub offline_cpus: bool,
    /// Whether requests in the firmware's variables are ignored, because the administrator wants it.
    pub passes_firmware_over: bool,
    /// The arguments of `kexec_load(2)`. `None` if the running kernel is to load, and verify, kernel and
    /// initrd itself.
    pub direct: Option<Direct<'a>>,
}

/// An error in a plan, and its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, counted from 1.
    pub line: usize,
    /// The error.
    pub fault: Fault,
}

/// The errors that a plan can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The plan is longer than [`limits::PLAN_MAX`].
    TooLong,
    /// The line holds a byte that is not text: invalid UTF-8 or a control character.
    NotText,
    /// The first line is not that of a plan.
    NotAPlan,
    /// The plan has this other version.
    OtherVersion(u32),
    /// The line is not `KEY = VALUE`.
    NotAPair,
    /// This version has no such key.
    UnknownKey,
    /// The key was given before.
    Twice,
    /// The key cannot have this value.
    BadValue(&'static str),
    /// The plan ends without this key.
    Missing(&'static str),
    /// There is no segment, or a range reaches beyond its file.
    Outside,
    /// The last line is missing: the plan was cut short.
    NoEnd,
    /// Something follows the last line.
    AfterEnd,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: ", self.line)?;
        match self.fault {
            Fault::TooLong => write!(out, "the plan is longer than {} bytes", limits::PLAN_MAX),
            Fault::NotText => out.write_str("a byte that is not text"),
            Fault::NotAPlan => write!(out, "not a plan: it does not begin with '{TITLE}{VERSION}'"),
            Fault::OtherVersion(version) => {
                write!(out, "a plan of version {version}, and only version {VERSION} is known here")
            }
            Fault::NotAPair => out.write_str("not of the form 'key = value'"),
            Fault::UnknownKey => out.write_str("no such key"),
            Fault::Twice => out.write_str("this key was given before"),
            Fault::BadValue(key) => write!(out, "not a value for '{key}'"),
            Fault::Missing(key) => write!(out, "the plan ends without '{key}'"),
            Fault::Outside => out.write_str("a segment is missing, or reaches beyond its file"),
            Fault::NoEnd => write!(out, "the plan was cut short: no '{END}'"),
            Fault::AfterEnd => write!(out, "something stands after '{END}'"),
        }
    }
}

impl core::error::Error for Malformed {}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{TITLE}{VERSION}")?;
        writeln!(out, "handoff = {}", self.handoff)?;
        writeln!(out, "entry = {}", self.entry)?;
        writeln!(out, "staged-at = {}", self.staged_at)?;
        writeln!(out, "on = {}", self.on)?;
        writeln!(out, "preload = {}", self.preload)?;
        writeln!(out, "kernel = {}", self.kernel)?;
        if let Some(initrd) = self.initrd {
            writeln!(out, "initrd = {initrd}")?;
        }
        if let Some(path) = self.kernel_from {
            writeln!(out, "kernel-from = {path}")?;
        }
        for path in self.initrd_from.iter() {
            writeln!(out, "initrd-from = {path}")?;
        }
        writeln!(out, "cmdline = {}", self.cmdline)?;
        for gpu in self.gpu.iter() {
            writeln!(out, "gpu = {gpu}")?;
        }
        if let Some(failed) = self.gpu_failed {
            writeln!(out, "gpu-failed = {failed}")?;
        }
        for module in self.modules.iter() {
            writeln!(out, "module = {module}")?;
        }
        for address in self.unbind.iter() {
            writeln!(out, "unbind = {address}")?;
        }
        if let Some(seconds) = self.guard {
            writeln!(out, "guard = {seconds}")?;
        }
        if let Some(watchdog) = self.watchdog {
            writeln!(out, "watchdog = {watchdog}")?;
        }
        if let Some(jump) = self.jump {
            writeln!(out, "jump = {jump}")?;
        }
        if self.offline_cpus {
            writeln!(out, "offline-cpus = yes")?;
        }
        if self.passes_firmware_over {
            writeln!(out, "firmware-requests = ignore")?;
        }
        if let Some(direct) = &self.direct {
            direct.fmt(out)?;
        }
        writeln!(out, "{END}")
    }
}

impl<'a> Plan<'a> {
    /// Returns a plan for a kernel alone, with no other settings: for `kexec`, and not preloaded.
    #[must_use]
    pub fn bare(handoff: HandoffId, entry: &'a str, kernel: Image<'a>, cmdline: &'a str) -> Plan<'a> {
        Plan {
            handoff,
            entry,
            staged_at: 0,
            on: On::Kexec,
            preload: Preload::No,
            kernel,
            initrd: None,
            kernel_from: None,
            initrd_from: List::default(),
            cmdline,
            gpu: List::default(),
            gpu_failed: None,
            modules: List::default(),
            unbind: List::default(),
            guard: None,
            watchdog: None,
            jump: None,
            offline_cpus: false,
            passes_firmware_over: false,
            direct: None,
        }
    }

    /// Reads a plan. Accepts any bytes, and returns the plan, or an error with its line.
    pub fn parse(bytes: &'a [u8]) -> Result<Plan<'a>, Malformed> {
        let mut lines = Lines { rest: bytes, line: 0 };
        if bytes.len() > limits::PLAN_MAX {
            return Err(Malformed { line: 1, fault: Fault::TooLong });
        }
        let title = lines.next()?.unwrap_or("");
        let version = title.strip_prefix(TITLE).and_then(number);
        match version.and_then(|version| u32::try_from(version).ok()) {
            Some(VERSION) => {}
            Some(version) => return Err(lines.wrong(Fault::OtherVersion(version))),
            None => return Err(lines.wrong(Fault::NotAPlan)),
        }

        let mut draft = Draft::new();
        loop {
            match lines.next()? {
                None => return Err(lines.wrong(Fault::NoEnd)),
                Some(END) => break,
                Some(line) => {
                    let pair = line.split_once('=');
                    let pair = pair
                        .and_then(|(key, value)| Some((key.strip_suffix(' ')?, value.strip_prefix(' ')?)));
                    pair.ok_or(Fault::NotAPair)
                        .and_then(|(key, value)| draft.set(key, value))
                        .map_err(|fault| lines.wrong(fault))?;
                }
            }
        }
        let plan = draft.finish().map_err(|fault| lines.wrong(fault))?;
        match lines.next()? {
            None => Ok(plan),
            Some(_) => Err(lines.wrong(Fault::AfterEnd)),
        }
    }
}

/// The lines of a plan, each checked to be text and to end with a newline.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, Malformed> {
        self.line += 1;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(end) = self.rest.iter().position(|b| *b == b'\n') else {
            return Err(self.wrong(Fault::NoEnd));
        };
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.split_first().map_or(&[], |(_, rest)| rest);
        match core::str::from_utf8(line) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Some(text)),
            _ => Err(self.wrong(Fault::NotText)),
        }
    }

    fn wrong(&self, fault: Fault) -> Malformed {
        Malformed { line: self.line, fault }
    }
}

/// All keys: the first `NEEDED` are required, and those from `SEVERAL` on may be given several times.
const KEYS: [&str; 24] = [
    "handoff",
    "entry",
    "staged-at",
    "on",
    "preload",
    "kernel",
    "cmdline",
    "initrd",
    "kernel-from",
    "gpu-failed",
    "guard",
    "watchdog",
    "jump",
    "offline-cpus",
    "firmware-requests",
    "parameters",
    "start",
    "cmdline-at",
    "initrd-from",
    "gpu",
    "module",
    "unbind",
    "segment",
    "seed-at",
];
const NEEDED: usize = 7;
const SEVERAL: usize = 18;

/// A plan while it is being read, with a bit for each key that was given.
struct Draft<'a> {
    plan: Plan<'a>,
    direct: Direct<'a>,
    seen: u32,
}

impl<'a> Draft<'a> {
    fn new() -> Draft<'a> {
        let none = Image { name: "", size: 0, stamp: None };
        let nowhere = Area { offset: 0, size: 0 };
        let (segments, seeds) = (List::new(), List::new());
        let direct = Direct { parameters: none, start: 0, segments, cmdline: nowhere, seeds };
        Draft { plan: Plan::bare(HandoffId(0), "", none, ""), direct, seen: 0 }
    }

    fn set(&mut self, key: &str, value: &'a str) -> Result<(), Fault> {
        let mut keys = KEYS.iter().enumerate();
        let (at, key) = keys.find(|(_, known)| **known == key).ok_or(Fault::UnknownKey)?;
        if self.seen & (1 << at) != 0 && at < SEVERAL {
            return Err(Fault::Twice);
        }
        self.seen |= 1 << at;
        self.take(key, value).ok_or(Fault::BadValue(key))
    }

    /// Sets a key. Returns `None` if the key cannot have this value, or has too many values already.
    fn take(&mut self, key: &str, value: &'a str) -> Option<()> {
        let path = || Some(value).filter(|path| path.starts_with('/') && path.len() <= limits::PATH_MAX);
        let text = |max| Some(value).filter(|text| text.len() <= max);
        let Draft { plan, direct, .. } = self;
        match key {
            "handoff" => plan.handoff = HandoffId::from_digits(value)?,
            "entry" => plan.entry = text(limits::ENTRY_MAX)?,
            "staged-at" => plan.staged_at = number(value)?,
            "on" => plan.on = On::from_words(value)?,
            "preload" => plan.preload = Preload::from_word(value)?,
            "kernel" => plan.kernel = Image::parse(value)?,
            "cmdline" => plan.cmdline = text(limits::CMDLINE_MAX)?,
            "initrd" => plan.initrd = Some(Image::parse(value)?),
            "kernel-from" => plan.kernel_from = Some(path()?),
            "gpu-failed" => plan.gpu_failed = Some(GpuFailed::from_word(value)?),
            "guard" => plan.guard = Some(guard_seconds(value)?),
            "watchdog" => plan.watchdog = Some(Watchdog::from_word(value)?),
            "jump" => plan.jump = Some(Jump::from_word(value)?),
            "offline-cpus" => plan.offline_cpus = Some(value == "yes").filter(|is| *is)?,
            "firmware-requests" => plan.passes_firmware_over = Some(value == "ignore").filter(|is| *is)?,
            "parameters" => direct.parameters = Image::parse(value)?,
            "start" => direct.start = address(value)?,
            "cmdline-at" => direct.cmdline = Area::parse(value)?,
            "initrd-from" => plan.initrd_from.push(path()?).ok()?,
            "gpu" => {
                let gpu = GpuPolicy::parse(value)?;
                let before = plan.gpu.iter().any(|before| before.driver == gpu.driver);
                plan.gpu.push(Some(gpu).filter(|_| !before)?).ok()?;
            }
            "module" => plan.modules.push(Some(value).filter(|name| is_module(name))?).ok()?,
            "unbind" => plan.unbind.push(Some(value).filter(|name| is_pci_address(name))?).ok()?,
            "segment" => direct.segments.push(Segment::parse(value)?).ok()?,
            "seed-at" => direct.seeds.push(Area::parse(value)?).ok()?,
            _ => return None,
        }
        Some(())
    }

    fn finish(mut self) -> Result<Plan<'a>, Fault> {
        let has = |key: &str| {
            KEYS.iter().position(|known| *known == key).is_some_and(|at| self.seen & (1 << at) != 0)
        };
        let missing = |keys: &[&'static str]| {
            keys.iter().find(|key| !has(key)).map_or(Ok(()), |key| Err(Fault::Missing(key)))
        };
        missing(KEYS.get(..NEEDED).unwrap_or_default())?;
        // Either all that `kexec_load(2)` needs, or nothing of it.
        if ["parameters", "start", "segment", "cmdline-at", "seed-at"].into_iter().any(has) {
            missing(&["parameters", "start", "cmdline-at"])?;
            if !self.direct.fits(&self.plan.kernel, self.plan.initrd.as_ref()) {
                return Err(Fault::Outside);
            }
            self.plan.direct = Some(self.direct);
        }
        Ok(self.plan)
    }
}
