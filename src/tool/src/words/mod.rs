//! Errors, sizes and quotes in words, and the output of messages.

pub mod errno;
pub(crate) mod little_endian;
pub mod quoted;
pub mod say;
pub mod size;
