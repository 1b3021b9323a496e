//! Errors, sizes and quotes in words, and the places where sentences go.

pub mod errno;
pub(crate) mod little_endian;
pub mod quoted;
pub mod say;
pub mod size;
