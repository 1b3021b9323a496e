//! What `nextkernel-hook` does at night. `night` is the routine to read aloud; every other module is
//! one act of it. `docs/night.md` has the same as a state table.
#![cfg_attr(not(test), no_std)]

pub mod act;
pub mod arguments;
pub mod armed;
pub mod bounds;
pub mod child;
pub mod cma;
pub mod cpus;
pub mod crowd;
pub mod diary;
pub mod exitrd;
pub mod failure;
pub mod families;
pub mod files;
pub mod firmware;
pub mod gpu;
pub mod guard;
pub mod holders;
pub mod images;
pub mod leftovers;
pub mod limits;
pub mod load;
pub mod locks;
pub mod module;
pub mod mounts;
pub mod name;
pub mod night;
pub mod others;
pub mod pid_1;
pub mod pins;
pub mod process;
pub mod processes;
pub mod progress;
pub mod protect;
pub mod say;
pub mod shutdown;
pub mod storage;
pub mod sync;
pub mod sys;
pub mod teardown;
pub mod text;
pub mod unbind;
pub mod watchdog;
