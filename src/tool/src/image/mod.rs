//! Kernels, initrds and command lines, as files are.

pub mod archive;
pub(crate) mod bzimage;
pub mod cmdline;
pub mod cpio;
pub mod digest;
pub mod header;
pub(crate) mod lzo;
pub mod unpack;
pub mod whole;
