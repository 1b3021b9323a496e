#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use flate2::Crc;

use super::lzop::{ADLER, CRC, HEADER_CRC, PACKED_ADLER, PACKED_CRC};
use super::{Error, Unpacked, Wrapping, lzo1x, zstd};

macro_rules! seed {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../../../fuzz/seeds/unpack/", $name)) as &[u8])
    };
}

/// Made from `plain` with the tools themselves, called as the kernel's build calls them.
const WRAPPED: [(&str, &[u8]); 13] = [
    seed!("gzip"),
    seed!("xz"),
    seed!("xz-bcj"),
    seed!("zstd"),
    seed!("zstd-22"),
    seed!("lz4"),
    seed!("lz4-legacy"),
    seed!("bzip2"),
    seed!("lzo"),
    seed!("zboot-gzip"),
    seed!("zboot-zstd"),
    seed!("zboot-lzma"),
    seed!("zboot-xz"),
];
const PLAIN: &[u8] = seed!("plain").1;

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut kernel = Unpacked::new(bytes)?;
    let (mut all, mut part) = (Vec::new(), [0; 100]);
    loop {
        match kernel.read(&mut part)? {
            0 => return Ok(all),
            read => all.extend(part.get(..read).unwrap()),
        }
    }
}

#[test]
fn every_format_that_a_kernel_is_packed_in_gives_the_kernel() {
    for (name, bytes) in WRAPPED {
        assert!(Wrapping::of(bytes).is_some(), "{name}");
        assert_eq!(unpacked(bytes).unwrap(), PLAIN, "{name}");
    }
}

#[test]
fn what_is_a_kernel_already_or_is_unknown_passes_as_it_is() {
    for kernel in [PLAIN, b"\x7fELF", b"MZ", b"text", b"", b"BZ", b"MZ\0\0zimg"] {
        assert_eq!((Wrapping::of(kernel), unpacked(kernel).unwrap()), (None, kernel.to_vec()));
    }
}

/// Returns the end of the compressed data in a file. In an EFI image, the size and padding follow it.
fn end(bytes: &[u8]) -> usize {
    match Wrapping::of(bytes) {
        Some(Wrapping::Zboot { offset, size, .. }) => usize::try_from(offset + size).unwrap(),
        _ => bytes.len(),
    }
}

fn is_damaged(bytes: &[u8]) -> bool {
    matches!(unpacked(bytes), Err(Error::Damaged { .. }))
}

#[test]
fn one_that_is_cut_off_anywhere_is_damaged() {
    for (name, bytes) in WRAPPED {
        let behind = if name.starts_with("zboot") && !name.ends_with("gzip") { 4 } else { 0 };
        for length in 20..end(bytes) + behind {
            // Only the appended size shows that anything is missing here.
            if name == "lz4-legacy" && length == bytes.len() - 4 {
                continue;
            }
            assert!(is_damaged(bytes.get(..length).unwrap()), "{name} {length}");
        }
    }
}

#[test]
fn a_damaged_byte_is_seen_wherever_the_format_has_a_checksum() {
    let without = ["lz4-legacy", "zboot-lzma", "zstd"];
    for (name, bytes) in WRAPPED.into_iter().filter(|(name, _)| !without.contains(name)) {
        let start = if name.starts_with("zboot") { 0x200 } else { 9 };
        for (at, bit) in (start..end(bytes)).flat_map(|at| [(at, 1), (at, 0x80)]) {
            let mut other = bytes.to_vec();
            *other.get_mut(at).unwrap() ^= bit;
            // A damaged time or file name does not change the kernel.
            let left = unpacked(&other);
            assert!(left.is_err() || left.unwrap() == PLAIN, "{name} {at}");
        }
    }
}

#[test]
fn behind_the_end_nothing_may_follow_but_zeros_and_the_size() {
    let size = u32::try_from(PLAIN.len()).unwrap().to_le_bytes();
    for (name, bytes) in WRAPPED.into_iter().filter(|(name, _)| !name.starts_with("zboot")) {
        let bytes = if name == "lz4-legacy" { bytes.strip_suffix(&size).unwrap() } else { bytes };
        let with = |more: &[&[u8]]| [bytes, &more.concat()].concat();
        for more in [&[&size[..]][..], &[&[0; 4]], &[&[0; 5000]], &[&size, &[0; 7]]] {
            assert_eq!(unpacked(&with(more)).unwrap(), PLAIN, "{name} {more:?}");
        }
        for more in [&[&size[..3]][..], &[&[9]], &[&size, &[9]], &[&[0; 5000], &[9]], &[&size, &size]] {
            assert!(is_damaged(&with(more)), "{name} {more:?}");
        }
        // Concatenated legacy lz4 frames are one file.
        let twice = unpacked(&with(&[bytes]));
        assert_eq!(twice.ok(), (name == "lz4-legacy").then(|| [PLAIN, PLAIN].concat()), "{name}");
    }
}

#[test]
fn a_kernel_of_another_size_than_is_told_is_damaged() {
    for (name, bytes) in WRAPPED {
        let mut other = bytes.to_vec();
        let at = if name.starts_with("zboot") { end(bytes) } else { bytes.len() - 4 };
        *other.get_mut(at).unwrap() ^= 1;
        // In an EFI image, padding follows gzip data.
        let is_told = ["lz4-legacy", "gzip"].contains(&name) || name.starts_with("zboot");
        if is_told {
            assert_eq!(is_damaged(&other), name != "zboot-gzip", "{name}");
        }
    }
}

#[test]
fn an_empty_block_of_lz4_is_no_end() {
    let (_, whole) = seed!("lz4-legacy");
    let size = u32::try_from(PLAIN.len()).unwrap().to_le_bytes();
    let blocks = whole.strip_suffix(&size).unwrap();
    assert!(is_damaged(&[blocks, &[1, 0, 0, 0, 0]].concat()));
    assert!(is_damaged(&[blocks, &[1, 0, 0, 0]].concat()));
}

#[test]
fn each_checksum_of_lzop_is_compared() {
    let crc = |bytes: &[u8]| {
        let mut sum = Crc::new();
        sum.update(bytes);
        sum.sum()
    };
    let [text, packed] = [&b"abcdefgh"[..], &[18, b'a', 0x80 + 0x60, 0, 0x11, 0, 0]];
    let file = |flags: u32, sums: &[u32], size: u32, block: &[u8]| {
        let head = [&[0x10, 0x40, 0x20, 0xa0, 9, 0x40, 3, 9][..], &flags.to_be_bytes(), &[0; 13]].concat();
        let sum = if flags & HEADER_CRC == 0 { lzo1x::adler32(&head) } else { crc(&head) };
        let length = u32::try_from(block.len()).unwrap();
        let numbers: Vec<_> =
            [size, length].iter().chain(sums).flat_map(|number| number.to_be_bytes()).collect();
        [b"\x89LZO\0\r\n\x1a\n", head.as_slice(), &sum.to_be_bytes(), &numbers, block, &[0; 4]].concat()
    };
    let stored = [lzo1x::adler32(text), crc(text)];
    let [adler, sum] = stored;
    let whole = [b'a'; 9];
    let all = [lzo1x::adler32(&whole), crc(&whole), lzo1x::adler32(packed), crc(packed)];
    let every = ADLER | CRC | PACKED_ADLER | PACKED_CRC;
    for (flags, sums, size, block, text) in [
        (0, &[][..], 8, text, text),
        (ADLER, &[adler], 8, text, text),
        (CRC | HEADER_CRC, &[sum], 8, text, text),
        // A stored block has no second checksum.
        (every, &stored, 8, text, text),
        (every, &all, 9, packed, &whole),
    ] {
        assert_eq!(unpacked(&file(flags, sums, size, block)).unwrap(), text, "{flags:x}");
        for wrong in 0..sums.len() {
            let mut sums = sums.to_vec();
            *sums.get_mut(wrong).unwrap() ^= 1;
            assert!(is_damaged(&file(flags, &sums, size, block)), "{flags:x} {wrong}");
        }
    }
}

#[test]
fn wrapping_a_kernel_without_end_is_refused() {
    assert!(matches!(unpacked(seed!("too-deep").1), Err(Error::TooDeep)));
}

#[test]
fn a_window_that_no_kernel_asks_for_is_refused_before_it_is_made() {
    let (_, packed) = seed!("zstd-22");
    let frame = |descriptor: u8, rest: &[u8]| [packed.get(..4).unwrap(), &[descriptor], rest].concat();
    assert_eq!(zstd::window(&frame(0, &[17 << 3])), Some(zstd::WINDOW_MAX));
    assert_eq!(zstd::window(&frame(0x20, &[7])), Some(7));
    assert_eq!(zstd::window(&frame(0x61, &[9, 1, 1])), Some(513));
    assert_eq!(zstd::window(&frame(0xe3, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])), Some((1 << 32) + 1));
    let error = unpacked(&frame(0, &[(17 << 3) + 1, 0, 0, 0])).unwrap_err().to_string();
    assert!(error.contains("128 MiB"), "{error}");
}

#[test]
fn the_size_that_a_kernel_tells_of_itself_is_found_where_there_is_one() {
    for (name, bytes) in WRAPPED {
        let told = Wrapping::of(bytes).unwrap().told(&mut Cursor::new(bytes), 0, bytes.len() as u64);
        let is_told = name.contains("gzip") || name.starts_with("zboot");
        assert_eq!(told, is_told.then_some(PLAIN.len() as u64), "{name}");
    }
}
