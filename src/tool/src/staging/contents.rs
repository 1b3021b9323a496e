//! The contents of an image set before it is made: the open files, what to make of them, and the room and memory
//! that this takes.

use crate::image::cmdline::Line;
use crate::image::header::Header;
use crate::loading::syscall::Syscall;
use crate::staging::copy;
use crate::staging::extra::Extra;
use crate::staging::source::{self, Source};

/// Room in /run for everything but images: the plan, the parameters for `kexec_load`, and what others write there
/// during staging.
pub const SPARE: u64 = 1 << 20;

/// The contents of an image set.
pub struct Contents {
    /// The kernel's file.
    pub kernel: Source,
    /// The initrds, which are joined in this order.
    pub initrds: Vec<Source>,
    /// Files that are added to them.
    pub extra: Extra,
    /// The next kernel's command line.
    pub line: Line,
    /// The syscall that loads the set.
    pub loader: Syscall,
    /// The syscall that loads the set if the kernel cannot be decompressed.
    pub if_compressed: Syscall,
    /// Whether to decompress the kernel.
    pub decompresses_kernel: bool,
    /// Whether to decompress the initrd.
    pub decompresses_initrd: bool,
}

impl Contents {
    /// Returns whether anything is to be decompressed.
    #[must_use]
    pub fn decompresses(&self) -> bool {
        self.decompresses_kernel || self.decompresses_initrd
    }

    /// Computes the sizes. A compressed initrd counts with its compressed size, because most do not state the
    /// other.
    pub fn sizes(&self) -> Result<Sizes, source::Error> {
        let initrd = copy::initrd_size(&self.initrds, &self.extra)?;
        let (kernel, header) = (self.kernel.unpacked_size()?, self.kernel.header());
        let takes = header.takes(kernel);
        let decompressed =
            Some(takes).filter(|_| self.decompresses_kernel && matches!(header, Header::Bz(_)));
        let initrd_twice = self.decompresses_initrd && initrd > 0;
        Ok(Sizes { kernel, initrd, decompressed, takes, initrd_twice, loader: self.loader })
    }
}

/// The sizes of the files to be made, in bytes, as far as the originals tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Size of the kernel's copy.
    pub kernel: u64,
    /// Size of the joined initrd.
    pub initrd: u64,
    /// Upper bound of the decompressed kernel's size, if it is to be decompressed.
    pub decompressed: Option<u64>,
    /// Memory that the kernel takes once it is loaded.
    pub takes: u64,
    /// Whether the initrd is written a second time, decompressed.
    pub initrd_twice: bool,
    /// The syscall that loads the set.
    pub(super) loader: Syscall,
}

impl Sizes {
    /// Returns the room in /run that making the set takes at its peak.
    #[must_use]
    pub fn room(&self) -> u64 {
        let staged = self.decompressed.unwrap_or(self.kernel);
        let meanwhile = self.decompressed.map_or(0, |decompressed| decompressed.saturating_add(self.kernel));
        let initrd = if self.initrd_twice { self.initrd.saturating_mul(2) } else { self.initrd };
        staged.saturating_add(initrd).max(meanwhile).saturating_add(SPARE)
    }

    /// Returns the memory that the segments take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.takes.saturating_add(self.initrd)
    }

    /// Returns the memory that a load takes. `kexec_file_load` reads the files whole before it fills the segments
    /// (`kimage_file_alloc_init`, `kernel/kexec_file.c`); `kexec_load` copies from mapped files.
    #[must_use]
    pub fn to_load(&self) -> u64 {
        let read = match self.loader {
            Syscall::FileLoad => self.kernel.saturating_add(self.initrd),
            Syscall::SegmentLoad => 0,
        };
        self.memory().saturating_add(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decompressed_takes_room_for_both_until_the_other_goes() {
        let sizes = Sizes {
            kernel: 10,
            initrd: 40,
            decompressed: None,
            takes: 60,
            initrd_twice: false,
            loader: Syscall::FileLoad,
        };
        assert_eq!((sizes.room() - SPARE, sizes.memory(), sizes.to_load()), (50, 100, 150));
        let decompressed =
            Sizes { decompressed: Some(60), initrd_twice: true, loader: Syscall::SegmentLoad, ..sizes };
        assert_eq!((decompressed.room() - SPARE, decompressed.to_load()), (140, 100));
        let alone = Sizes { initrd: 0, initrd_twice: false, ..decompressed };
        assert_eq!(alone.room() - SPARE, 70);
    }
}
