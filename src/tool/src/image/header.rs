//! Reads the header of an unwrapped kernel image, which states the machine that it is for, and the memory and
//! command line that it takes (Documentation/arch/x86/boot.rst, arch/arm64/booting.rst,
//! arch/riscv/boot-image-header.rst; PE, ELF).

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::image::bzimage;
use crate::words::little_endian::{long, short, wide};

/// The number of bytes to read: more than any of the headers below takes.
pub const LENGTH: usize = 4096;

/// The page size of x86, in bytes. The memory for a bzImage is reserved in whole pages.
const PAGE: u64 = 4096;

/// The first boot protocol whose bzImages the kernel loads (`bzImage64_probe`,
/// `arch/x86/kernel/kexec-bzimage64.c`).
const PROTOCOL: u16 = 0x020c;

/// The header of a kernel image, by its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// A bzImage, for x86.
    Bz(Bz),
    /// An Image, for arm64 or riscv64.
    Flat(Flat),
    /// Another image, for the architecture of this name in Rust.
    For(&'static str),
    /// No known format.
    Unknown,
}

/// The fields of a bzImage's header that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bz {
    /// The version of the boot protocol, for example 0x020f for 2.15.
    pub protocol: u16,
    /// Whether the image has a 64-bit entry and can be placed anywhere in memory.
    pub is_64_bit: bool,
    /// Whether the image can be started with five levels of page tables.
    pub five_levels: bool,
    /// The longest command line that the kernel takes, in bytes.
    pub cmdline_max: u64,
    /// The memory in bytes that the image needs until it is decompressed.
    pub memory: u64,
}

/// The fields of an Image's header that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// The architecture, under its name in Rust.
    pub machine: &'static str,
    /// The offset of the image from an address at which it may be placed, in bytes (`text_offset`).
    pub offset: u64,
    /// Its other properties, of a bit or two each (`flags`).
    pub flags: u64,
    /// The memory in bytes that the image needs where it is loaded, or 0 if the header does not say. It is more
    /// than the size of the file because some of it begins as zeros.
    pub memory: u64,
}

impl Header {
    /// Reads the header of a file. The header of an unreadable file is unknown.
    #[must_use]
    pub fn read(file: &File) -> Header {
        let mut bytes = vec![0; LENGTH];
        let length = file.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(length);
        Header::parse(&bytes)
    }

    /// Parses a header. Any bytes are accepted.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Header {
        let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
        if has(bzimage::MAGIC, b"HdrS") {
            return Header::Bz(Bz::parse(bytes));
        }
        if has(56, b"ARM\x64") {
            return Header::Flat(Flat::parse("aarch64", bytes));
        }
        if has(56, b"RSC\x05") {
            return Header::Flat(Flat::parse("riscv64", bytes));
        }
        let machine = if has(0, b"\x7fELF") {
            elf(bytes)
        } else if has(0, b"MZ") {
            pe(bytes)
        } else {
            None
        };
        machine.map_or(Header::Unknown, Header::For)
    }

    /// Returns the memory in bytes that an image of this size takes where it is loaded. If its header states
    /// how much it needs there, to decompress itself or for its zeros, the running kernel reserves that in
    /// whole pages (`bzImage64_load`, `arch/x86/kernel/kexec-bzimage64.c`; `image_load`,
    /// `arch/arm64/kernel/kexec_image.c`).
    #[must_use]
    pub fn takes(&self, size: u64) -> u64 {
        match self {
            Header::Bz(bz) => size.max(bz.memory.next_multiple_of(PAGE)),
            Header::Flat(flat) => size.max(flat.memory),
            _ => size,
        }
    }
}

impl Flat {
    /// Reads `text_offset` and `image_size`. The former was 512 KiB before Linux 5.8.
    fn parse(machine: &'static str, bytes: &[u8]) -> Flat {
        let (offset, size) = (wide(bytes, 8), wide(bytes, 16));
        let memory = if size == 0 { 0 } else { size.saturating_add(offset) };
        Flat { machine, offset, flags: wide(bytes, 24), memory }
    }
}

impl Bz {
    fn parse(bytes: &[u8]) -> Bz {
        let flags = short(bytes, bzimage::XFLAGS);
        let anywhere = bzimage::KERNEL_64 | bzimage::ANYWHERE;
        Bz {
            protocol: short(bytes, bzimage::VERSION),
            is_64_bit: flags & anywhere == anywhere,
            five_levels: flags & bzimage::FIVE_LEVELS != 0,
            cmdline_max: long(bytes, bzimage::CMDLINE_MAX).into(),
            memory: long(bytes, bzimage::INIT_SIZE).into(),
        }
    }

    /// Returns whether the image is too old for `kexec_file_load(2)`.
    #[must_use]
    pub fn is_too_old(&self) -> bool {
        self.protocol < PROTOCOL
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Reads `e_machine`, in the byte order of the file.
fn elf(bytes: &[u8]) -> Option<&'static str> {
    let machine = number::<2>(bytes, 18)?;
    let big = bytes.get(5) == Some(&2);
    match if big { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) } {
        3 => Some("x86"),
        21 => Some("powerpc64"),
        22 => Some("s390x"),
        40 => Some("arm"),
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        243 => Some("riscv64"),
        258 => Some("loongarch64"),
        _ => None,
    }
}

/// Reads `Machine`, after the signature to which the number at 0x3c points.
fn pe(bytes: &[u8]) -> Option<&'static str> {
    let at = usize::try_from(u32::from_le_bytes(number::<4>(bytes, 0x3c)?)).ok()?;
    if number::<4>(bytes, at)? != *b"PE\0\0" {
        return None;
    }
    match u16::from_le_bytes(number::<2>(bytes, at.checked_add(4)?)?) {
        0x014c => Some("x86"),
        0x01c2 => Some("arm"),
        0x5064 => Some("riscv64"),
        0x6264 => Some("loongarch64"),
        0x8664 => Some("x86_64"),
        0xaa64 => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Returns a file with these bytes at these offsets.
    pub(crate) fn image(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn a_bzimage_says_what_it_takes() {
        let bytes = image(&[
            (0, b"MZ"),
            (0x202, b"HdrS"),
            (0x206, &0x020f_u16.to_le_bytes()),
            (0x236, &0x7f_u16.to_le_bytes()),
            (0x238, &2047_u32.to_le_bytes()),
            (0x260, &0x0200_0000_u32.to_le_bytes()),
        ]);
        let Header::Bz(bz) = Header::parse(&bytes) else { unreachable!() };
        assert!(bz.is_64_bit && bz.five_levels && !bz.is_too_old());
        assert_eq!((bz.cmdline_max, bz.memory), (2047, 32 << 20));
        // The image has XLF_EFI_KEXEC, but not XLF_5LEVEL (arch/x86/include/uapi/asm/bootparam.h).
        let without = Header::parse(&image(&[(0x202, b"HdrS"), (0x236, &0b01_1111_u16.to_le_bytes())]));
        assert!(matches!(without, Header::Bz(Bz { is_64_bit: true, five_levels: false, .. })), "{without:?}");
        let odd = Header::Bz(Bz { memory: (32 << 20) - 1, ..bz });
        assert_eq!((odd.takes(12 << 20), odd.takes(40 << 20)), (32 << 20, 40 << 20));
        assert_eq!(Header::Unknown.takes(7), 7);
    }

    #[test]
    fn an_image_says_how_much_more_than_the_file_it_takes() {
        let of = |offset: u64, size: u64| {
            let bytes = image(&[(8, &offset.to_le_bytes()), (16, &size.to_le_bytes()), (56, b"ARM\x64")]);
            Header::parse(&bytes).takes(1024)
        };
        assert_eq!((of(0, 4096), of(0x8_0000, 4096), of(0x8_0000, 0)), (4096, 0x8_1000, 1024));
        assert_eq!(of(4096, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_machine_that_an_image_is_for_is_told_from_its_first_bytes() {
        let flat = |machine| Header::Flat(Flat { machine, offset: 0, flags: 0, memory: 0 });
        for (bytes, header) in [
            (image(&[(0, b"MZ"), (56, b"ARM\x64")]), flat("aarch64")),
            (image(&[(56, b"RSC\x05")]), flat("riscv64")),
            (image(&[(0, b"\x7fELF\x02\x01"), (18, &[62, 0])]), Header::For("x86_64")),
            (image(&[(0, b"\x7fELF\x02\x02"), (18, &[0, 22])]), Header::For("s390x")),
            (
                image(&[(0, b"MZ"), (0x3c, &[0x80, 0, 0, 0]), (0x80, b"PE\0\0\x64\x62")]),
                Header::For("loongarch64"),
            ),
            (image(&[(0, b"070701")]), Header::Unknown),
            (image(&[(0, b"MZ"), (0x3c, &[0xff; 4])]), Header::Unknown),
        ] {
            assert_eq!(Header::parse(&bytes), header);
        }
    }

    #[test]
    fn an_image_that_is_cut_off_anywhere_is_read_to_its_end() {
        let bytes = image(&[(0, b"MZ"), (0x3c, &[0x80, 0, 0, 0]), (0x80, b"PE\0\0"), (0x202, b"HdrS")]);
        for length in 0..bytes.len() {
            let _ = Header::parse(&bytes[..length]);
        }
    }
}
