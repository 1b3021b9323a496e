//! Writes down an order and the set that was made for it as a plan.

use std::fs::File;
use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

use nextkernel_plan::{Direct, GpuPolicy, HandoffId, Image, List, Plan};
use thiserror::Error;

use crate::machine::root::Root;
use crate::staging::directory::{self, Directory};
use crate::staging::order::Order;
use crate::staging::set::{self, Beside, Made};
use crate::words::errno::InWords;

/// No id could be generated for a handoff.
#[derive(Debug, Error)]
#[error("/dev/urandom cannot be read: {}", InWords(.0))]
pub struct NoRandom(io::Error);

/// The names of a set's files, below /run/nextkernel.
pub struct Names {
    kernel: String,
    initrd: String,
    parameters: String,
}

impl Names {
    /// Returns the names in the set of a handoff.
    #[must_use]
    pub fn of(handoff: HandoffId) -> Names {
        let name = |file| format!("{handoff}/{file}");
        Names { kernel: name("kernel"), initrd: name("initrd"), parameters: name("parameters") }
    }
}

/// Returns the plan of an order. Fails if it cannot describe the set.
pub fn of<'a>(
    order: &'a Order,
    directory: &Directory,
    made: &Made,
    (handoff, names): (HandoffId, &'a Names),
) -> Result<Plan<'a>, set::Error> {
    let (policies, (kernel_from, initrd_from)) = (&order.policies, &order.from);
    let initrd = made.initrd.as_ref().map(|copy| measured(directory, copy, &names.initrd));
    let direct = made.direct.as_ref().map(|beside| direct(directory, beside, names));
    Ok(Plan {
        handoff,
        entry: &order.entry,
        staged_at: now(),
        on: order.on,
        preload: order.preload,
        kernel: measured(directory, &made.kernel.copy, &names.kernel)?,
        initrd: initrd.transpose()?,
        kernel_from: kernel_from.as_deref(),
        initrd_from: list(initrd_from.iter().map(String::as_str)),
        cmdline: order.contents.line.as_str(),
        gpu: list(policies.gpu.iter().map(|(driver, policy)| GpuPolicy { driver, policy: *policy })),
        gpu_failed: policies.gpu_failed,
        modules: list(policies.modules.iter().map(String::as_str)),
        unbind: list(policies.unbind.iter().map(String::as_str)),
        guard: policies.guard,
        watchdog: policies.watchdog,
        jump: policies.jump,
        offline_cpus: policies.offline_cpus,
        passes_firmware_over: policies.passes_firmware_over,
        direct: direct.transpose()?,
    })
}

/// Returns the plan's description of a load by segments.
pub fn direct<'a>(
    directory: &Directory,
    beside: &Beside,
    names: &'a Names,
) -> Result<Direct<'a>, set::Error> {
    beside.plan(measured(directory, &beside.parameters, &names.parameters)?)
}

/// Returns the current time in seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns a new, random id for a handoff. Fails if /dev/urandom cannot be read.
pub fn new_id(root: &Root) -> Result<HandoffId, NoRandom> {
    let mut bytes = [0; 8];
    let random = File::open(root.path("/dev/urandom")).and_then(|mut file| file.read_exact(&mut bytes));
    random.map_err(NoRandom)?;
    Ok(HandoffId(u64::from_ne_bytes(bytes)))
}

fn measured<'a>(directory: &Directory, copy: &File, name: &'a str) -> Result<Image<'a>, directory::Error> {
    let io = |error| directory::Error::Io { path: directory.path(name), error };
    let found = copy.metadata().map_err(io)?;
    directory::measured(&found, name).ok_or_else(|| io(io::ErrorKind::InvalidData.into()))
}

/// Copies the items of an order into a list of the plan. Both have the same limits, so nothing is lost.
fn list<T: Copy, const N: usize>(items: impl Iterator<Item = T>) -> List<T, N> {
    let mut list = List::new();
    for item in items {
        let _ = list.push(item);
    }
    list
}
