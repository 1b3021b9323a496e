//! The headers of a kernel's ELF file (ELF-64 Object File Format, 1.5).

use crate::loading::decompress::failure::Failure;
use crate::words::little_endian::{long, short, wide};

/// The size of the mapping of a kernel with KASLR (`KERNEL_IMAGE_SIZE`, `arch/x86/include/asm/page_64_types.h`),
/// and the kernel's alignment (`MIN_KERNEL_ALIGN`).
pub(super) const IMAGE_MAX: u64 = 1 << 30;
pub(super) const ALIGNMENT: u64 = 2 << 20;

/// The sizes of the ELF header, of a program header and of a section header, and values in them.
pub(super) const ELF: usize = 64;
pub(super) const PROGRAM: usize = 56;
pub(super) const SECTION: usize = 64;
pub(super) const LOAD: u32 = 1;
pub(super) const NO_BITS: u32 = 8;
pub(super) const X86_64: u16 = 62;
pub(super) const LITTLE_64: &[u8] = b"\x7fELF\x02\x01";

/// The most program headers that are accepted: a kernel has five.
const PROGRAMS_MAX: usize = 64;

/// The facts in an ELF file's headers.
pub(super) struct Elf {
    pub(super) loads: Vec<Load>,
    /// The end of the last loaded byte in the file.
    pub(super) loaded: u64,
    pub(super) size: u64,
    pub(super) takes: u64,
    pub(super) entry: u64,
    pub(super) linked: u64,
    /// The offset of the section headers, and their number.
    sections: u64,
    sections_count: u64,
}

/// A loaded part of an ELF file: its offset and length in the file, and its offset in the layout.
pub(super) struct Load {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) to: u64,
}

impl Elf {
    pub(super) fn parse(bytes: &[u8], linked: Option<u64>) -> Result<Elf, Failure> {
        let is_one = bytes.starts_with(LITTLE_64) && short(bytes, 18) == X86_64;
        let count = usize::from(short(bytes, 56));
        let programs = usize::try_from(wide(bytes, 32)).ok().filter(|at| *at >= ELF);
        let is_whole = usize::from(short(bytes, 54)) == PROGRAM && (1..=PROGRAMS_MAX).contains(&count);
        let programs = programs.and_then(|at| bytes.get(at..)?.get(..count * PROGRAM));
        let (true, true, Some(programs)) = (is_one, is_whole, programs) else {
            return Err(Failure::unfit("what is packed in it is no ELF file of x86_64"));
        };
        let odd = || Failure::unfit("it says something of itself that no kernel says");
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
                return Err(Failure::unfit("its parts are not aligned to 2 MiB"));
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
    pub(super) fn end(&self, tail: &[u8]) -> Result<u64, Failure> {
        if self.sections_count == 0 {
            return Ok(self.loaded);
        }
        let odd = || Failure::unfit("its sections are not where it says");
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

/// Returns that part of the bytes, or nothing if they do not have all of it.
pub(super) fn piece(bytes: &[u8], at: u64, length: u64) -> &[u8] {
    let range = usize::try_from(at)
        .and_then(|at| usize::try_from(length).map(|length| at..at.saturating_add(length)));
    range.ok().and_then(|range| bytes.get(range)).unwrap_or_default()
}
