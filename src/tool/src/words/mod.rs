//! What every layer says in the same words.

pub mod errno;
pub(crate) mod little_endian;
pub mod quoted;
pub mod say;
pub mod size;
