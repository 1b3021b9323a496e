//! Preparing a load on riscv64 (Documentation/arch/riscv/boot.rst).
//!
//! The running kernel recognizes the device tree among the segments by its first bytes, and starts the next
//! kernel with the tree and the number of the processor (`machine_kexec_prepare`,
//! `arch/riscv/kernel/machine_kexec.c`). So no instructions of nextkernel's own are needed.

use super::flat::{self, Way};
use crate::loading::prepare::parts::{Error, Parts, Prepared};

/// The page size of every kernel.
const PAGE: u64 = 4096;

/// Prepares a load.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    let image = flat::image(parts, "riscv64")?;
    // `text_offset` tells firmware where to place a kernel above itself; any other multiple of 2 MiB is as
    // good.
    let way = Way { page: PAGE, before: 0, initrd_below: &|_| u64::MAX, code: None };
    flat::segments(parts, &image, &way)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::loading::prepare::flat::tests::{MIB, image, of, prepared};
    use nextkernel_plan::Part;

    #[test]
    fn the_kernel_starts_at_its_first_byte_and_the_tree_begins_a_segment() {
        // QEMU's board with 512 MiB; the firmware lies at the beginning of memory.
        let iomem = "\
80000000-9fffffff : System RAM
  80000000-8007ffff : Reserved
  80200000-821fffff : Kernel image
    80202000-80dfffff : Kernel code
  9f000000-9fffffff : Reserved
";
        let kernel = image(*b"RSC\x05", 2 * MIB, 30 * MIB, 0);
        let prepared = prepared("riscv64", iomem, &kernel, Some(5)).unwrap();
        let [kernel, initrd, parameters] =
            [Part::Kernel, Part::Initrd, Part::Parameters].map(|part| of(&prepared, part));
        assert_eq!((prepared.start, kernel.at), (0x8020_0000, 0x8020_0000));
        assert!(kernel.takes >= 30 * MIB);
        assert_eq!((initrd.bytes.size, initrd.takes), (5, 4096));
        assert_eq!((parameters.at % (2 * MIB), parameters.bytes.offset), (0, 0));
        assert_eq!(prepared.parameters[..4], 0xd00d_feed_u32.to_be_bytes());
    }
}
