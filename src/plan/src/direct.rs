use core::fmt;

use crate::image::{hexadecimal, number};
use crate::{Image, List, limits};

/// The arguments of `kexec_load(2)`, made at staging. They contain all that depends on the format of the
/// kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direct<'a> {
    /// The file with the boot parameters of the next kernel, beside kernel and initrd: its command line, its
    /// memory map or device tree, and its first instructions.
    pub parameters: Image<'a>,
    /// The physical address of the first instruction.
    pub start: u64,
    /// The pieces of the files, and their places in memory.
    pub segments: List<Segment, { limits::SEGMENTS_MAX }>,
    /// The place of the command line in the parameters, including its final NUL. The bytes that it leaves
    /// over are NUL.
    pub cmdline: Area,
    /// The places in the parameters that are filled with fresh random bytes at each load.
    pub seeds: List<Area, { limits::SEEDS_MAX }>,
}

/// A piece of a file, and its place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The file.
    pub part: Part,
    /// The bytes of that file.
    pub bytes: Area,
    /// The physical address of its place, a multiple of the page size.
    pub at: u64,
    /// The size of its place in bytes, a multiple of the page size. The memory beyond the file's bytes is
    /// zero.
    pub takes: u64,
}

/// A file of an image set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// The boot parameters of the next kernel.
    Parameters,
}

/// A range of bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The offset of the first byte.
    pub offset: u64,
    /// The number of bytes, never 0.
    pub size: u64,
}

impl Area {
    /// Returns the end of the range. Returns `None` if a file of this size has fewer bytes.
    #[must_use]
    pub fn end_within(self, file: u64) -> Option<u64> {
        self.offset.checked_add(self.size).filter(|end| *end <= file)
    }

    /// Returns this range of a file's bytes. Returns `None` if the file has fewer bytes.
    #[must_use]
    pub fn of(self, file: &[u8]) -> Option<&[u8]> {
        let (offset, size) = self.in_memory()?;
        file.get(offset..)?.get(..size)
    }

    /// Returns this range of a file's bytes for writing. Returns `None` if the file has fewer bytes.
    #[must_use]
    pub fn of_mut(self, file: &mut [u8]) -> Option<&mut [u8]> {
        let (offset, size) = self.in_memory()?;
        file.get_mut(offset..)?.get_mut(..size)
    }

    fn in_memory(self) -> Option<(usize, usize)> {
        Some((usize::try_from(self.offset).ok()?, usize::try_from(self.size).ok()?))
    }

    /// Reads `0xOFFSET+SIZE`.
    pub(crate) fn parse(text: &str) -> Option<Area> {
        let (offset, size) = text.split_once('+')?;
        Some(Area { offset: address(offset)?, size: number(size).filter(|size| *size > 0)? })
    }
}

impl Segment {
    /// Returns the number of bytes of memory that the segments take together.
    pub fn memory(segments: impl IntoIterator<Item = Segment>) -> u64 {
        segments.into_iter().fold(0, |sum, segment| sum.saturating_add(segment.takes))
    }

    /// Reads `PART 0xOFFSET+SIZE at=0xADDRESS takes=SIZE`.
    pub(crate) fn parse(text: &str) -> Option<Segment> {
        let mut words = text.split(' ');
        let part = match words.next()? {
            "kernel" => Part::Kernel,
            "initrd" => Part::Initrd,
            "parameters" => Part::Parameters,
            _ => return None,
        };
        let bytes = Area::parse(words.next()?)?;
        let at = address(words.next()?.strip_prefix("at=")?)?;
        let takes = number(words.next()?.strip_prefix("takes=")?).filter(|takes| *takes >= bytes.size)?;
        let segment = Segment { part, bytes, at, takes };
        (words.next().is_none() && at.checked_add(takes).is_some()).then_some(segment)
    }
}

/// Reads an address as `{:#x}` writes it.
pub(crate) fn address(text: &str) -> Option<u64> {
    hexadecimal(text.strip_prefix("0x")?)
}

impl fmt::Display for Area {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}+{}", self.offset, self.size)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Part::Kernel => "kernel",
            Part::Initrd => "initrd",
            Part::Parameters => "parameters",
        })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} at={:#x} takes={}", self.part, self.bytes, self.at, self.takes)
    }
}

/// Writes the lines of the plan.
impl fmt::Display for Direct<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "parameters = {}", self.parameters)?;
        writeln!(out, "start = {:#x}", self.start)?;
        for segment in self.segments.iter() {
            writeln!(out, "segment = {segment}")?;
        }
        writeln!(out, "cmdline-at = {}", self.cmdline)?;
        for seed in self.seeds.iter() {
            writeln!(out, "seed-at = {seed}")?;
        }
        Ok(())
    }
}

impl Direct<'_> {
    /// Whether there is a segment, and all ranges lie within their files.
    #[must_use]
    pub(crate) fn fits(&self, kernel: &Image<'_>, initrd: Option<&Image<'_>>) -> bool {
        let size = |part| match part {
            Part::Kernel => kernel.size,
            Part::Initrd => initrd.map_or(0, |initrd| initrd.size),
            Part::Parameters => self.parameters.size,
        };
        let told = |area: Area| area.end_within(self.parameters.size).is_some();
        !self.segments.is_empty()
            && self.segments.iter().all(|segment| segment.bytes.end_within(size(segment.part)).is_some())
            && told(self.cmdline)
            && self.seeds.iter().all(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_as_it_is_written_and_in_no_other_way() {
        let good = "kernel 0x4200+12345 at=0x1000000 takes=16384";
        assert_eq!(Segment::parse(good).map(|segment| segment.to_string()).as_deref(), Some(good));
        for bad in [
            "",
            "kernels 0x0+1 at=0x0 takes=1",
            "kernel 0+1 at=0x0 takes=1",
            "kernel 0x00+1 at=0x0 takes=1",
            "kernel 0xA+1 at=0x0 takes=1",
            "kernel 0x+1 at=0x0 takes=1",
            "kernel 0x0+0 at=0x0 takes=1",
            "kernel 0x0+2 at=0x0 takes=1",
            "kernel 0x0+1 at=0 takes=1",
            "kernel 0x0+1 takes=1 at=0x0",
            "kernel 0x0+1 at=0xffffffffffffffff takes=1",
            "kernel 0x0+1 at=0x0 takes=1 ",
        ] {
            assert_eq!(Segment::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_area_is_of_a_file_that_has_all_its_bytes() {
        let area = |offset, size| Area { offset, size };
        let mut file = [1, 2, 3, 4];
        assert_eq!(area(1, 2).of(&file), Some(&[2, 3][..]));
        assert_eq!(area(2, 2).of_mut(&mut file), Some(&mut [3, 4][..]));
        for outside in [area(3, 2), area(5, 1), area(u64::MAX, 1), area(1, u64::MAX)] {
            assert_eq!((outside.of(&file), outside.of_mut(&mut [0; 4])), (None, None));
        }
    }
}
