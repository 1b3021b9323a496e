//! The disks of a root that is not the image's own.

use std::path::PathBuf;

/// Disks, and how the kernel finds the root on them.
#[derive(Debug, Clone)]
pub struct Disks {
    /// The disks, in order.
    pub disks: Vec<PathBuf>,
    /// The initrd that QEMU hands to the kernel.
    pub initrd: PathBuf,
    /// The value of `root=`.
    pub root: String,
    /// Whether several tests use the disks. Shared disks are in a directory that is named for a hash of their
    /// recipe.
    pub are_shared: bool,
}
