//! The host: its programs and directories.

pub mod command;
pub(crate) mod made;
pub mod paths;
pub mod programs;
pub mod scratch;
