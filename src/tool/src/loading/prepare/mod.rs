//! Preparing a load by `kexec_load(2)`: what lies where in memory when the next kernel begins, worked out by day to the
//! last byte. Whoever loads fills two things in, the command line with its record and the random seeds, and makes one
//! call.
//!
//! Which architecture's way it is follows from what this program was built for; each is there on every one, so that it is
//! tested on every one.

pub mod arm64;
pub mod device_tree;
mod flat;
pub mod handed_out;
pub mod memory_map;
pub mod parts;
pub mod riscv64;
pub mod x86_64;

use nextkernel_plan::Segment;

use crate::loading::prepare::parts::{Error, Parts, Prepared};
use crate::loading::refusal;

/// Prepares a load on the machine that this program was built for.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    of(std::env::consts::ARCH, parts)
}

/// Prepares one as on a machine of an architecture, called as Rust calls it.
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
