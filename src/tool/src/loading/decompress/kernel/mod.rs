//! Decompressing a kernel of `x86_64`: a bzImage, or an ELF file as a bzImage contains one.

mod elf;
mod layout;
mod relocations;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use self::elf::{ALIGNMENT, IMAGE_MAX};
use self::layout::Layout;
use self::relocations::Relocations;
use crate::image::bzimage::{self, ANYWHERE, EFI_KEXEC, FIVE_LEVELS_ENABLED, KERNEL_64};
use crate::image::cmdline;
use crate::image::unpack::{self, Unpacked};
use crate::loading::decompress::failure::Failure;
use crate::machine::root::Root;
use crate::machine::sys::read_at;
use crate::machine::{processor, sys};
use crate::words::little_endian::{long, short, wide};

/// The first bytes of an image, which contain its setup header (Documentation/arch/x86/boot.rst).
const HEAD: usize = 0x290;

/// A decompressed kernel: its file has the layout that the kernel has in memory. The fields are the other facts
/// needed to load it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decompressed {
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
pub fn kernel(from: &File, to: &File, asked: &Asked<'_>) -> Result<Decompressed, Failure> {
    let mut random = [0; 8];
    let mut urandom = asked.root.open("/dev/urandom").map_err(Failure::Read)?;
    urandom.read_exact(&mut random).map_err(Failure::Read)?;
    decompressed(from, to, asked, u64::from_le_bytes(random))
}

/// Does the same with a given random number.
fn decompressed(from: &File, to: &File, asked: &Asked<'_>, random: u64) -> Result<Decompressed, Failure> {
    let mut head = vec![0; HEAD];
    let has = read_at(from, &mut head, 0).map_err(Failure::Read)?;
    head.truncate(has);
    let mut file = from;
    if head.starts_with(b"\x7fELF") {
        see_that_it_starts_as_this_one(asked, 0, true)?;
        file.seek(SeekFrom::Start(0)).map_err(Failure::Read)?;
        let layout = Layout::write(&mut |part| file.read(part).map_err(Failure::Read), to, None, asked.most)?;
        layout.cut(to)?;
        return Ok(of_elf(&layout));
    }
    let image = Image::parse(&head)?;
    see_that_it_starts_as_this_one(asked, image.xflags, false)?;
    file.seek(SeekFrom::Start(image.payload)).map_err(Failure::Read)?;
    let packed = |error| match error {
        unpack::Error::Read(error) => Failure::Read(error),
        error => Failure::unfit(format!("what is packed in it does not come out: {error}")),
    };
    let mut payload = Unpacked::payload(file.take(image.length)).map_err(packed)?;
    let mut read = |part: &mut [u8]| payload.read(part).map_err(packed);
    let mut layout = Layout::write(&mut read, to, Some(image.preferred), asked.most)?;
    let mut is = Decompressed {
        takes: layout.takes.next_multiple_of(ALIGNMENT),
        entry: layout.entry,
        linked: layout.linked,
        moved: layout.linked,
        random: false,
        notes: Vec::new(),
        head,
    };
    let Some(relocations) = Relocations::parse(&layout.tail)? else {
        let note = "the kernel was built without KASLR (CONFIG_RANDOMIZE_BASE), thawed or not";
        is.notes.push(note.to_owned());
        layout.cut(to)?;
        return Ok(is);
    };
    // The kernel's own code accepts the word anywhere, too (`cmdline_find_option_bool`).
    if asked.cmdline.split_ascii_whitespace().any(|word| word == "nokaslr") {
        layout.cut(to)?;
        return Ok(is);
    }
    is.moved = somewhere(layout.linked, layout.takes.max(layout.payload), image.alignment, random)?;
    is.random = true;
    layout.tail = Vec::new();
    relocations.apply(to, &mut layout, is.moved - is.linked)?;
    layout.cut(to)?;
    Ok(is)
}

/// Refuses a kernel that needs a step that a bzImage takes before it unpacks itself, and that would be skipped
/// for a decompressed kernel: changing the number of page table levels (`configure_5level_paging`,
/// `arch/x86/boot/compressed/pgtable_64.c`), and setting up memory encryption (`parse_mem_encrypt`, misc.c).
fn see_that_it_starts_as_this_one(asked: &Asked<'_>, xflags: u16, is_elf: bool) -> Result<(), Failure> {
    let line = asked.cmdline;
    let is_off = line.split_ascii_whitespace().any(|word| word == "no5lvl");
    let has_five = processor::uses_five_levels(asked.root);
    let could_have =
        || asked.root.is_system() && sys::cpuid(7, 0).is_some_and(|[.., ecx, _]| ecx & (1 << 16) != 0);
    if has_five && is_off {
        return Err(Failure::unfit(
            "no5lvl is for a kernel that unpacks itself, and this one uses five levels of page tables",
        ));
    }
    if has_five && is_elf {
        return Err(Failure::unfit(
            "this kernel uses five levels of page tables, and an ELF file does not say whether it starts with them; \
             stage the bzImage",
        ));
    }
    if !has_five && !is_off && xflags & FIVE_LEVELS_ENABLED != 0 && could_have() {
        return Err(Failure::unfit(
            "it would switch five levels of page tables on, which this processor has and this kernel does not use; \
             with no5lvl on its command line it is thawed",
        ));
    }
    if cmdline::value(line, "mem_encrypt") == Some("on") {
        return Err(Failure::unfit("mem_encrypt=on is for a kernel that unpacks itself"));
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
    fn parse(head: &[u8]) -> Result<Image, Failure> {
        if !bzimage::is_one(head)
            || head.len() < HEAD
            || short(head, bzimage::VERSION) < bzimage::PAYLOAD_SINCE
        {
            return Err(Failure::unfit("it is no bzImage of protocol 2.08 or later, and no ELF file"));
        }
        let (offset, length) =
            (u64::from(long(head, bzimage::PAYLOAD)), u64::from(long(head, bzimage::PAYLOAD_LENGTH)));
        let alignment = u64::from(long(head, bzimage::ALIGNMENT));
        let (preferred, xflags) = (wide(head, bzimage::PREFERRED), short(head, bzimage::XFLAGS));
        if xflags & KERNEL_64 == 0 {
            return Err(Failure::unfit("it is a 32-bit kernel"));
        }
        let is_aligned = alignment.is_power_of_two() && alignment >= ALIGNMENT && preferred % alignment == 0;
        if length == 0 || !is_aligned || preferred >= IMAGE_MAX {
            return Err(Failure::unfit("its header says nothing that could be of what is packed in it"));
        }
        Ok(Image { payload: bzimage::real_mode(head) + offset, length, preferred, alignment, xflags })
    }
}

/// Returns a random address to relocate the kernel to: the address it was linked for, plus a multiple of the
/// alignment, such that all the memory that it takes when it unpacks itself still lies in the mapping
/// (`find_random_virt_addr`, arch/x86/boot/compressed/kaslr.c).
fn somewhere(linked: u64, size: u64, alignment: u64, random: u64) -> Result<u64, Failure> {
    let room = size
        .checked_next_multiple_of(alignment)
        .and_then(|size| IMAGE_MAX.checked_sub(linked)?.checked_sub(size));
    let room = room.ok_or_else(|| {
        Failure::unfit("it is larger than what is mapped of a kernel, so it cannot be moved (KASLR)")
    })?;
    let places = room / alignment + 1;
    Ok(linked + random % places * alignment)
}

/// Describes a kernel that was a bare ELF file as if it came from a bzImage.
fn of_elf(layout: &Layout) -> Decompressed {
    let takes = layout.takes.next_multiple_of(ALIGNMENT);
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
        (bzimage::PREFERRED, &layout.linked.to_le_bytes()),
        (bzimage::INIT_SIZE, &u32::try_from(takes).unwrap_or(u32::MAX).to_le_bytes()),
    ];
    for (at, bytes) in fields {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    let note = "an ELF file does not say how it could be moved: the kernel starts where it was linked for, without \
                KASLR; stage its bzImage to keep that";
    let (entry, linked) = (layout.entry, layout.linked);
    Decompressed { head, takes, entry, linked, moved: linked, random: false, notes: vec![note.to_owned()] }
}
