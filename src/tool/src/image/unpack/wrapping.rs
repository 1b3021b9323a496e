//! The formats in which a kernel is wrapped, and the members of an initrd are compressed.

use std::io::{self, Read, Seek, SeekFrom};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;

use super::stream::{Behind, Stream, Whole};
use super::zboot::{Size, Told, Zboot};
use super::{lz4, lzma, lzop, zstd};

/// The name of an EFI image that decompresses itself.
pub(super) const ZBOOT: &str = "EFI zboot";

/// A wrapping of a kernel. The names are meant for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// An EFI image that decompresses itself (drivers/firmware/efi/libstub/zboot-header.S).
    Zboot {
        /// The offset of the compressed kernel in the image, in bytes.
        offset: u32,
        /// The compressed size of the kernel, in bytes.
        size: u32,
        /// Whether the kernel is compressed with lzma, which its own bytes do not show.
        lzma: bool,
    },
    /// RFC 1952.
    Gzip,
    /// The .xz file format, 1.2.1.
    Xz,
    /// The older .lzma format, without a checksum.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4 frame format, 1.6.1.
    Lz4,
    /// The legacy LZ4 frame, which kernels use.
    Lz4Legacy,
    /// bzip2, 1.0.
    Bzip2,
    /// The file format of lzop.
    Lzo,
}

impl Wrapping {
    /// Returns the wrapping of a kernel that begins with these bytes, or `None` if the running kernel has to
    /// judge it as it is.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Wrapping> {
        let starts = |magic: &[u8]| head.starts_with(magic);
        let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        let number = |offset: usize| Some(u32::from_le_bytes(*head.get(offset..)?.first_chunk()?));
        // Images for x86, arm64 and riscv are EFI images, too, and are loaded as they are.
        if at(0x202, b"HdrS") || at(0x38, b"ARM\x64") || at(0x38, b"RSC\x05") {
            return None;
        }
        let zboot =
            || Some(Wrapping::Zboot { offset: number(8)?, size: number(12)?, lzma: at(0x18, b"lzma\0") });
        match () {
            () if starts(b"MZ") && at(4, b"zimg") => zboot(),
            () if starts(b"\x1f\x8b\x08") => Some(Wrapping::Gzip),
            () if starts(b"\xfd7zXZ\0") => Some(Wrapping::Xz),
            () if starts(b"\x28\xb5\x2f\xfd") => Some(Wrapping::Zstd),
            () if starts(b"\x04\x22\x4d\x18") => Some(Wrapping::Lz4),
            () if starts(&lz4::LEGACY_MAGIC.to_le_bytes()) => Some(Wrapping::Lz4Legacy),
            () if starts(b"BZh") => Some(Wrapping::Bzip2),
            () if starts(b"\x89LZO\0\r\n\x1a\n") => Some(Wrapping::Lzo),
            () => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Wrapping::Zboot { .. } => ZBOOT,
            Wrapping::Gzip => "gzip",
            Wrapping::Xz => "xz",
            Wrapping::Lzma => "lzma",
            Wrapping::Zstd => "zstd",
            Wrapping::Lz4 | Wrapping::Lz4Legacy => "lz4",
            Wrapping::Bzip2 => "bzip2",
            Wrapping::Lzo => "lzo",
        }
    }

    /// Opens a stream of the content. `told` receives the size that an EFI image states for it.
    pub(super) fn open<'a>(
        self,
        from: Stream<'a>,
        told: &Told,
        behind: Behind,
    ) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Wrapping::Zboot { offset, size, .. } => Box::new(Zboot::open(from, offset, size, told)?),
            Wrapping::Gzip => {
                // gzip data includes its size, so the build appends none (Makefile.zboot).
                told.set(Size::Inside);
                Whole::boxed(behind, GzDecoder::new(from), |gzip, _| Ok(gzip.into_inner()))
            }
            Wrapping::Xz => lzma::open_xz(from, behind),
            Wrapping::Lzma => lzma::open(from, behind)?,
            Wrapping::Zstd => zstd::open(from, behind)?,
            Wrapping::Lz4 => lz4::open(from, behind),
            Wrapping::Lz4Legacy => lz4::open_legacy(from, behind),
            Wrapping::Bzip2 => Whole::boxed(behind, BzDecoder::new(from), |bzip2, _| Ok(bzip2.into_inner())),
            Wrapping::Lzo => lzop::open(from, behind)?,
        })
    }

    /// Returns the size in bytes that the data states for its content, if that can be read without
    /// decompressing. The statement may be false.
    pub fn told(self, from: &mut (impl Read + Seek), start: u64, end: u64) -> Option<u64> {
        let mut number = |at: u64| {
            let mut bytes = [0; 4];
            from.seek(SeekFrom::Start(at)).ok()?;
            from.read_exact(&mut bytes).ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        };
        match self {
            // The size is part of gzip's own format. For the other formats the build appends it
            // (Makefile.zboot).
            Wrapping::Zboot { offset, size, .. } => {
                let begin = start.checked_add(offset.into())?;
                let behind = begin.checked_add(size.into()).filter(|behind| *behind <= end)?;
                let is_gzip = number(begin)?.to_le_bytes().starts_with(b"\x1f\x8b");
                number(if is_gzip { behind.checked_sub(4)? } else { behind })
            }
            Wrapping::Gzip => number(end.checked_sub(4)?),
            _ => None,
        }
    }
}
