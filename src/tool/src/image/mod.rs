//! Kernels, initrds and command lines as bytes in files.

pub mod archive;
pub(crate) mod bzimage;
pub mod cmdline;
pub mod cpio;
pub mod digest;
pub mod header;
pub mod initrd;
pub mod piece;
pub mod unpack;
pub mod whole;
