//! Room and memory for an image set, and loads that the kernel still allows. Memory is checked because a kernel that
//! is short of it kills processes rather than refuse a load.

use thiserror::Error;

use crate::loading::syscall::Syscall;
use crate::loading::{policy, refusal};
use crate::machine::memory;
use crate::machine::root::Root;
use crate::staging::contents::SPARE;
use crate::staging::directory::{self, Directory};
use crate::staging::order::Order;
use crate::staging::set::Made;
use crate::words::size::Size;

/// Number of load calls at the end of shutdown, if the kernel limits their number.
pub const LOADS_LATER: u64 = 1;

/// The reason why the machine has no place for the image set.
#[derive(Debug, Error)]
pub enum Error {
    /// The image is larger than any that the kernel loads.
    #[error("{0}")]
    TooLarge(String),
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
        if *.decompresses { "leave --thaw out, " } else { "" }
    )]
    NoMemory {
        /// Whether decompression was requested.
        decompresses: bool,
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
    /// /run/nextkernel cannot be read.
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

/// Fails if the machine has no place for the set of an order, or allows too few loads for it.
pub fn check(root: &Root, directory: &Directory, order: &Order, loads: Loads) -> Result<(), Error> {
    let sizes = &order.sizes;
    let too_large = refusal::too_large(root, sizes.memory());
    if let Some(reason) = too_large.filter(|_| order.contents.loader == Syscall::SegmentLoad) {
        return Err(Error::TooLarge(reason));
    }
    check_room(directory, sizes.room())?;
    let copies = sizes.room().saturating_sub(SPARE);
    let load = if loads.tests { sizes.to_load() } else { 0 };
    check_memory(root, copies.saturating_add(load), order)?;
    let need = loads.calls();
    match policy::calls_left(root).filter(|left| *left < need) {
        Some(left) => Err(Error::LimitTooLow { left, need }),
        None => Ok(()),
    }
}

/// Fails if the test load of a set that was made does not fit into memory. A wrapped kernel may state a wrong
/// size, so the real sizes are checked again. The copies already take their memory.
pub fn check_load(root: &Root, order: &Order, made: &Made, loads: Loads) -> Result<(), Error> {
    check_memory(root, if loads.tests { made.to_load() } else { 0 }, order)
}

/// The load calls of a stage.
#[derive(Clone, Copy)]
pub struct Loads {
    /// The image is test-loaded.
    pub tests: bool,
    /// A loaded image is unloaded.
    pub unloads: bool,
}

impl Loads {
    /// Returns the calls for an order. `may_be_loaded` is whether an image of ours may be loaded already.
    #[must_use]
    pub fn of(order: &Order, may_be_loaded: bool) -> Loads {
        let tests = !order.skips_test_load;
        Loads { tests, unloads: !order.preload.stays_loaded() && (tests || may_be_loaded) }
    }

    /// Returns their number, including the load at the end of shutdown.
    fn calls(self) -> u64 {
        LOADS_LATER + u64::from(self.tests) + u64::from(self.unloads)
    }
}

fn check_room(directory: &Directory, need: u64) -> Result<(), Error> {
    let room = directory.room()?;
    if room >= need {
        return Ok(());
    }
    let way_out = way_to_room(directory.size()?, directory.taken(), room, need);
    Err(Error::NoRoom { room, need, way_out })
}

fn way_to_room(size: u64, taken: u64, room: u64, need: u64) -> String {
    let larger = size.saturating_add(need - room).div_ceil(1 << 20);
    let grow = format!("enlarge it (mount -o remount,size={larger}M /run)");
    if room + taken >= need { format!("`nextkernel unstage` frees {}; or {grow}", Size(taken)) } else { grow }
}

fn check_memory(root: &Root, need: u64, order: &Order) -> Result<(), Error> {
    match memory::available(root) {
        Some(available) if available < need => {
            let (decompresses, huge) = (order.contents.decompresses(), memory::unused_huge_pages(root));
            Err(Error::NoMemory { decompresses, need, available, huge })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_run_is_too_small_the_size_that_is_enough_is_told() {
        const MIB: u64 = 1 << 20;
        let grow = "enlarge it (mount -o remount,size=115M /run)";
        assert_eq!(way_to_room(97 * MIB, 0, 6 * MIB + 1, 24 * MIB), grow);
        assert_eq!(way_to_room(97 * MIB, 8 * MIB, 6 * MIB + 1, 24 * MIB), grow);
        let way_out = way_to_room(97 * MIB, 20 * MIB, 6 * MIB, 24 * MIB);
        assert_eq!(way_out, format!("`nextkernel unstage` frees 21 MB; or {grow}"));
    }
}
