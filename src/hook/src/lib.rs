//! What `nextkernel-hook` does at night. `night` is the routine to read aloud; every other module is
//! one act of it. `docs/night.md` has the same as a state table.
#![cfg_attr(not(test), no_std)]

pub mod arguments;
pub mod child;
pub mod failure;
pub mod firmware;
pub mod images;
pub mod limits;
pub mod load;
pub mod mounts;
pub mod name;
pub mod night;
pub mod others;
pub mod process;
pub mod protect;
pub mod read;
pub mod shutdown;
pub mod sync;
pub mod sys;
pub mod watchdog;
