//! A next kernel of a few KB, from `tests/stub`, that prints the data handed to it and powers off. It is for
//! tests of how a kernel is handed over to, and not of what the kernel does then.
//!
//! On COM1 it prints two lines. The first is `NEXT KERNEL UP: COMMAND LINE`, as the next system of the shutdown
//! guests prints it ([`crate::initramfs`]). The second is `NEXT KERNEL GOT: ` and the rest of the data, in this
//! order:
//!
//! | words | source |
//! |---|---|
//! | `initrd SIZE bytes sum SUM` | the initrd, whose [`sum`] has 16 digits |
//! | `e820 COUNT entries, SIZE KiB usable` | the memory map, including the part of it in `setup_data` |
//! | `rsdp ADDRESS`, `efi 0` or `1`, `screen TYPE` | `acpi_rsdp_addr`, `efi_info`, `orig_video_isVGA` |
//! | `setup_data COUNT`, `seed SUM` | the list of `setup_data`, and the random seed in it |
//! | `loader TYPE`, `loadflags FLAGS` | `type_of_loader`; 2 in the flags is `KASLR_FLAG` |
//! | `levels COUNT` | the page tables that it was started with |
//! | `bzImage at ADDRESS` | its address, if it was started at the bzImage's entry |
//! | `vmlinux at ADDRESS mapped at ADDRESS` | its address at the vmlinux's entry, and where its relocations map it |
//!
//! Sizes and counts are decimal. The rest is hexadecimal, and 0 for missing data. The stub starts at a 64-bit
//! entry, where kexec starts kernels, and nowhere else.

use crate::host::command;
use crate::host::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The compiler's options for code that runs without an operating system, at any address.
const FLAGS: [&str; 18] = [
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-strict-aliasing",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-fcf-protection=none",
    "-fpie",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none,-z,noexecstack,-z,max-page-size=0x200000",
];

/// Returns the stub as a bzImage. It is built once in a process.
pub fn kernel() -> Result<Vec<u8>, String> {
    static KERNEL: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    KERNEL.get_or_init(build).clone()
}

/// Returns the sum that the stub prints for an initrd: FNV-1a of its 64-bit words, the last one filled up with
/// zeros, and of its length, rotated after each.
#[must_use]
pub fn sum(initrd: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
    let words = initrd.chunks(8).map(word).chain([initrd.len() as u64]);
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29))
}

/// Builds the stub as Linux builds its kernel: a vmlinux with its relocations is compressed and becomes a part of
/// the bzImage.
fn build() -> Result<Vec<u8>, String> {
    let scratch = Scratch::new()?;
    let elf = scratch.path("vmlinux");
    link(&scratch, "vmlinux.lds", &["start.S", "stub.c"], &elf)?;
    let mut plain = objcopy(&scratch, &elf, &["-S", "-R", ".relocs"])?;
    let relocations = ["-O", "binary", "-j", ".relocs", "--set-section-flags", ".relocs=alloc"];
    plain.extend(objcopy(&scratch, &elf, &relocations)?);
    put(&scratch.path("payload"), &packed(&scratch, &plain)?)?;
    let image = scratch.path("bzimage");
    link(&scratch, "bzimage.lds", &["header.S", "start.S", "stub.c"], &image)?;
    let mut image = objcopy(&scratch, &image, &["-O", "binary"])?;
    // boot.rst, "The Image Checksum".
    image.truncate(image.len().saturating_sub(4));
    let checksum = checksum(&image);
    image.extend(checksum.to_le_bytes());
    Ok(image)
}

/// Compresses a vmlinux as the kernel's build does: with its options for xz (`scripts/xz_wrap.sh`), and with the
/// size appended (`size_append`, `scripts/Makefile.lib`).
fn packed(scratch: &Scratch, plain: &[u8]) -> Result<Vec<u8>, String> {
    let file = scratch.path("plain");
    put(&file, plain)?;
    let mut xz = Command::new("xz");
    let mut packed =
        command::run_bytes(xz.args(["--check=crc32", "--x86", "--lzma2", "--stdout"]).arg(&file))?;
    let size = u32::try_from(plain.len()).map_err(|e| format!("{}: {e}", file.display()))?;
    packed.extend(size.to_le_bytes());
    Ok(packed)
}

fn link(scratch: &Scratch, script: &str, sources: &[&str], to: &Path) -> Result<(), String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("stub");
    let sources = sources.iter().map(|source| directory.join(source));
    let mut gcc = Command::new("gcc");
    gcc.args(FLAGS).arg("-Wa,-I,.").current_dir(scratch.path("")).arg("-T").arg(directory.join(script));
    command::run(gcc.arg("-o").arg(to).args(sources)).map(drop)
}

fn objcopy(scratch: &Scratch, from: &Path, options: &[&str]) -> Result<Vec<u8>, String> {
    let to: PathBuf = scratch.path("copied");
    command::run(Command::new("objcopy").args(options).args([from, &to]))?;
    fs::read(&to).map_err(|e| format!("{}: {e}", to.display()))
}

fn put(file: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(file, bytes).map_err(|e| format!("{}: {e}", file.display()))
}

/// Returns a bzImage's CRC-32. It begins with ones and is not inverted at the end, so that the CRC-32 of an image
/// with its checksum is 0.
fn checksum(image: &[u8]) -> u32 {
    let shift = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1));
    image.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Reads a little-endian number of up to eight bytes.
    fn number(bytes: &[u8], at: usize, length: usize) -> usize {
        bytes[at..at + length].iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte))
    }

    /// Returns the part of the image that follows the sectors for real mode.
    fn protected_mode(image: &[u8]) -> &[u8] {
        &image[(number(image, 0x1f1, 1) + 1) * 512..]
    }

    #[test]
    fn its_header_is_one_that_the_kernel_starts_by_kexec() {
        // bzImage64_probe, arch/x86/kernel/kexec-bzimage64.c.
        let image = kernel().unwrap();
        assert_eq!((&image[0x202..0x206], number(&image, 0x1fe, 2)), (&b"HdrS"[..], 0xaa55));
        // version; loadflags: LOADED_HIGH; xloadflags: a 64-bit entry, loadable anywhere, kexec with EFI, five
        // page-table levels.
        assert_eq!(
            [(0x206, 2), (0x211, 1), (0x236, 2)].map(|(at, size)| number(&image, at, size)),
            [0x20f, 1, 0x33]
        );
        // kernel_alignment, relocatable_kernel, min_alignment, pref_address, cmdline_size.
        assert_eq!(
            [(0x230, 4), (0x234, 1), (0x235, 1), (0x258, 8), (0x238, 4)]
                .map(|(at, size)| number(&image, at, size)),
            [2 << 20, 1, 21, 16 << 20, 2047]
        );
    }

    #[test]
    fn what_its_header_says_of_the_file_is_so() {
        let image = kernel().unwrap();
        assert!(image.len() < 32 << 10, "{}", image.len());
        let loaded = protected_mode(&image);
        // syssize, which the checksum covers; init_size.
        assert_eq!(number(&image, 0x1f4, 4) * 16, loaded.len());
        assert_eq!(checksum(&image), 0);
        assert!(number(&image, 0x260, 4) > loaded.len());
        // The jump leads to the end of the header. boot_params has room for the header up to there
        // (zero-page.rst).
        assert_eq!((image[0x200], 0x202 + usize::from(image[0x201])), (0xeb, 0x26c));
        assert!(image[number(&image, 0x20e, 2) + 0x200..].starts_with(b"0.0.0-stub (bed@nextkernel) #1\0"));
        let info = number(&image, 0x268, 4);
        assert_eq!((&loaded[info..info + 4], number(loaded, info + 4, 4)), (&b"LToP"[..], 16));
    }

    #[test]
    fn what_is_packed_in_it_is_a_vmlinux_with_its_relocations() {
        let image = kernel().unwrap();
        let (at, length) = (number(&image, 0x248, 4), number(&image, 0x24c, 4));
        let payload = &protected_mode(&image)[at..at + length];
        let (packed, size) = payload.split_at(length - 4);
        let scratch = Scratch::new().unwrap();
        let file = scratch.path("payload.xz");
        put(&file, packed).unwrap();
        let plain =
            command::run_bytes(Command::new("xz").args(["--decompress", "--stdout"]).arg(&file)).unwrap();
        assert_eq!(plain.len(), number(size, 0, 4));
        assert!(plain.starts_with(b"\x7fELF\x02\x01"));
        // ET_EXEC, x86-64; its entry, and one segment that is loaded, at 16 MiB and aligned to 2 MiB.
        assert_eq!((number(&plain, 16, 2), number(&plain, 18, 2), number(&plain, 56, 2)), (2, 62, 1));
        let program = number(&plain, 32, 8);
        let load = [(0, 4), (24, 8), (48, 8)].map(|(at, size)| number(&plain, program + at, size));
        assert_eq!(load, [1, 16 << 20, 2 << 20]);
        let entry = number(&plain, 24, 8) - (16 << 20);
        assert!(entry > 0x200 && entry < number(&plain, program + 32, 8));
        // Its section headers are followed by relocations of 64 bits and of 32 bits. Each is the lower half of a
        // mapped address.
        let end = number(&plain, 40, 8) + number(&plain, 60, 2) * 64;
        let relocations = &plain[end..];
        assert_eq!(relocations.len(), 16);
        let mapped = 0xffff_ffff_8100_0000;
        for (zero, place, size) in [(0, 4, 8), (8, 12, 4)] {
            assert_eq!(number(relocations, zero, 4), 0);
            let place = number(relocations, place, 4) - (mapped & 0xffff_ffff);
            let value = number(&plain, number(&plain, program + 8, 8) + place, size);
            assert_eq!(value, mapped & (usize::MAX >> (64 - 8 * size)));
        }
    }

    #[test]
    fn the_sum_depends_on_every_byte_their_order_and_their_number() {
        let bytes: Vec<u8> = (0..=50).collect();
        let mut sums = vec![sum(&bytes), sum(&bytes[..50]), sum(&[]), sum(&[0]), sum(&[0; 8]), sum(&[0; 16])];
        for (at, bit) in (0..bytes.len()).flat_map(|at| [(at, 1), (at, 0x80)]) {
            let mut other = bytes.clone();
            other[at] ^= bit;
            sums.push(sum(&other));
        }
        let mut swapped = bytes.clone();
        swapped.rotate_left(8);
        sums.push(sum(&swapped));
        let count = sums.len();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), count);
    }
}
