//! Preparing a load with `kexec_load(2)`: the exact layout of memory for the moment when the next kernel
//! begins, computed while the system runs. A load then fills in only the command line with its record and the
//! random seeds, and makes one call.
//!
//! The architecture that this program was built for selects the module. Every build contains all of them, so
//! that each is tested on every architecture.

pub mod arm64;
pub mod device_tree;
mod flat;
pub mod handed_out;
pub mod memory;
pub mod memory_map;
pub mod parts;
pub mod range;
pub mod riscv64;
pub mod x86_64;

use nextkernel_plan::Segment;

use crate::loading::prepare::parts::{Error, Parts, Prepared};
use crate::loading::refusal;

/// Prepares a load on the machine that this program was built for.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    of(std::env::consts::ARCH, parts)
}

/// Prepares a load for the named architecture; the names are Rust's.
pub fn of(machine: &str, parts: &Parts<'_>) -> Result<Prepared, Error> {
    let prepared = match machine {
        "x86_64" => x86_64::segments(parts),
        "aarch64" => arm64::segments(parts),
        "riscv64" => riscv64::segments(parts),
        other => Err(Error::Unfit(format!(
            "on {other} kernels are not loaded this way yet; stage with --loader verified"
        ))),
    }?;
    let takes = Segment::memory(prepared.segments.iter().copied());
    refusal::too_large(parts.root, takes).map_or(Ok(prepared), |why| Err(Error::TooLarge(why)))
}
