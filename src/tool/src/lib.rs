//! What `nextkernel` does by day: everything that can be decided is decided while a person can read an
//! error. A command is a file: `stage`, `unstage`, `status`, `check`, `reboot`, `exitrd`, `entries/list`; the others are what they stand on.

pub mod armed;
pub mod attach;
pub mod carriers;
pub mod check;
pub mod cmdline;
pub mod conf;
pub mod cpio;
pub mod digest;
pub mod efi;
pub mod entries;
pub mod errno;
pub mod exitrd;
pub mod extra;
pub mod facts;
pub mod file_systems;
pub mod folder;
pub mod gpus;
pub mod header;
pub mod hypervisor;
pub mod images;
pub mod inhibitors;
pub mod init;
pub mod kconfig;
pub mod layers;
mod lzo;
pub mod memory;
pub mod mounts;
pub mod once;
pub mod quoted;
pub mod reboot;
pub mod refusal;
pub mod rehearse;
pub mod root;
#[cfg(test)]
mod scratch;
pub mod size;
pub mod stage;
pub mod status;
pub mod swap;
mod sys;
pub mod systemd;
pub mod uki;
pub mod unbind;
pub mod unpack;
pub mod unstage;
pub mod watchdogs;
