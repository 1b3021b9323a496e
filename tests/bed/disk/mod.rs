//! The disks that guests boot from.

pub mod disks;
pub mod dracut;
pub mod esp;
pub mod shim;
pub mod storage;
pub mod uki;
