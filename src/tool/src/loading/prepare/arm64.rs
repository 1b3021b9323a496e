//! Preparing a load on arm64 (Documentation/arch/arm64/booting.rst).
//!
//! `kexec_file_load` starts a kernel with the device tree's address in `x0`. After `kexec_load(2)` nothing sets
//! that register (`arm64_relocate_new_kernel`, `arch/arm64/kernel/relocate_kernel.S`), so the first
//! instructions are nextkernel's.

use super::flat::{self, Way};
use crate::loading::prepare::parts::{Error, Parts, Prepared};

/// The largest page size that a kernel can be built with; a multiple of it suits every kernel.
const PAGE: u64 = 64 << 10;

/// The initrd must lie in a window of 32 GiB, aligned to 1 GiB, that contains the kernel, too.
const GIB: u64 = 1 << 30;
const WINDOW: u64 = 32 * GIB;

/// The image's flags: its byte order, and its page size of 4 KiB, 16 KiB or 64 KiB.
const BIG_ENDIAN: u64 = 1;
const PAGE_KINDS: [Option<u64>; 4] = [None, Some(4 << 10), Some(16 << 10), Some(64 << 10)];

/// Prepares a load.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    let image = flat::image(parts, "aarch64")?;
    if image.flags & BIG_ENDIAN != 0 {
        return Err(Error::Unfit("the kernel was built for big-endian machines; stage another".into()));
    }
    // Only the kernel can see whether the processor supports another page size. With one that it does not
    // support, the next kernel stops for ever (`__no_granule_support`, arch/arm64/kernel/head.S).
    let here = page_size();
    let its = PAGE_KINDS.get(usize::try_from(image.flags >> 1 & 3).unwrap_or(0)).copied().flatten();
    if let Some(its) = its.filter(|its| *its != here) {
        return Err(Error::Unfit(format!(
            "the kernel was built with pages of {} KiB, and this one runs with {}: whether the processor knows those \
             cannot be told, and where it does not, the machine stops; stage one with the same, or with --loader \
             verified, where the kernel looks",
            its >> 10,
            here >> 10
        )));
    }
    if image.offset % PAGE != 0 {
        return Err(Error::Unfit(
            "the kernel wants to begin at a place that no page begins at (text_offset); stage another".into(),
        ));
    }
    let below = |kernel: u64| (kernel / GIB * GIB).saturating_add(WINDOW);
    let way = Way { page: PAGE, before: image.offset, initrd_below: &below, code: Some(&first_instructions) };
    flat::segments(parts, &image, &way)
}

/// Returns the running kernel's page size.
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Returns position-independent code that uses no memory of its own: it finds the numbers behind it relative to
/// the program counter. Instructions are little-endian, whatever the byte order of data is. With the MMU off, a
/// load must be aligned. It is, because the code begins at a multiple of 8, where the device tree ends.
fn first_instructions(device_tree: u64, kernel: u64) -> Vec<u8> {
    let code: [u32; 6] = [
        0x5800_00c0, // ldr x0, =device_tree    24 bytes on
        0xaa1f_03e1, // mov x1, xzr             the protocol wants zeros in these
        0xaa1f_03e2, // mov x2, xzr
        0xaa1f_03e3, // mov x3, xzr
        0x5800_0084, // ldr x4, =kernel         16 bytes on
        0xd61f_0080, // br x4
    ];
    let numbers = [device_tree, kernel].into_iter().flat_map(u64::to_le_bytes);
    code.into_iter().flat_map(u32::to_le_bytes).chain(numbers).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::loading::prepare::flat::tests::{IOMEM, MIB, image, of, prepared};
    use nextkernel_plan::Part;

    const MAGIC: &[u8; 4] = b"ARM\x64";

    fn load(kernel: &[u8], initrd: Option<u64>) -> Result<Prepared, String> {
        prepared("aarch64", IOMEM, kernel, initrd)
    }

    #[test]
    fn kernel_initrd_and_tree_lie_in_free_memory_as_the_protocol_wants_it() {
        let prepared = load(&image(*MAGIC, 0, 20 * MIB, 0), Some(30 * MIB + 1)).unwrap();
        let [kernel, initrd, parameters] =
            [Part::Kernel, Part::Initrd, Part::Parameters].map(|part| of(&prepared, part));
        // The memory before the reserved region is too small for the kernel.
        assert_eq!((kernel.at, kernel.takes, kernel.bytes.size), (0x4160_0000, 20 * MIB, 1024));
        assert_eq!((initrd.at, initrd.bytes.size), (kernel.at + 20 * MIB, 30 * MIB + 1));
        assert_eq!(initrd.takes, 30 * MIB + PAGE);
        assert_eq!((parameters.at % (2 * MIB), parameters.bytes.size), (0, prepared.parameters.len() as u64));
        assert!(prepared.segments.is_sorted_by_key(|segment| segment.at));
        for segment in &prepared.segments {
            assert!(segment.at >= 0x4146_0000 && segment.at + segment.takes <= 0x5c00_0000, "{segment}");
            assert_eq!((segment.at % PAGE, segment.takes % PAGE), (0, 0), "{segment}");
        }
        for pair in prepared.segments.windows(2) {
            assert!(pair[0].at + pair[0].takes <= pair[1].at);
        }
    }

    #[test]
    fn what_the_image_wants_before_it_is_kept_free_for_it() {
        let prepared = load(&image(*MAGIC, 0x8_0000, 10 * MIB, 0), None).unwrap();
        let kernel = of(&prepared, Part::Kernel);
        assert_eq!((kernel.at, kernel.takes), (0x4008_0000, 10 * MIB));
        assert_eq!(prepared.segments.len(), 2);
    }

    #[test]
    fn an_initrd_that_the_kernel_could_not_reach_is_put_elsewhere_with_it() {
        let iomem = "40000000-40ffffff : System RAM\n8080000000-80ffffffff : System RAM\n";
        let prepared = prepared("aarch64", iomem, &image(*MAGIC, 0, 10 * MIB, 0), Some(20 * MIB)).unwrap();
        assert!(prepared.segments.iter().all(|segment| segment.at >= 0x80_8000_0000));
    }

    #[test]
    fn the_first_instructions_go_to_the_kernel_with_the_tree() {
        let prepared = load(&image(*MAGIC, 0, 10 * MIB, 0), None).unwrap();
        let parameters = of(&prepared, Part::Parameters);
        let at = usize::try_from(prepared.start - parameters.at).unwrap();
        assert_eq!(at % 8, 0);
        let code = &prepared.parameters[at..];
        let long = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().unwrap());
        assert_eq!((long(24), long(32)), (parameters.at, of(&prepared, Part::Kernel).at));
        // Each load instruction reaches its number: `imm19` counts words from the instruction on.
        for (instruction, number) in [(0, 24), (16, 32)] {
            let word = u32::from_le_bytes(code[instruction..instruction + 4].try_into().unwrap());
            assert_eq!(instruction + 4 * (usize::try_from(word).unwrap() >> 5 & 0x7_ffff), number);
        }
        assert_eq!(code.len(), 40);
    }

    #[test]
    fn what_would_stop_for_ever_is_refused() {
        let says = |kernel: &[u8], words: &str| {
            let sentence = load(kernel, None).unwrap_err();
            assert!(sentence.contains(words), "{sentence}");
        };
        says(&image(*MAGIC, 0, MIB, 1), "big-endian");
        assert_eq!(page_size(), 4096, "what follows is told from a host's pages");
        says(&image(*MAGIC, 0, MIB, 3 << 1), "pages of 64 KiB, and this one runs with 4");
        says(&image(*MAGIC, 0, MIB, 2 << 1), "pages of 16 KiB");
        load(&image(*MAGIC, 0, MIB, 1 << 1), None).unwrap();
        says(&image(*MAGIC, 4096, MIB, 0), "text_offset");
        says(&image(*MAGIC, 0, 0, 0), "before Linux 3.17");
        says(&image(*MAGIC, 0, u64::MAX, 0), "more memory than any machine has");
        says(&image(*MAGIC, 0, 1 << 40, 0), "no free place");
        says(&image(*b"RSC\x05", 0, MIB, 0), "it is a kernel for riscv64, and this machine is aarch64");
        says(b"\x7fELF", "no Image");
    }
}
