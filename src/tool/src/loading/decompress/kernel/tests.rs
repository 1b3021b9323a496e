#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs::File;
use std::io::Write;

use super::elf::{ALIGNMENT, ELF, IMAGE_MAX, LITTLE_64, LOAD, NO_BITS, PROGRAM, SECTION, X86_64};
use super::relocations::MAPPED;
use super::{Asked, Decompressed, decompressed, somewhere};
use crate::image::bzimage;
use crate::machine::scratch::Scratch;

const LINKED: u64 = 16 << 20;

fn put(bytes: &mut Vec<u8>, at: usize, value: &[u8]) {
    if bytes.len() < at + value.len() {
        bytes.resize(at + value.len(), 0);
    }
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A loaded part: offset in the file, bytes, address in memory, and size in memory.
type Part<'a> = (u64, &'a [u8], u64, u64);

/// Makes an ELF file of these parts, with sections and an entry address.
fn elf(parts: &[Part<'_>], entry: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, 0, LITTLE_64);
    put(&mut bytes, 18, &X86_64.to_le_bytes());
    put(&mut bytes, 24, &entry.to_le_bytes());
    put(&mut bytes, 32, &(ELF as u64).to_le_bytes());
    put(&mut bytes, 54, &56_u16.to_le_bytes());
    put(&mut bytes, 56, &u16::try_from(parts.len()).unwrap().to_le_bytes());
    for (number, (offset, data, to, takes)) in parts.iter().enumerate() {
        let at = ELF + number * PROGRAM;
        put(&mut bytes, at, &LOAD.to_le_bytes());
        for (field, value) in
            [(8, *offset), (24, *to), (32, data.len() as u64), (40, *takes), (48, ALIGNMENT)]
        {
            put(&mut bytes, at + field, &value.to_le_bytes());
        }
        put(&mut bytes, usize::try_from(*offset).unwrap(), data);
    }
    // Behind the loaded parts: a string table, and the headers of two sections, the second without bytes.
    let names = bytes.len() as u64;
    bytes.extend(b"\0.text\0");
    let headers = bytes.len();
    put(&mut bytes, 40, &(headers as u64).to_le_bytes());
    put(&mut bytes, 60, &2_u16.to_le_bytes());
    let mut sections = [0; 2 * SECTION];
    sections[24..32].copy_from_slice(&names.to_le_bytes());
    sections[32..40].copy_from_slice(&8_u64.to_le_bytes());
    sections[SECTION + 4..SECTION + 8].copy_from_slice(&NO_BITS.to_le_bytes());
    sections[SECTION + 32..SECTION + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes.extend(sections);
    bytes
}

fn words(lists: &[&[u64]]) -> Vec<u8> {
    let list = |list: &&[u64]| {
        let places =
            list.iter().map(|offset| u32::try_from((MAPPED + LINKED + offset) & 0xffff_ffff).unwrap());
        std::iter::once(0).chain(places.collect::<Vec<_>>())
    };
    lists.iter().flat_map(list).flat_map(u32::to_le_bytes).collect()
}

/// Makes a bzImage with this payload.
fn image(payload: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(payload).unwrap();
    let packed = packed.finish().unwrap();
    let mut bytes = vec![0; 1024];
    for (at, value) in [
        (bzimage::SETUP_SECTORS, &[1][..]),
        (bzimage::BOOT_FLAG, &[0x55, 0xaa]),
        (bzimage::MAGIC, b"HdrS"),
        (bzimage::VERSION, &[0x0f, 0x02]),
        (bzimage::ALIGNMENT, &(2_u32 << 20).to_le_bytes()),
        (bzimage::XFLAGS, &0x3f_u16.to_le_bytes()),
        (bzimage::PAYLOAD, &16_u32.to_le_bytes()),
        (bzimage::PAYLOAD_LENGTH, &u32::try_from(packed.len()).unwrap().to_le_bytes()),
        (bzimage::PREFERRED, &LINKED.to_le_bytes()),
    ] {
        put(&mut bytes, at, value);
    }
    put(&mut bytes, 1024 + 16, &packed);
    bytes.extend(b"the rest");
    bytes
}

fn decompressed_with(
    bytes: &[u8],
    cmdline: &str,
    cpus: &str,
    most: u64,
    random: u64,
) -> Result<(Decompressed, Vec<u8>), String> {
    let scratch = Scratch::new();
    scratch.put("/proc/cpuinfo", &format!("flags\t\t: {cpus}\n"));
    let (from, to) = (scratch.root.path("/run/from"), scratch.root.path("/run/to"));
    std::fs::write(&from, bytes).unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(&to).unwrap();
    let asked = Asked { root: &scratch.root, cmdline, most };
    let is =
        decompressed(&File::open(from).unwrap(), &file, &asked, random).map_err(|why| why.to_string())?;
    Ok((is, std::fs::read(to).unwrap()))
}

fn decompressed_by(bytes: &[u8], cmdline: &str, random: u64) -> Result<(Decompressed, Vec<u8>), String> {
    decompressed_with(bytes, cmdline, "fpu", u64::MAX, random)
}

/// Makes an ELF file with code, and with data 2 MiB further on that end in zeros.
fn plain() -> Vec<u8> {
    let mut data = vec![0; 0x5000];
    data[..4].copy_from_slice(b"data");
    elf(&[(0x1000, b"codecodecodecode", LINKED, 16), (0x3000, &data, LINKED + (2 << 20), 0x9000)], LINKED + 4)
}

#[test]
fn a_kernel_is_laid_out_as_it_lies_in_memory_without_the_zeros_at_its_end() {
    let lists = words(&[&[8], &[4], &[0]]);
    let (is, out) = decompressed_by(&image(&[plain(), lists].concat()), "quiet nokaslr", 9).unwrap();
    assert_eq!((is.entry, is.linked, is.moved, is.random), (4, LINKED, LINKED, false));
    // The code, and 2 MiB further on the data with 0x9000 bytes, rounded up to 2 MiB.
    assert_eq!(is.takes, 4 << 20);
    assert_eq!(out.len(), (2 << 20) + 4);
    assert!(out.starts_with(b"codecodecodecode\0") && out.ends_with(b"\0data"));
    assert_eq!(&is.head[bzimage::MAGIC..bzimage::MAGIC + 4], b"HdrS");
}

#[test]
fn a_kernel_that_is_moved_differs_where_it_says_and_nowhere_else() {
    let payload = |lists: &[u8]| image(&[&plain()[..], lists].concat());
    let raw = decompressed_by(&payload(&[]), "", 1).unwrap().1;
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    // Changed are the 64-bit address, the negated one if there are three lists, and two 32-bit ones, of
    // which the second lies in the zeros.
    for (lists, negative) in
        [(words(&[&[8], &[4], &[0x20_1000, 0]]), true), (words(&[&[8], &[0x20_1000, 0]]), false)]
    {
        let (is, out) = decompressed_by(&payload(&lists), "quiet", 5).unwrap();
        let by = u32::try_from(is.moved - is.linked).unwrap();
        assert_eq!((by, is.random), (5 * (2 << 20), true));
        let mut expected = raw.clone();
        put(&mut expected, 0x20_1000, &by.to_le_bytes());
        put(&mut expected, 0, &(number(&raw, 0).wrapping_add(by)).to_le_bytes());
        put(&mut expected, 8, &(number(&raw, 8).wrapping_add(by)).to_le_bytes());
        if negative {
            put(&mut expected, 4, &(number(&raw, 4).wrapping_sub(by)).to_le_bytes());
        }
        assert_eq!(out, expected);
    }
}

#[test]
fn places_are_aligned_within_what_is_mapped_and_each_can_be_the_one() {
    let size = (1000 << 20) - LINKED;
    let places: std::collections::BTreeSet<_> =
        (0..100).map(|random| somewhere(LINKED, size, 2 << 20, random).unwrap()).collect();
    // The mapping has 1024 MiB, and the kernel at first ends at 1000.
    assert_eq!(places.len(), 13);
    assert!(
        places.iter().all(|place| place % (2 << 20) == 0 && (LINKED..=LINKED + (24 << 20)).contains(place))
    );
    assert!(somewhere(LINKED, IMAGE_MAX - LINKED + 1, 2 << 20, 0).is_err());
    assert_eq!(somewhere(LINKED, IMAGE_MAX - LINKED, 2 << 20, 7).unwrap(), LINKED);
}

#[test]
fn a_kernel_that_cannot_be_moved_as_it_says_is_not_decompressed() {
    let with = |lists: &[u8]| decompressed_by(&image(&[&plain()[..], lists].concat()), "", 5);
    for (lists, words) in [
        (&words(&[&[8]])[..], "not understood"),
        (&words(&[&[8], &[4], &[0], &[0]]), "not understood"),
        (&words(&[&[8], &[0]])[4..], "not understood"),
        (&words(&[&[8], &[0]])[..9], "not understood"),
        (&words(&[&[0x20_4ffd], &[0]]), "leads out of it"),
        (&words(&[&[8], &[0x40_0000]]), "leads out of it"),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], "leads out of it"),
    ] {
        let why = with(lists).unwrap_err();
        assert!(why.contains(words), "{lists:?}: {why}");
    }
    let (is, _) = with(&[]).unwrap();
    assert!(!is.random && is.notes[0].contains("without KASLR"), "{:?}", is.notes);
}

#[test]
fn what_a_kernel_would_do_before_it_unpacks_itself_is_not_lost() {
    let bytes = image(&[plain(), words(&[&[8], &[0]])].concat());
    for (cpus, cmdline, words) in [
        ("fpu la57", "quiet no5lvl", Some("no5lvl")),
        ("fpu la57", "quiet", None),
        ("fpu", "no5lvl", None),
        ("fpu", "mem_encrypt=on", Some("mem_encrypt")),
        ("fpu", "mem_encrypt=off", None),
    ] {
        let why = decompressed_with(&bytes, cmdline, cpus, u64::MAX, 0).err();
        assert_eq!(why.is_some(), words.is_some(), "{cpus} {cmdline}");
        assert!(why.is_none_or(|why| why.contains(words.unwrap())));
    }
    assert!(decompressed_with(&plain(), "", "la57", u64::MAX, 0).unwrap_err().contains("stage the bzImage"));
}

#[test]
fn an_elf_file_is_laid_out_where_it_was_linked_for_and_says_that_it_has_no_kaslr() {
    let (is, out) = decompressed_by(&plain(), "", 5).unwrap();
    assert_eq!((is.entry, is.linked, is.moved, is.random, is.takes), (4, LINKED, LINKED, false, 4 << 20));
    assert!(is.notes[0].contains("without KASLR"));
    assert!(out.starts_with(b"codecodecodecode\0") && out.ends_with(b"\0data"));
    // The made-up head has the fields of a bzImage.
    assert_eq!((&is.head[bzimage::MAGIC..bzimage::MAGIC + 4], is.head[0x234]), (&b"HdrS"[..], 0));
}

#[test]
fn no_more_is_laid_out_than_there_is_room_for() {
    let bytes = image(&plain());
    assert!(
        decompressed_with(&bytes, "", "", (2 << 20) + 0x4fff, 0)
            .unwrap_err()
            .contains("larger than there is room for")
    );
    assert!(decompressed_with(&bytes, "", "", (2 << 20) + 0x5000, 0).is_ok());
}

#[test]
fn another_file_is_told_from_a_kernel() {
    let code = &b"codecodecodecode"[..];
    let mut cut = image(&plain());
    cut.truncate(1100);
    let mut not_aligned = plain();
    put(&mut not_aligned, ELF + 48, &4096_u64.to_le_bytes());
    for (bytes, words) in [
        (b"".to_vec(), "no bzImage"),
        (vec![0; 1024], "no bzImage"),
        (cut, "does not come out"),
        (image(b"\x7fELF"), "no ELF file of x86_64"),
        (image(&elf(&[], LINKED)), "no ELF file of x86_64"),
        (image(&plain()[..0x5000]), "cut off"),
        (image(&plain()[..plain().len() - 1]), "sections"),
        (image(&not_aligned), "aligned"),
        (image(&elf(&[(0x1000, code, LINKED - 4096, 16)], LINKED)), "no kernel says"),
        (
            image(&elf(&[(0x1000, code, LINKED, 16), (0x1000, code, LINKED + 15, 16)], LINKED)),
            "no kernel says",
        ),
        (image(&elf(&[(0x1000, code, LINKED, IMAGE_MAX + 1)], LINKED)), "no kernel says"),
        (image(&elf(&[(0x1000, code, u64::MAX - 4, 16)], LINKED)), "no kernel says"),
        (image(&elf(&[(0x1000, code, LINKED, 16)], LINKED + 16)), "no kernel says"),
    ] {
        let why = decompressed_by(&bytes, "", 0).unwrap_err();
        assert!(why.contains(words), "{words}: {why}");
    }
}
