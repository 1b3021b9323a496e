//! The state of the machine: processes, mounts, drivers, and requests of other programs. Every function here
//! returns its observation, or the kernel's error.

pub mod armed;
pub mod cma;
pub mod exitrd;
pub mod families;
pub mod firmware;
pub mod gpu;
pub mod holders;
pub mod loaded;
pub mod locks;
pub mod modules;
pub mod mounts;
pub mod processes;
