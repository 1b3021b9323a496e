//! Decompressing a kernel of `x86_64`: a bzImage, or an ELF file as a bzImage contains one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::image::bzimage::{self, ANYWHERE, EFI_KEXEC, FIVE_LEVELS_ENABLED, KERNEL_64};
use crate::image::cmdline;
use crate::image::unpack::{self, Unpacked};
use crate::loading::decompress::why::Why;
use crate::machine::root::Root;
use crate::machine::sys::read_at;
use crate::machine::{processor, sys};
use crate::words::little_endian::{long, short, wide};

/// The first bytes of an image, which contain its setup header (Documentation/arch/x86/boot.rst).
const HEAD: usize = 0x290;

/// The virtual address at which the kernel is mapped, the size of that mapping with KASLR
/// (`__START_KERNEL_map`, `KERNEL_IMAGE_SIZE`, `arch/x86/include/asm/page_64_types.h`), and the kernel's
/// alignment (`MIN_KERNEL_ALIGN`).
const MAPPED: u64 = 0xffff_ffff_8000_0000;
const IMAGE_MAX: u64 = 1 << 30;
const ALIGNMENT: u64 = 2 << 20;

/// The sizes of the ELF header, of a program header and of a section header, and values in them (ELF-64 Object
/// File Format, 1.5).
const ELF: usize = 64;
const PROGRAM: usize = 56;
const SECTION: usize = 64;
const LOAD: u32 = 1;
const NO_BITS: u32 = 8;
const X86_64: u16 = 62;
const LITTLE_64: &[u8] = b"\x7fELF\x02\x01";

/// The most program headers that are accepted: a kernel has five.
const PROGRAMS_MAX: usize = 64;

/// The bytes read at a time, and the most that may follow the loaded parts. In Debian's kernels that is some 2
/// MB, all of which is dropped except for the relocations.
const PART: usize = 1 << 18;
const TAIL_MAX: usize = 64 << 20;

/// The laid-out file is written in pieces of this size; a piece that is all zeros is not written.
const PAGE: usize = 4096;

/// Bytes of the file that are relocated at a time.
const WINDOW: u64 = 1 << 20;

/// A decompressed kernel: its file has the layout that the kernel has in memory. The fields are the other facts
/// needed to load it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thawed {
    /// The first bytes of the original image, with the setup header; made up if the original was an ELF file.
    pub head: Vec<u8>,
    /// Bytes of memory that the kernel takes from its beginning on; more than its file has.
    pub takes: u64,
    /// The offset of the first instruction.
    pub entry: u64,
    /// The physical address that the kernel was linked for.
    pub linked: u64,
    /// The same address after relocation; equal to `linked` if the kernel was not moved. The kernel's virtual
    /// address follows from it.
    pub moved: u64,
    /// Whether the physical address is to be random, too, and the kernel is to know that it was moved.
    pub random: bool,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The circumstances in which a kernel is decompressed.
pub struct Asked<'a> {
    /// The running system.
    pub root: &'a Root,
    /// The staged command line.
    pub cmdline: &'a str,
    /// The largest allowed size of the result, in bytes.
    pub most: u64,
}

/// Decompresses a staged kernel into an empty file that is open for reading and writing. After an error the
/// file's content is useless.
pub fn kernel(from: &File, to: &File, asked: &Asked<'_>) -> Result<Thawed, Why> {
    let mut random = [0; 8];
    let mut urandom = asked.root.open("/dev/urandom").map_err(Why::Read)?;
    urandom.read_exact(&mut random).map_err(Why::Read)?;
    thawed(from, to, asked, u64::from_le_bytes(random))
}

/// Does the same with a given random number.
pub(crate) fn thawed(from: &File, to: &File, asked: &Asked<'_>, random: u64) -> Result<Thawed, Why> {
    let mut head = vec![0; HEAD];
    let has = read_at(from, &mut head, 0).map_err(Why::Read)?;
    head.truncate(has);
    let mut file = from;
    if head.starts_with(b"\x7fELF") {
        see_that_it_starts_as_this_one(asked, 0, true)?;
        file.seek(SeekFrom::Start(0)).map_err(Why::Read)?;
        let flat = Flat::lay_out(&mut |part| file.read(part).map_err(Why::Read), to, None, asked.most)?;
        flat.cut(to)?;
        return Ok(flat.as_it_is());
    }
    let image = Image::parse(&head)?;
    see_that_it_starts_as_this_one(asked, image.xflags, false)?;
    file.seek(SeekFrom::Start(image.payload)).map_err(Why::Read)?;
    let packed = |error| match error {
        unpack::Error::Read(error) => Why::Read(error),
        error => unfit(format!("what is packed in it does not come out: {error}")),
    };
    let mut payload = Unpacked::payload(file.take(image.length)).map_err(packed)?;
    let mut read = |part: &mut [u8]| payload.read(part).map_err(packed);
    let mut flat = Flat::lay_out(&mut read, to, Some(image.preferred), asked.most)?;
    let mut is = Thawed {
        takes: flat.takes.next_multiple_of(ALIGNMENT),
        entry: flat.entry,
        linked: flat.linked,
        moved: flat.linked,
        random: false,
        notes: Vec::new(),
        head,
    };
    let Some(relocations) = Relocations::parse(&flat.tail)? else {
        let note = "the kernel was built without KASLR (CONFIG_RANDOMIZE_BASE), thawed or not";
        is.notes.push(note.to_owned());
        flat.cut(to)?;
        return Ok(is);
    };
    // The kernel's own code accepts the word anywhere, too (`cmdline_find_option_bool`).
    if asked.cmdline.split_ascii_whitespace().any(|word| word == "nokaslr") {
        flat.cut(to)?;
        return Ok(is);
    }
    is.moved = somewhere(flat.linked, flat.takes.max(flat.payload), image.alignment, random)?;
    is.random = true;
    flat.tail = Vec::new();
    relocations.apply(to, &mut flat, is.moved - is.linked)?;
    flat.cut(to)?;
    Ok(is)
}

fn unfit(why: impl Into<String>) -> Why {
    Why::Unfit(why.into())
}

/// Refuses a kernel that needs a step that a bzImage takes before it unpacks itself, and that would be skipped
/// for a decompressed kernel: changing the number of page table levels (`configure_5level_paging`,
/// `arch/x86/boot/compressed/pgtable_64.c`), and setting up memory encryption (`parse_mem_encrypt`, misc.c).
fn see_that_it_starts_as_this_one(asked: &Asked<'_>, xflags: u16, is_elf: bool) -> Result<(), Why> {
    let line = asked.cmdline;
    let is_off = line.split_ascii_whitespace().any(|word| word == "no5lvl");
    let has_five = processor::uses_five_levels(asked.root);
    let could_have =
        || asked.root.is_system() && sys::cpuid(7, 0).is_some_and(|[.., ecx, _]| ecx & (1 << 16) != 0);
    if has_five && is_off {
        return Err(unfit(
            "no5lvl is for a kernel that unpacks itself, and this one uses five levels of page tables",
        ));
    }
    if has_five && is_elf {
        return Err(unfit(
            "this kernel uses five levels of page tables, and an ELF file does not say whether it starts with them; \
             stage the bzImage",
        ));
    }
    if !has_five && !is_off && xflags & FIVE_LEVELS_ENABLED != 0 && could_have() {
        return Err(unfit(
            "it would switch five levels of page tables on, which this processor has and this kernel does not use; \
             with no5lvl on its command line it is thawed",
        ));
    }
    if cmdline::value(line, "mem_encrypt") == Some("on") {
        return Err(unfit("mem_encrypt=on is for a kernel that unpacks itself"));
    }
    Ok(())
}

/// The facts in a bzImage's header about the payload.
struct Image {
    /// The offset of the payload in the file.
    payload: u64,
    length: u64,
    /// The preferred physical address, and the alignment of any other.
    preferred: u64,
    alignment: u64,
    xflags: u16,
}

impl Image {
    fn parse(head: &[u8]) -> Result<Image, Why> {
        if !bzimage::is_one(head)
            || head.len() < HEAD
            || short(head, bzimage::VERSION) < bzimage::PAYLOAD_SINCE
        {
            return Err(unfit("it is no bzImage of protocol 2.08 or later, and no ELF file"));
        }
        let (offset, length) =
            (u64::from(long(head, bzimage::PAYLOAD)), u64::from(long(head, bzimage::PAYLOAD_LENGTH)));
        let alignment = u64::from(long(head, bzimage::ALIGNMENT));
        let (preferred, xflags) = (wide(head, bzimage::PREFERRED), short(head, bzimage::XFLAGS));
        if xflags & KERNEL_64 == 0 {
            return Err(unfit("it is a 32-bit kernel"));
        }
        let is_aligned = alignment.is_power_of_two() && alignment >= ALIGNMENT && preferred % alignment == 0;
        if length == 0 || !is_aligned || preferred >= IMAGE_MAX {
            return Err(unfit("its header says nothing that could be of what is packed in it"));
        }
        Ok(Image { payload: bzimage::real_mode(head) + offset, length, preferred, alignment, xflags })
    }
}

/// Returns a random address to relocate the kernel to: the address it was linked for, plus a multiple of the
/// alignment, such that all the memory that it takes when it unpacks itself still lies in the mapping
/// (`find_random_virt_addr`, arch/x86/boot/compressed/kaslr.c).
fn somewhere(linked: u64, size: u64, alignment: u64, random: u64) -> Result<u64, Why> {
    let room = size
        .checked_next_multiple_of(alignment)
        .and_then(|size| IMAGE_MAX.checked_sub(linked)?.checked_sub(size));
    let room = room.ok_or_else(|| {
        unfit("it is larger than what is mapped of a kernel, so it cannot be moved (KASLR)")
    })?;
    let places = room / alignment + 1;
    Ok(linked + random % places * alignment)
}

/// A kernel laid out as in memory.
struct Flat {
    /// The length of the laid-out kernel.
    size: u64,
    /// The end of the last byte that is not zero.
    filled: u64,
    /// Bytes of memory that it takes.
    takes: u64,
    entry: u64,
    linked: u64,
    /// The length of the ELF file together with the bytes behind it.
    payload: u64,
    /// The bytes behind the ELF file.
    tail: Vec<u8>,
}

/// A loaded part of an ELF file: its offset and length in the file, and its offset in the layout.
struct Load {
    offset: u64,
    size: u64,
    to: u64,
}

impl Flat {
    /// Lays out an ELF file as it lies in memory, from the address that it was linked for on. If that is not
    /// known, as with a bare ELF file, the layout begins at the lowest address.
    fn lay_out(
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Why>,
        to: &File,
        linked: Option<u64>,
        most: u64,
    ) -> Result<Flat, Why> {
        let mut part = vec![0; PART];
        let mut has = fill(read, &mut part)?;
        let elf = Elf::parse(part.get(..has).unwrap_or_default(), linked)?;
        if elf.size > most {
            return Err(Why::NoRoom);
        }
        to.set_len(elf.size).map_err(Why::Write)?;
        let (mut payload, mut filled, mut tail) = (0, 0, Vec::new());
        while has > 0 {
            let bytes = part.get(..has).unwrap_or_default();
            for load in &elf.loads {
                let (begin, end) =
                    (load.offset.max(payload), (load.offset + load.size).min(payload + has as u64));
                let Some(length) = end.checked_sub(begin).filter(|length| *length > 0) else { continue };
                let at = load.to + (begin - load.offset);
                // Zeros are not written, so that they take no memory.
                let pages = piece(bytes, begin - payload, length).chunks(PAGE);
                for (page, at) in pages.zip((at..).step_by(PAGE)) {
                    let Some(last) = page.iter().rposition(|byte| *byte != 0) else { continue };
                    to.write_all_at(page, at).map_err(Why::Write)?;
                    filled = filled.max(at + last as u64 + 1);
                }
            }
            if payload + has as u64 > elf.loaded {
                let from = elf.loaded.saturating_sub(payload);
                tail.extend_from_slice(piece(bytes, from, has as u64 - from));
                if tail.len() > TAIL_MAX {
                    match linked {
                        Some(_) => {
                            return Err(unfit(
                                "more is behind what is loaded of it than any kernel has there",
                            ));
                        }
                        // Nothing needs this: symbols and debugging information.
                        None => tail.clear(),
                    }
                }
            }
            payload += has as u64;
            has = fill(read, &mut part)?;
        }
        if payload < elf.loaded {
            return Err(unfit("it is cut off in the midst of what is loaded of it"));
        }
        if linked.is_some() {
            let end = elf.end(&tail)?;
            let behind = usize::try_from(end.saturating_sub(elf.loaded)).unwrap_or(usize::MAX);
            tail.drain(..behind.min(tail.len()));
        }
        let Elf { size, takes, entry, linked, .. } = elf;
        Ok(Flat { size, filled, takes, entry, linked, payload, tail })
    }

    /// Drops the zeros at the end of the file: whichever call loads it fills them in.
    fn cut(&self, to: &File) -> Result<(), Why> {
        to.set_len(self.filled.max(self.entry + 1)).map_err(Why::Write)
    }

    /// Describes a kernel that was a bare ELF file as if it came from a bzImage.
    fn as_it_is(&self) -> Thawed {
        let takes = self.takes.next_multiple_of(ALIGNMENT);
        let mut head = vec![0; HEAD];
        let fields: [(usize, &[u8]); 10] = [
            (bzimage::BOOT_FLAG, &0xaa55_u16.to_le_bytes()),
            (bzimage::JUMP, &[0xeb, 0x66]),
            (bzimage::MAGIC, b"HdrS"),
            (bzimage::VERSION, &0x020f_u16.to_le_bytes()),
            (bzimage::FLAGS, &[1]),
            (bzimage::ALIGNMENT, &u32::try_from(ALIGNMENT).unwrap_or_default().to_le_bytes()),
            (bzimage::XFLAGS, &(KERNEL_64 | ANYWHERE | EFI_KEXEC).to_le_bytes()),
            (bzimage::CMDLINE_MAX, &2047_u32.to_le_bytes()),
            (bzimage::PREFERRED, &self.linked.to_le_bytes()),
            (bzimage::INIT_SIZE, &u32::try_from(takes).unwrap_or(u32::MAX).to_le_bytes()),
        ];
        for (at, bytes) in fields {
            if let Some(place) = head.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        let note = "an ELF file does not say how it could be moved: the kernel starts where it was linked for, without \
                    KASLR; stage its bzImage to keep that";
        let (entry, linked) = (self.entry, self.linked);
        Thawed { head, takes, entry, linked, moved: linked, random: false, notes: vec![note.to_owned()] }
    }
}

/// Reads until `part` is full or nothing is left.
fn fill(read: &mut dyn FnMut(&mut [u8]) -> Result<usize, Why>, part: &mut [u8]) -> Result<usize, Why> {
    let mut has = 0;
    while let Some(left) = part.get_mut(has..).filter(|left| !left.is_empty()) {
        match read(left)? {
            0 => break,
            read => has += read,
        }
    }
    Ok(has)
}

fn piece(bytes: &[u8], at: u64, length: u64) -> &[u8] {
    let range = usize::try_from(at)
        .and_then(|at| usize::try_from(length).map(|length| at..at.saturating_add(length)));
    range.ok().and_then(|range| bytes.get(range)).unwrap_or_default()
}

/// The facts in an ELF file's headers.
struct Elf {
    loads: Vec<Load>,
    /// The end of the last loaded byte in the file.
    loaded: u64,
    size: u64,
    takes: u64,
    entry: u64,
    linked: u64,
    /// The offset of the section headers, and their number.
    sections: u64,
    sections_count: u64,
}

impl Elf {
    fn parse(bytes: &[u8], linked: Option<u64>) -> Result<Elf, Why> {
        let is_one = bytes.starts_with(LITTLE_64) && short(bytes, 18) == X86_64;
        let count = usize::from(short(bytes, 56));
        let programs = usize::try_from(wide(bytes, 32)).ok().filter(|at| *at >= ELF);
        let is_whole = usize::from(short(bytes, 54)) == PROGRAM && (1..=PROGRAMS_MAX).contains(&count);
        let programs = programs.and_then(|at| bytes.get(at..)?.get(..count * PROGRAM));
        let (true, true, Some(programs)) = (is_one, is_whole, programs) else {
            return Err(unfit("what is packed in it is no ELF file of x86_64"));
        };
        let odd = || unfit("it says something of itself that no kernel says");
        let programs = programs.chunks_exact(PROGRAM).filter(|program| long(program, 0) == LOAD);
        let linked = match linked {
            Some(linked) => linked,
            None => programs.clone().map(|program| wide(program, 24)).min().ok_or_else(odd)?,
        };
        let mut elf = Elf {
            loads: Vec::new(),
            loaded: 0,
            size: 0,
            takes: 0,
            entry: wide(bytes, 24).checked_sub(linked).ok_or_else(odd)?,
            linked,
            sections: wide(bytes, 40),
            sections_count: u64::from(short(bytes, 60)),
        };
        for program in programs {
            let (offset, to, size, takes) =
                (wide(program, 8), wide(program, 24), wide(program, 32), wide(program, 40));
            let to = to.checked_sub(linked).ok_or_else(odd)?;
            if wide(program, 48) % ALIGNMENT != 0 {
                return Err(unfit("its parts are not aligned to 2 MiB"));
            }
            let end = |from: u64, length: u64| {
                from.checked_add(length).filter(|end| *end <= IMAGE_MAX).ok_or_else(odd)
            };
            elf.takes = elf.takes.max(end(to, takes.max(size))?);
            elf.size = elf.size.max(end(to, size)?);
            elf.loaded = elf.loaded.max(end(offset, size)?);
            elf.loads.push(Load { offset, size, to });
        }
        elf.loads.sort_by_key(|load| load.to);
        let is_apart = elf.loads.windows(2).all(|pair| match pair {
            [one, other] => one.to + one.size <= other.to,
            _ => true,
        });
        if !is_apart || elf.size == 0 || elf.entry >= elf.size {
            return Err(odd());
        }
        Ok(elf)
    }

    /// Returns where the file ends according to its headers, given the bytes behind the loaded parts.
    fn end(&self, tail: &[u8]) -> Result<u64, Why> {
        if self.sections_count == 0 {
            return Ok(self.loaded);
        }
        let odd = || unfit("its sections are not where it says");
        let headers = self.sections.checked_sub(self.loaded).ok_or_else(odd)?;
        let headers = piece(tail, headers, self.sections_count * SECTION as u64);
        if headers.is_empty() {
            return Err(odd());
        }
        let mut end = self.loaded.max(self.sections + headers.len() as u64);
        for section in headers.chunks_exact(SECTION).filter(|section| long(section, 4) != NO_BITS) {
            end = end.max(wide(section, 24).checked_add(wide(section, 32)).ok_or_else(odd)?);
        }
        Ok(end)
    }
}

/// The values to change in a kernel that is moved: 32-bit addresses, negated 32-bit addresses, and 64-bit
/// addresses.
struct Relocations {
    narrow: Vec<u32>,
    inverse: Vec<u32>,
    wide: Vec<u32>,
}

impl Relocations {
    /// Reads the bytes behind the ELF file (`emit_relocs`, arch/x86/tools/relocs.c): lists of addresses, each
    /// preceded by a zero, for the 64-bit addresses, the negated ones (before Linux 6.15 dropped them), and the
    /// 32-bit ones. Returns `None` if there are no bytes.
    fn parse(tail: &[u8]) -> Result<Option<Relocations>, Why> {
        if tail.is_empty() {
            return Ok(None);
        }
        let odd = || unfit("what it says of how to move it (KASLR) is not understood");
        let words: Vec<_> = tail.chunks_exact(4).map(|word| long(word, 0)).collect();
        let lists: Vec<_> = words.split(|word| *word == 0).skip(1).collect();
        let is_begun = words.first() == Some(&0) && tail.len() % 4 == 0;
        let sorted = |list: &[u32]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        match lists.as_slice() {
            [wide, narrow] if is_begun => {
                Ok(Some(Relocations { narrow: sorted(narrow), inverse: Vec::new(), wide: sorted(wide) }))
            }
            [wide, inverse, narrow] if is_begun => {
                Ok(Some(Relocations { narrow: sorted(narrow), inverse: sorted(inverse), wide: sorted(wide) }))
            }
            _ => Err(odd()),
        }
    }

    /// Changes a laid-out kernel as needed when it lies `by` bytes further on.
    fn apply(&self, to: &File, flat: &mut Flat, by: u64) -> Result<(), Why> {
        let low = u32::try_from(by).map_err(|_| unfit("it would be moved too far"))?;
        let narrow = |value: &mut [u8], add: u32| {
            if let Some(value) = value.first_chunk_mut() {
                *value = u32::from_le_bytes(*value).wrapping_add(add).to_le_bytes();
            }
        };
        each(to, flat, &self.narrow, 4, &|value| narrow(value, low))?;
        each(to, flat, &self.inverse, 4, &|value| narrow(value, low.wrapping_neg()))?;
        each(to, flat, &self.wide, 8, &|value| {
            if let Some(value) = value.first_chunk_mut() {
                *value = u64::from_le_bytes(*value).wrapping_add(by).to_le_bytes();
            }
        })
    }
}

/// Changes the values of that width at the given addresses, which are sorted, one piece of the file at a time.
fn each(
    to: &File,
    flat: &mut Flat,
    places: &[u32],
    width: u64,
    change: &dyn Fn(&mut [u8]),
) -> Result<(), Why> {
    let Flat { size, linked, .. } = *flat;
    // An entry is the lower half of a virtual address whose upper half is all ones.
    let offset = |place: u32| {
        let address = u64::from(place) | 0xffff_ffff_0000_0000;
        let offset = address.checked_sub(MAPPED + linked);
        let offset = offset.filter(|offset| offset.checked_add(width).is_some_and(|end| end <= size));
        offset.ok_or_else(|| unfit("what it says of how to move it (KASLR) leads out of it"))
    };
    let mut window = Vec::new();
    let mut places = places.iter().copied().peekable();
    while let Some(first) = places.peek() {
        let begin = offset(*first)?;
        let length = (WINDOW + width).min(size - begin);
        window.resize(usize::try_from(length).unwrap_or_default(), 0);
        to.read_exact_at(&mut window, begin).map_err(Why::Write)?;
        let mut end = 0;
        while let Some(place) = places.peek() {
            let at = offset(*place)? - begin;
            let Some(value) = usize::try_from(at).ok().and_then(|at| window.get_mut(at..)) else { break };
            if (value.len() as u64) < width {
                break;
            }
            let value = value.get_mut(..usize::try_from(width).unwrap_or_default()).unwrap_or_default();
            change(value);
            end = at + width;
            places.next();
        }
        to.write_all_at(piece(&window, 0, end), begin).map_err(Why::Write)?;
        flat.filled = flat.filled.max(begin + end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::io::Write;

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

    fn thawed_with(
        bytes: &[u8],
        cmdline: &str,
        cpus: &str,
        most: u64,
        random: u64,
    ) -> Result<(Thawed, Vec<u8>), String> {
        let scratch = Scratch::new();
        scratch.put("/proc/cpuinfo", &format!("flags\t\t: {cpus}\n"));
        let (from, to) = (scratch.root.path("/run/from"), scratch.root.path("/run/to"));
        std::fs::write(&from, bytes).unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(&to).unwrap();
        let asked = Asked { root: &scratch.root, cmdline, most };
        let is = thawed(&File::open(from).unwrap(), &file, &asked, random).map_err(|why| why.to_string())?;
        Ok((is, std::fs::read(to).unwrap()))
    }

    fn thawed_by(bytes: &[u8], cmdline: &str, random: u64) -> Result<(Thawed, Vec<u8>), String> {
        thawed_with(bytes, cmdline, "fpu", u64::MAX, random)
    }

    /// Makes an ELF file with code, and with data 2 MiB further on that end in zeros.
    fn plain() -> Vec<u8> {
        let mut data = vec![0; 0x5000];
        data[..4].copy_from_slice(b"data");
        elf(
            &[(0x1000, b"codecodecodecode", LINKED, 16), (0x3000, &data, LINKED + (2 << 20), 0x9000)],
            LINKED + 4,
        )
    }

    #[test]
    fn a_kernel_is_laid_out_as_it_lies_in_memory_without_the_zeros_at_its_end() {
        let lists = words(&[&[8], &[4], &[0]]);
        let (is, out) = thawed_by(&image(&[plain(), lists].concat()), "quiet nokaslr", 9).unwrap();
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
        let raw = thawed_by(&payload(&[]), "", 1).unwrap().1;
        let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        // Changed are the 64-bit address, the negated one if there are three lists, and two 32-bit ones, of
        // which the second lies in the zeros.
        for (lists, negative) in
            [(words(&[&[8], &[4], &[0x20_1000, 0]]), true), (words(&[&[8], &[0x20_1000, 0]]), false)]
        {
            let (is, out) = thawed_by(&payload(&lists), "quiet", 5).unwrap();
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
            places
                .iter()
                .all(|place| place % (2 << 20) == 0 && (LINKED..=LINKED + (24 << 20)).contains(place))
        );
        assert!(somewhere(LINKED, IMAGE_MAX - LINKED + 1, 2 << 20, 0).is_err());
        assert_eq!(somewhere(LINKED, IMAGE_MAX - LINKED, 2 << 20, 7).unwrap(), LINKED);
    }

    #[test]
    fn a_kernel_that_cannot_be_moved_as_it_says_is_not_thawed() {
        let with = |lists: &[u8]| thawed_by(&image(&[&plain()[..], lists].concat()), "", 5);
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
            let why = thawed_with(&bytes, cmdline, cpus, u64::MAX, 0).err();
            assert_eq!(why.is_some(), words.is_some(), "{cpus} {cmdline}");
            assert!(why.is_none_or(|why| why.contains(words.unwrap())));
        }
        assert!(thawed_with(&plain(), "", "la57", u64::MAX, 0).unwrap_err().contains("stage the bzImage"));
    }

    #[test]
    fn an_elf_file_is_laid_out_where_it_was_linked_for_and_says_that_it_has_no_kaslr() {
        let (is, out) = thawed_by(&plain(), "", 5).unwrap();
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
            thawed_with(&bytes, "", "", (2 << 20) + 0x4fff, 0)
                .unwrap_err()
                .contains("larger than there is room for")
        );
        assert!(thawed_with(&bytes, "", "", (2 << 20) + 0x5000, 0).is_ok());
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
            let why = thawed_by(&bytes, "", 0).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        }
    }
}
