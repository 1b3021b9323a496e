//! Checks that a kernel image is whole before it is staged. The running kernel silently loads an image that a
//! full /boot has cut off, or that is damaged on its disk; only the next kernel would notice.
//!
//! An image has to hold everything that its headers mention: the sectors and the payload of a bzImage, the
//! sections of an EFI program, the segments of an ELF file. The payload that a bzImage decompresses itself is
//! decompressed once and thrown away, and every checksum of its format is compared. gzip, xz and bzip2 have
//! one; zstd has one on request, which the kernel's build does not make. That of lzo (Adler-32) misses some
//! changes of several bytes; lz4 and lzma have none.
//!
//! Uncompressed parts are not proved: the code that decompresses the payload, an Image of arm64 or riscv64, an
//! ELF file. A changed byte in them goes unnoticed, unless the running kernel verifies signatures. An initrd is
//! proved by [`crate::loading::decompress::is_whole_initrd`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::image::bzimage;
use crate::image::unpack::Unpacked;
use crate::machine::sys::read_at;
use crate::words::errno::InWords;
use crate::words::little_endian::{long, short, wide};

/// The number of bytes to read: more than the headers take. Those of an EFI program point to its section
/// headers, which are in the first page.
const HEAD: usize = 4096;

/// The unit, in bytes, in which a bzImage states its length.
const PARAGRAPH: u64 = 16;

/// The number of bytes that are decompressed at a time.
const PART: usize = 1 << 16;

/// Sizes and places in a PE file (PE format, Microsoft): the signature and the header after it; a section
/// header; the offset of the directories in the optional header for 64 bits; and the index of the directory for
/// signatures.
const PE: usize = 24;
const SECTION: usize = 40;
const DIRECTORIES: usize = 112;
const CERTIFICATES: usize = 4;

/// The size in bytes of a segment's header in an ELF file.
const SEGMENT: usize = 56;

/// Proves a staged kernel whole as far as possible, or says what is wrong with it. The payload is not tried
/// without `unpacks`, when it is decompressed elsewhere.
pub fn kernel(file: &File, unpacks: bool) -> Result<(), String> {
    let unreadable = |error| format!("it cannot be read: {}", InWords(&error));
    let size = file.metadata().map_err(unreadable)?.len();
    let mut head = vec![0; HEAD];
    let has = read_at(file, &mut head, 0).map_err(unreadable)?;
    head.truncate(has);
    if bzimage::is_one(&head) {
        let payload = bzimage_payload(&head, size)?;
        if let Some((at, length)) = payload.filter(|_| unpacks) {
            unpacked(file, at, length)
                .map_err(|why| format!("what is packed in it does not come out: {why}"))?;
        }
    }
    if head.starts_with(b"\x7fELF\x02\x01") {
        elf(file, &head, size)?;
    }
    if head.starts_with(b"MZ") {
        pe(&head, size)?;
    }
    Ok(())
}

fn cut_off(what: &str, needs: u64, size: u64) -> Result<(), String> {
    if needs <= size {
        return Ok(());
    }
    Err(format!("it is cut off: {what} should reach to byte {needs}, and the file has {size}"))
}

/// Returns the offset and the length of a bzImage's payload, if the header states them. It is an error if the
/// file does not hold the payload.
fn bzimage_payload(head: &[u8], size: u64) -> Result<Option<(u64, u64)>, String> {
    let begin = bzimage::real_mode(head);
    let loaded = u64::from(long(head, bzimage::SIZE)) * PARAGRAPH;
    cut_off("what its header says is loaded", begin + loaded, size)?;
    let at = begin + u64::from(long(head, bzimage::PAYLOAD));
    let length = u64::from(long(head, bzimage::PAYLOAD_LENGTH));
    if short(head, bzimage::VERSION) < bzimage::PAYLOAD_SINCE || length == 0 {
        return Ok(None);
    }
    cut_off("what is packed in it", at + length, size)?;
    Ok(Some((at, length)))
}

/// Decompresses the payload and throws it away. It has to be the ELF file that the code before it looks for
/// (`parse_elf`, arch/x86/boot/compressed/misc.c).
fn unpacked(file: &File, at: u64, length: u64) -> Result<(), String> {
    let words = |error: io::Error| InWords(&error).to_string();
    let mut from = file;
    from.seek(SeekFrom::Start(at)).map_err(words)?;
    let mut payload = Unpacked::payload(from.take(length)).map_err(|error| error.to_string())?;
    let (mut part, mut first) = (vec![0; PART], Vec::new());
    loop {
        let read = payload.read(&mut part).map_err(|error| error.to_string())?;
        let part = part.get(..read).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let missing = 4_usize.saturating_sub(first.len()).min(part.len());
        first.extend_from_slice(part.get(..missing).unwrap_or_default());
    }
    if first == b"\x7fELF" { Ok(()) } else { Err("it is no ELF file".to_owned()) }
}

/// Checks the segments of an ELF file, and the table of its sections, which is at its end.
fn elf(file: &File, head: &[u8], size: u64) -> Result<(), String> {
    let (at, count, length) = (wide(head, 32), u64::from(short(head, 56)), u64::from(short(head, 54)));
    let reaches = |begin: u64, length: u64| begin.saturating_add(length);
    cut_off("the table of its segments", reaches(at, count * length), size)?;
    for number in 0..count {
        let mut segment = [0; SEGMENT];
        read_at(file, &mut segment, at + number * length)
            .map_err(|error| format!("it cannot be read: {}", InWords(&error)))?;
        cut_off("a segment", reaches(wide(&segment, 8), wide(&segment, 32)), size)?;
    }
    let (at, count, length) = (wide(head, 40), u64::from(short(head, 60)), u64::from(short(head, 58)));
    cut_off("the table of its sections", reaches(at, count * length), size)
}

/// Checks the sections of an EFI program, and its signatures.
fn pe(head: &[u8], size: u64) -> Result<(), String> {
    let at = usize::try_from(long(head, 0x3c)).unwrap_or(usize::MAX);
    let Some(pe) = head.get(at..).filter(|pe| pe.starts_with(b"PE\0\0")) else { return Ok(()) };
    let (sections, optional) = (usize::from(short(pe, 6)), usize::from(short(pe, 20)));
    let rows = pe.get(PE + optional..).unwrap_or_default().chunks_exact(SECTION).take(sections);
    for row in rows {
        // A section that exists only in memory takes no place in the file.
        let (length, begin) = (u64::from(long(row, 16)), u64::from(long(row, 20)));
        let name = row.get(..8).map(String::from_utf8_lossy).unwrap_or_default();
        let name: String = name.chars().filter(char::is_ascii_graphic).collect();
        if length > 0 {
            cut_off(&format!("its section {name}"), begin + length, size)?;
        }
    }
    let directory = PE + DIRECTORIES + CERTIFICATES * 8;
    if optional < DIRECTORIES + (CERTIFICATES + 1) * 8 || short(pe, PE) != 0x20b {
        return Ok(());
    }
    let (begin, length) = (u64::from(long(pe, directory)), u64::from(long(pe, directory + 4)));
    if length > 0 { cut_off("its signature", begin + length, size) } else { Ok(()) }
}
