//! The acts at the end of a shutdown, one file each.

pub mod cpus;
pub mod crowd;
pub mod images;
pub mod leftovers;
pub mod load;
pub mod module;
pub mod pid_1;
pub mod pins;
pub mod protect;
pub mod storage;
pub mod teardown;
pub mod unbind;
pub mod watchdog;
