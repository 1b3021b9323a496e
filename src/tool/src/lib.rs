//! What `nextkernel` does by day: everything that can be decided is decided while a person can read an
//! error. A command is a file: `stage`, `unstage`, `status`; the others are what they stand on.

pub mod cmdline;
pub mod entries;
pub mod errno;
pub mod folder;
pub mod images;
pub mod memory;
pub mod rehearse;
pub mod root;
#[cfg(test)]
mod scratch;
pub mod size;
pub mod stage;
pub mod status;
mod sys;
pub mod systemd;
pub mod unstage;
