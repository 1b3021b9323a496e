//! Facts about the running machine, as the system shows them.

pub mod armed;
pub mod attach;
pub mod carriers;
pub mod cma;
pub mod efi;
pub mod elsewhere;
pub mod exitrd;
pub mod file_systems;
pub mod hypervisor;
pub mod inhibitors;
pub mod init;
pub mod kconfig;
pub mod late_loads;
pub mod layers;
pub mod luks;
pub mod memory;
pub mod mounts;
pub(crate) mod processor;
pub mod root;
#[cfg(test)]
pub(crate) mod scratch;
pub mod superuser;
pub mod swap;
pub(crate) mod sys;
pub mod systemd;
pub mod uncovered;
pub mod watchdogs;
