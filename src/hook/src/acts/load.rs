//! Loading the staged kernel, and jumping to it.

use core::ffi::CStr;
use core::fmt;
use core::time::Duration;

use nextkernel_plan::{Direct, Part, Plan, Record, Recorded, limits as plan_limits};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot};

use crate::acts::images::Images;
use crate::bounds::child::{self, Running};
use crate::bounds::failure::{Failure, LOAD, LOAD_SEGMENTS};
use crate::bounds::guard::Guard;
use crate::bounds::kexec::{unless_busy, while_busy};
use crate::scene::cma;
use crate::sys::calls::{self, KexecSegment};
use crate::sys::text::Text;
use crate::sys::{clock, limits};

/// A load in progress.
pub struct Load {
    running: Running,
    /// The uptime at which it is given up.
    until: Duration,
}

/// Begins to load the images in place of the one that is loaded now: the running kernel reads kernel and
/// initrd itself, and verifies them. If the load fails, the previous image stays loaded. The load is
/// given up after `time`.
///
/// - `kexec_file_load(2)`
pub fn begin(images: &Images, cmdline: &CommandLine, time: Duration) -> Result<Load, Failure> {
    let text = cmdline.as_c_str().ok_or(Failure::CommandLineTooLong)?;
    let initrd = images.initrd.as_ref().map(AsFd::as_fd);
    let load = |leaves_cma_out| {
        unless_busy(|| calls::kexec_file_load(images.kernel.as_fd(), initrd, text, leaves_cma_out))
    };
    let running = child::begin(LOAD, || {
        let cma = cma::is_there();
        match load(cma) {
            Err(Errno::INVAL) if cma && !cma::is_loaded_into() => load(false),
            answer => answer,
        }
    })?;
    Ok(Load { until: running.begun + time, running })
}

/// Loads the segments that were made at staging, which the kernel takes as they are. Waits for the load,
/// until the uptime reaches `until`.
///
/// - `kexec_load(2)`
pub fn directly(
    plan: &Plan<'_>,
    direct: &Direct<'_>,
    images: &Images,
    cmdline: &CommandLine,
    until: Duration,
) -> Result<(), Failure> {
    let text = cmdline.as_c_str().ok_or(Failure::CommandLineTooLong)?;
    let load = || {
        let kernel = calls::map(&images.kernel, whole(plan.kernel.size))?;
        let initrd = match (&images.initrd, plan.initrd) {
            (Some(file), Some(initrd)) => calls::map(file, whole(initrd.size))?,
            _ => &[],
        };
        let told = images.parameters.as_ref().ok_or(Errno::INVAL)?;
        let told = calls::map_copy(told, whole(direct.parameters.size))?;
        let line = direct.cmdline.of_mut(told).ok_or(Errno::INVAL)?;
        line.fill(0);
        let text = text.to_bytes_with_nul();
        line.get_mut(..text.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(text);
        for seed in direct.seeds.iter() {
            calls::fill_randomly(seed.of_mut(told).ok_or(Errno::INVAL)?)?;
        }
        let mut segments = [KexecSegment::NONE; plan_limits::SEGMENTS_MAX];
        let mut count = 0;
        for (place, segment) in segments.iter_mut().zip(direct.segments.iter()) {
            let file = match segment.part {
                Part::Kernel => kernel,
                Part::Initrd => initrd,
                Part::Parameters => told,
            };
            let bytes = segment.bytes.of(file).ok_or(Errno::INVAL)?;
            *place = KexecSegment::new(bytes, whole(segment.at), whole(segment.takes));
            count += 1;
        }
        let segments = segments.get(..count).unwrap_or_default();
        unless_busy(|| calls::kexec_load(whole(direct.start), segments))
    };
    Load { running: child::begin(LOAD_SEGMENTS, load)?, until }.finish()
}

/// Converts a size or an address: both have 64 bits in the plan, as on every supported machine.
fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Load {
    /// Waits for the load.
    pub fn finish(&self) -> Result<(), Failure> {
        self.running.end_within(self.until.saturating_sub(clock::uptime())).map_err(|failure| match failure {
            Failure::Call { call: call @ (LOAD | LOAD_SEGMENTS), errno } => Failure::Kexec { call, errno },
            other => other,
        })
    }
}

/// Starts the loaded kernel. Returns only if that fails.
///
/// - reboot(2)
pub fn jump(guard: &Guard) -> Result<(), Failure> {
    guard.jumping();
    while_busy(|| reboot(RebootCommand::Kexec), || limits::BUSY_TRIES)
        .map_err(|errno| Failure::Kexec { call: "reboot(KEXEC)", errno })
}

/// The next kernel's command line: the staged one and the record.
pub struct CommandLine(Text<{ plan_limits::LOADER_CMDLINE_MAX + 1 }>);

impl CommandLine {
    /// Adds the record to the staged command line.
    #[must_use]
    pub fn new(staged: &str, record: &Record) -> CommandLine {
        CommandLine(Text::of(Recorded { cmdline: staged, record }))
    }

    /// Returns the command line, or `None` if it is longer than the kernel takes.
    #[must_use]
    pub fn as_c_str(&self) -> Option<&CStr> {
        self.0.as_c_str()
    }
}

/// Names the staged kernel, for the line before its load.
pub struct Loading<'p> {
    /// The plan.
    pub plan: &'p Plan<'p>,
    /// The next kernel's command line.
    pub cmdline: &'p CommandLine,
}

impl fmt::Display for Loading<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { entry, kernel, initrd, .. } = self.plan;
        write!(out, "load {entry}: kernel of {} bytes, ", kernel.size)?;
        match initrd {
            Some(initrd) => write!(out, "initrd of {} bytes, ", initrd.size)?,
            None => out.write_str("no initrd, ")?,
        }
        let line = self.cmdline.as_c_str().and_then(|line| line.to_str().ok()).unwrap_or("too long");
        write!(out, "command line '{line}'")
    }
}

/// Names the loaded kernel, for the line before it is started as it is.
pub struct Preloaded<'p> {
    /// The plan.
    pub plan: &'p Plan<'p>,
}

impl fmt::Display for Preloaded<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "start what is loaded: {}, or what somebody has loaded since it was staged",
            self.plan.entry
        )
    }
}

/// Names the target of the jump, for the line before it.
pub struct Jumping<'p> {
    /// The plan.
    pub plan: &'p Plan<'p>,
}

impl fmt::Display for Jumping<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "jump to {}", self.plan.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextkernel_plan::{HandoffId, Verb};

    const RECORD: Record = Record { handoff: HandoffId(1), verb: Some(Verb::Kexec), course: None };

    #[test]
    fn the_record_stands_at_the_end_of_the_staged_line() {
        let line = |staged: &str| CommandLine::new(staged, &RECORD).as_c_str().map(CStr::to_owned);
        assert_eq!(
            line("root=/dev/vda").as_deref(),
            Some(c"root=/dev/vda nextkernel.record=0000000000000001:kexec")
        );
        assert_eq!(
            line("quiet -- single").as_deref(),
            Some(c"quiet nextkernel.record=0000000000000001:kexec -- single")
        );
        assert_eq!(line("").as_deref(), Some(c"nextkernel.record=0000000000000001:kexec"));
    }

    #[test]
    fn what_the_loader_would_refuse_is_refused_here_to_the_byte() {
        let room = plan_limits::LOADER_CMDLINE_MAX - format!(" {RECORD}").len();
        assert!(CommandLine::new(&"x".repeat(room), &RECORD).as_c_str().is_some());
        assert!(CommandLine::new(&"x".repeat(room + 1), &RECORD).as_c_str().is_none());
        assert!(CommandLine::new("a\0b", &RECORD).as_c_str().is_none());
    }
}
