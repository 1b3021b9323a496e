//! What the machine shows of itself: processes, mounts, drivers, and what others ask for. Everything here returns what it saw,
//! or the kernel's error.

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
