use core::fmt;

use crate::direct::{Area, Direct, Segment, address};
use crate::image::number;
use crate::teardown::{GpuFailed, GpuPolicy, Watchdog, guard_seconds, is_module, is_pci_address};
use crate::{HandoffId, Image, List, On, limits};

/// The version of the plan's format that this crate reads and writes. Tool and hook are installed
/// together; a plan of another version is refused, never guessed at.
pub const VERSION: u32 = 1;

const TITLE: &str = "nextkernel-plan ";
const END: &str = "end";

/// Whether the image stays loaded by day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It stays loaded, as after `kexec -l`: `systemctl kexec` is accepted, and a load that fails
    /// at night leaves it to be jumped to.
    Kept,
    /// Nothing stays loaded; the night alone loads it.
    Late,
}

impl fmt::Display for Hold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Hold::Kept => "kept",
            Hold::Late => "late",
        })
    }
}

/// Who makes the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The hook.
    Hook,
    /// systemd, after the hook has loaded and returned: from version 261 on it then hands on the file descriptors
    /// that it keeps for services (LUO). Only at `kexec`.
    Init,
}

impl Jump {
    /// The one that a word stands for.
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

/// One staged handoff. What it borrows, it borrows from the text it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<'a> {
    /// Which handoff this is.
    pub handoff: HandoffId,
    /// What a person calls the entry: a version, or the kernel's path.
    pub entry: &'a str,
    /// When it was staged: seconds since the epoch.
    pub staged_at: u64,
    /// The verbs at which it is carried out.
    pub on: On,
    /// Whether the image stays loaded by day.
    pub hold: Hold,
    /// The kernel.
    pub kernel: Image<'a>,
    /// The initrd, all its parts joined; a kernel may do without.
    pub initrd: Option<Image<'a>>,
    /// The file that the kernel was copied from.
    pub kernel_from: Option<&'a str>,
    /// The files that the initrd was joined from, in order.
    pub initrd_from: List<&'a str, { limits::INITRDS_MAX }>,
    /// The command line, without the record.
    pub cmdline: &'a str,
    /// What the administrator said about drivers of GPUs; the others are handled as is right for them.
    pub gpu: List<GpuPolicy<'a>, { limits::GPU_POLICIES_MAX }>,
    /// What is done when the driver of a GPU could not be unloaded, where the administrator said so.
    pub gpu_failed: Option<GpuFailed>,
    /// Further modules to unload, in this order.
    pub modules: List<&'a str, { limits::MODULES_MAX }>,
    /// PCI addresses of other devices to unbind from their drivers, all at the same time.
    pub unbind: List<&'a str, { limits::UNBIND_MAX }>,
    /// How many seconds the jump may take before the guard resets the machine, where the
    /// administrator said so.
    pub guard: Option<u16>,
    /// What is done with the hardware watchdog, where the administrator said so.
    pub watchdog: Option<Watchdog>,
    /// Who makes the jump, where the administrator said so.
    pub jump: Option<Jump>,
    /// What the direct loader takes; `None` where the kernel is to load, and verify, kernel and initrd itself.
    pub direct: Option<Direct<'a>>,
}

/// What is wrong with a plan, and on which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: Why,
}

/// What can be wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is longer than [`limits::PLAN_MAX`].
    TooLong,
    /// The line holds a byte that is not text: invalid UTF-8 or a control character.
    NotText,
    /// The first line is not that of a plan.
    NotAPlan,
    /// It is of this other version.
    OtherVersion(u32),
    /// The line is not `KEY = VALUE`.
    NotAPair,
    /// No key of this version has that name.
    UnknownKey,
    /// The key stands there a second time.
    Twice,
    /// The value of the key is not one that it can have.
    BadValue(&'static str),
    /// The plan ends here, and this key was never given.
    Missing(&'static str),
    /// No segment, or bytes of a file that has no so many.
    Outside,
    /// The last line is missing: the plan was cut short.
    NoEnd,
    /// Something stands after the last line.
    AfterEnd,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: ", self.line)?;
        match self.why {
            Why::TooLong => write!(out, "the plan is longer than {} bytes", limits::PLAN_MAX),
            Why::NotText => out.write_str("a byte that is not text"),
            Why::NotAPlan => write!(out, "not a plan: it does not begin with '{TITLE}{VERSION}'"),
            Why::OtherVersion(version) => {
                write!(out, "a plan of version {version}, and only version {VERSION} is known here")
            }
            Why::NotAPair => out.write_str("not of the form 'key = value'"),
            Why::UnknownKey => out.write_str("no such key"),
            Why::Twice => out.write_str("this key was given before"),
            Why::BadValue(key) => write!(out, "not a value for '{key}'"),
            Why::Missing(key) => write!(out, "the plan ends without '{key}'"),
            Why::Outside => out.write_str("a segment is missing, or reaches beyond its file"),
            Why::NoEnd => write!(out, "the plan was cut short: no '{END}'"),
            Why::AfterEnd => write!(out, "something stands after '{END}'"),
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
        writeln!(out, "hold = {}", self.hold)?;
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
        if let Some(direct) = &self.direct {
            direct.fmt(out)?;
        }
        writeln!(out, "{END}")
    }
}

impl<'a> Plan<'a> {
    /// A kernel alone, of which nothing else is said: for `kexec`, and loaded at night.
    #[must_use]
    pub fn bare(handoff: HandoffId, entry: &'a str, kernel: Image<'a>, cmdline: &'a str) -> Plan<'a> {
        Plan {
            handoff,
            entry,
            staged_at: 0,
            on: On::Kexec,
            hold: Hold::Late,
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
            direct: None,
        }
    }

    /// Reads a plan. Total: any bytes give a plan or the line that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Plan<'a>, Malformed> {
        let mut lines = Lines { rest: bytes, line: 0 };
        if bytes.len() > limits::PLAN_MAX {
            return Err(Malformed { line: 1, why: Why::TooLong });
        }
        let title = lines.next()?.unwrap_or("");
        let version = title.strip_prefix(TITLE).and_then(number);
        match version.and_then(|version| u32::try_from(version).ok()) {
            Some(VERSION) => {}
            Some(version) => return Err(lines.wrong(Why::OtherVersion(version))),
            None => return Err(lines.wrong(Why::NotAPlan)),
        }

        let mut draft = Draft::default();
        loop {
            match lines.next()? {
                None => return Err(lines.wrong(Why::NoEnd)),
                Some(END) => break,
                Some(line) => {
                    let pair = line.split_once('=');
                    let pair = pair
                        .and_then(|(key, value)| Some((key.strip_suffix(' ')?, value.strip_prefix(' ')?)));
                    pair.ok_or(Why::NotAPair)
                        .and_then(|(key, value)| draft.set(key, value))
                        .map_err(|why| lines.wrong(why))?;
                }
            }
        }
        let plan = draft.finish().map_err(|why| lines.wrong(why))?;
        match lines.next()? {
            None => Ok(plan),
            Some(_) => Err(lines.wrong(Why::AfterEnd)),
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
            return Err(self.wrong(Why::NoEnd));
        };
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.split_first().map_or(&[], |(_, rest)| rest);
        match core::str::from_utf8(line) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Some(text)),
            _ => Err(self.wrong(Why::NotText)),
        }
    }

    fn wrong(&self, why: Why) -> Malformed {
        Malformed { line: self.line, why }
    }
}

/// A plan while it is being read.
#[derive(Default)]
struct Draft<'a> {
    handoff: Option<HandoffId>,
    entry: Option<&'a str>,
    staged_at: Option<u64>,
    on: Option<On>,
    hold: Option<Hold>,
    kernel: Option<Image<'a>>,
    initrd: Option<Image<'a>>,
    kernel_from: Option<&'a str>,
    initrd_from: List<&'a str, { limits::INITRDS_MAX }>,
    cmdline: Option<&'a str>,
    gpu: List<GpuPolicy<'a>, { limits::GPU_POLICIES_MAX }>,
    gpu_failed: Option<GpuFailed>,
    modules: List<&'a str, { limits::MODULES_MAX }>,
    unbind: List<&'a str, { limits::UNBIND_MAX }>,
    guard: Option<u16>,
    watchdog: Option<Watchdog>,
    jump: Option<Jump>,
    parameters: Option<Image<'a>>,
    start: Option<u64>,
    segments: List<Segment, { limits::SEGMENTS_MAX }>,
    cmdline_at: Option<Area>,
    seeds: List<Area, { limits::SEEDS_MAX }>,
}

impl<'a> Draft<'a> {
    fn set(&mut self, key: &str, value: &'a str) -> Result<(), Why> {
        let path = || Some(value).filter(|path| path.starts_with('/') && path.len() <= limits::PATH_MAX);
        let text = |max| Some(value).filter(|text| text.len() <= max);
        match key {
            "handoff" => once(&mut self.handoff, "handoff", HandoffId::from_digits(value)),
            "entry" => once(&mut self.entry, "entry", text(limits::ENTRY_MAX)),
            "staged-at" => once(&mut self.staged_at, "staged-at", number(value)),
            "on" => once(&mut self.on, "on", On::from_words(value)),
            "hold" => once(&mut self.hold, "hold", hold(value)),
            "kernel" => once(&mut self.kernel, "kernel", Image::parse(value)),
            "initrd" => once(&mut self.initrd, "initrd", Image::parse(value)),
            "kernel-from" => once(&mut self.kernel_from, "kernel-from", path()),
            "initrd-from" => one_more(&mut self.initrd_from, "initrd-from", path()),
            "cmdline" => once(&mut self.cmdline, "cmdline", text(limits::CMDLINE_MAX)),
            "gpu" => {
                let gpu = GpuPolicy::parse(value).ok_or(Why::BadValue("gpu"))?;
                if self.gpu.iter().any(|before| before.driver == gpu.driver) {
                    return Err(Why::Twice);
                }
                one_more(&mut self.gpu, "gpu", Some(gpu))
            }
            "gpu-failed" => once(&mut self.gpu_failed, "gpu-failed", GpuFailed::from_word(value)),
            "module" => one_more(&mut self.modules, "module", Some(value).filter(|name| is_module(name))),
            "unbind" => one_more(&mut self.unbind, "unbind", Some(value).filter(|name| is_pci_address(name))),
            "guard" => once(&mut self.guard, "guard", guard_seconds(value)),
            "watchdog" => once(&mut self.watchdog, "watchdog", Watchdog::from_word(value)),
            "jump" => once(&mut self.jump, "jump", Jump::from_word(value)),
            "parameters" => once(&mut self.parameters, "parameters", Image::parse(value)),
            "start" => once(&mut self.start, "start", address(value)),
            "segment" => one_more(&mut self.segments, "segment", Segment::parse(value)),
            "cmdline-at" => once(&mut self.cmdline_at, "cmdline-at", Area::parse(value)),
            "seed-at" => one_more(&mut self.seeds, "seed-at", Area::parse(value)),
            _ => Err(Why::UnknownKey),
        }
    }

    fn finish(self) -> Result<Plan<'a>, Why> {
        let kernel = self.kernel.ok_or(Why::Missing("kernel"))?;
        let direct = self.direct(&kernel)?;
        Ok(Plan {
            handoff: self.handoff.ok_or(Why::Missing("handoff"))?,
            entry: self.entry.ok_or(Why::Missing("entry"))?,
            staged_at: self.staged_at.ok_or(Why::Missing("staged-at"))?,
            on: self.on.ok_or(Why::Missing("on"))?,
            hold: self.hold.ok_or(Why::Missing("hold"))?,
            kernel,
            initrd: self.initrd,
            kernel_from: self.kernel_from,
            initrd_from: self.initrd_from,
            cmdline: self.cmdline.ok_or(Why::Missing("cmdline"))?,
            gpu: self.gpu,
            gpu_failed: self.gpu_failed,
            modules: self.modules,
            unbind: self.unbind,
            guard: self.guard,
            watchdog: self.watchdog,
            jump: self.jump,
            direct,
        })
    }

    /// All that the direct loader needs, or nothing of it.
    fn direct(&self, kernel: &Image<'a>) -> Result<Option<Direct<'a>>, Why> {
        let some = self.start.is_some()
            || self.cmdline_at.is_some()
            || !self.segments.is_empty()
            || !self.seeds.is_empty();
        let parameters = match self.parameters {
            None if some => return Err(Why::Missing("parameters")),
            None => return Ok(None),
            Some(parameters) => parameters,
        };
        let direct = Direct {
            parameters,
            start: self.start.ok_or(Why::Missing("start"))?,
            segments: self.segments,
            cmdline: self.cmdline_at.ok_or(Why::Missing("cmdline-at"))?,
            seeds: self.seeds,
        };
        if direct.fits(kernel, self.initrd.as_ref()) { Ok(Some(direct)) } else { Err(Why::Outside) }
    }
}

fn hold(word: &str) -> Option<Hold> {
    match word {
        "kept" => Some(Hold::Kept),
        "late" => Some(Hold::Late),
        _ => None,
    }
}

fn one_more<T: Copy, const N: usize>(
    places: &mut List<T, N>,
    key: &'static str,
    value: Option<T>,
) -> Result<(), Why> {
    places.push(value.ok_or(Why::BadValue(key))?).map_err(|_| Why::BadValue(key))
}

fn once<T>(place: &mut Option<T>, key: &'static str, value: Option<T>) -> Result<(), Why> {
    if place.is_some() {
        return Err(Why::Twice);
    }
    *place = Some(value.ok_or(Why::BadValue(key))?);
    Ok(())
}
