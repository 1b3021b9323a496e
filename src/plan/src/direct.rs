use core::fmt;

use crate::image::{hexadecimal, number};
use crate::{Image, List, limits};

/// What the direct loader takes: segments for `kexec_load(2)`, made by day. All that has to be known of a kernel's form
/// is in them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direct<'a> {
    /// The file beside kernel and initrd with what the next kernel is told: its command line, its map of memory, or
    /// the device tree, and its first instructions.
    pub parameters: Image<'a>,
    /// The physical address of the first instruction.
    pub start: u64,
    /// What goes where.
    pub segments: List<Segment, { limits::SEGMENTS_MAX }>,
    /// Where in the parameters the command line goes, its final NUL included. What it leaves over is NUL.
    pub cmdline: Area,
    /// What in the parameters is random, and fresh whenever it is loaded.
    pub seeds: List<Area, { limits::SEEDS_MAX }>,
}

/// A piece of a file, and where in memory it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Of which file.
    pub part: Part,
    /// Which of its bytes.
    pub bytes: Area,
    /// The physical address it goes to, a multiple of the page size.
    pub at: u64,
    /// How much memory is kept for it there, in bytes: a multiple of the page size, and zero beyond its bytes.
    pub takes: u64,
}

/// A file of a staged set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The initrd.
    Initrd,
    /// What the kernel is told.
    Parameters,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where they begin.
    pub offset: u64,
    /// How many they are, never 0.
    pub size: u64,
}

impl Area {
    /// Where they end, where that is a place in a file of this size.
    #[must_use]
    pub fn end_within(self, file: u64) -> Option<u64> {
        self.offset.checked_add(self.size).filter(|end| *end <= file)
    }

    /// These of a file's bytes; `None` where it has no so many.
    #[must_use]
    pub fn of(self, file: &[u8]) -> Option<&[u8]> {
        let (offset, size) = self.in_memory()?;
        file.get(offset..)?.get(..size)
    }

    /// The same to write to.
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
    /// Bytes of memory that they take together.
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

/// An address as `{:#x}` writes it.
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

/// As the plan's lines.
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
    /// Whether all of it lies within the files.
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
