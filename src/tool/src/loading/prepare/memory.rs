//! The physical memory that a next kernel and its parts may be loaded into, and the choice of places in it.
//!
//! The kernel accepts a segment at any address: it checks only alignment, overlap and the highest address
//! (`sanity_check_segment_list`, `kernel/kexec_core.c`). The loading program must know itself that there is
//! memory at that address, and that it contains nothing that the next kernel needs. So memory counts as usable
//! if every source agrees:
//! - `/proc/iomem`: "System RAM", without the reserved regions in it, and without the crash kernel's. Memory
//!   that a driver added has another name there ("System RAM (kmem)"), and disappears with the driver.
//! - `/sys/firmware/memmap`, if it exists (x86): "System RAM", as the firmware told the first kernel after
//!   power-on.
//! - `/sys/firmware/efi/runtime-map`: does not list the memory as the firmware's own.
//!
//! The memory of the running kernel may be used like any other, because a loaded image is copied to its
//! destination only at the jump.

use std::fs;

use crate::loading::prepare::memory_map::{
    Descriptor, Error, IOMEM, RAM, free_in, is_hidden, of_efi, of_firmware,
};
use crate::loading::prepare::range::{Range, both, united, without};
use crate::machine::root::Root;

/// The usable memory, from which places are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The free ranges, sorted, none touching another.
    free: Vec<Range>,
    /// The ranges to leave alone, as returned by `united`.
    avoided: Vec<Range>,
    /// The page size: both ends of every free range are multiples of it.
    page: u64,
}

/// The restrictions on a place.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The alignment of the beginning, a power of two.
    pub align: u64,
    /// The lowest beginning.
    pub low: u64,
    /// The highest end.
    pub high: u64,
}

impl Default for Bounds {
    /// Returns bounds that allow any place.
    fn default() -> Bounds {
        Bounds { align: 1, low: 0, high: u64::MAX }
    }
}

/// The choice among the possible places.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// The lowest place.
    Lowest,
    /// The highest place.
    Highest,
    /// A random place, chosen by this random number; all places are equally likely.
    Random(u64),
}

impl Memory {
    /// Returns this machine's usable memory, for pages of that size, which must be a power of two.
    pub fn usable(root: &Root, page: u64) -> Result<Memory, Error> {
        let path = root.path(IOMEM);
        let text =
            fs::read_to_string(&path).map_err(|error| Error::Unreadable { path: path.clone(), error })?;
        let mut ranges = free_in(&text).ok_or(Error::Malformed(path))?;
        if ranges.is_empty() && !text.is_empty() && is_hidden(&text) {
            return Err(Error::Hidden);
        }
        if let Some(firmware) = of_firmware(root)? {
            let ram = firmware.iter().filter(|entry| entry.name == RAM);
            ranges = both(&ranges, &united(ram.map(|entry| entry.range).collect()));
            let others = firmware.iter().filter(|entry| entry.name != RAM);
            ranges = without(&ranges, &united(others.map(|entry| entry.range).collect()));
        }
        let runtime: Vec<_> = of_efi(root)?.into_iter().map(Descriptor::range).collect();
        let memory = Memory::new(&without(&ranges, &united(runtime)), page);
        if memory.free.is_empty() { Err(Error::None) } else { Ok(memory) }
    }

    /// Makes the memory of these ranges, cut to whole pages.
    #[must_use]
    pub fn new(ranges: &[Range], page: u64) -> Memory {
        let page = page.max(1);
        let whole = |range: &Range| {
            let start = range.start.checked_next_multiple_of(page)?;
            let end = range.end / page * page;
            (start < end).then_some(Range { start, end })
        };
        let free = united(ranges.to_vec()).iter().filter_map(whole).collect();
        Memory { free, avoided: Vec::new(), page }
    }

    /// Returns the same memory, in which [`Memory::take`] leaves these ranges alone.
    #[must_use]
    pub fn avoiding(self, ranges: &[Range]) -> Memory {
        Memory { avoided: united(ranges.to_vec()), ..self }
    }

    /// Returns the free ranges, in order.
    #[must_use]
    pub fn free(&self) -> &[Range] {
        &self.free
    }

    /// Returns the free ranges below an address.
    #[must_use]
    pub fn below(&self, end: u64) -> Vec<Range> {
        both(&self.free, &[Range { start: 0, end }])
    }

    /// Takes that many bytes, rounded up to pages, and returns their address; `None` if there is no such place.
    pub fn take(&mut self, size: u64, bounds: Bounds, pick: Pick) -> Option<u64> {
        let from = without(&self.free, &self.avoided);
        self.take_from(&from, size, bounds, pick)
    }

    /// Does the same as [`Memory::take`], but ignores the ranges to leave alone.
    pub fn take_anywhere(&mut self, size: u64, bounds: Bounds, pick: Pick) -> Option<u64> {
        let from = self.free.clone();
        self.take_from(&from, size, bounds, pick)
    }

    fn take_from(&mut self, from: &[Range], size: u64, bounds: Bounds, pick: Pick) -> Option<u64> {
        let (size, bounds) = self.whole(size, bounds)?;
        let at = place(from, size, bounds, pick)?;
        self.free = without(&self.free, &[Range { start: at, end: at + size }]);
        Some(at)
    }

    /// Counts the places for that many bytes: those outside the ranges to leave alone, and all of them.
    #[must_use]
    pub fn places(&self, size: u64, bounds: Bounds) -> (u64, u64) {
        let Some((size, bounds)) = self.whole(size, bounds) else { return (0, 0) };
        let count = |ranges: &[Range]| {
            let counts = places(ranges, size, bounds).map(|(_, count)| count);
            counts.fold(0_u64, u64::saturating_add)
        };
        (count(&without(&self.free, &self.avoided)), count(&self.free))
    }

    /// Rounds the size up to whole pages, and the alignment to at least one page.
    fn whole(&self, size: u64, bounds: Bounds) -> Option<(u64, Bounds)> {
        let size = size.max(1).checked_next_multiple_of(self.page)?;
        Some((size, Bounds { align: bounds.align.max(self.page), ..bounds }))
    }
}

/// Returns, for each of these ranges, the first place for that many bytes, and the number of places in the
/// range.
fn places(ranges: &[Range], size: u64, bounds: Bounds) -> impl DoubleEndedIterator<Item = (u64, u64)> {
    ranges.iter().filter_map(move |range| {
        let first = range.start.max(bounds.low).checked_next_multiple_of(bounds.align)?;
        let last = range.end.min(bounds.high).checked_sub(size)?;
        Some((first, last.checked_sub(first)? / bounds.align + 1))
    })
}

/// Returns a place for that many bytes in these ranges.
fn place(ranges: &[Range], size: u64, bounds: Bounds, pick: Pick) -> Option<u64> {
    let mut places = places(ranges, size, bounds);
    match pick {
        Pick::Lowest => Some(places.next()?.0),
        Pick::Highest => {
            let (first, count) = places.next_back()?;
            Some(first + (count - 1) * bounds.align)
        }
        Pick::Random(number) => {
            let places: Vec<_> = places.collect();
            let all = places.iter().fold(0_u64, |all, (_, count)| all.saturating_add(*count));
            let mut chosen = number.checked_rem(all)?;
            let (first, at) = places.iter().find_map(|&(first, count)| {
                let here = chosen < count;
                if !here {
                    chosen -= count;
                }
                here.then_some((first, chosen))
            })?;
            Some(first + at * bounds.align)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loading::prepare::memory_map::FIRMWARE;
    use crate::loading::prepare::memory_map::tests::{
        FIRMWARE_ENTRIES, IOMEM_TEXT, put_firmware, put_runtime,
    };
    use crate::machine::scratch::Scratch;

    const MIB: u64 = 1 << 20;

    const fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn memory_is_what_is_memory_for_all_without_what_is_reserved() {
        let scratch = Scratch::new();
        scratch.put(IOMEM, IOMEM_TEXT);
        let free = |scratch: &Scratch| Memory::usable(&scratch.root, 4096).unwrap().free;
        let all = [range(0x1000, 0x9_f000), range(MIB, 0x3400_0000), range(0x3800_0000, 0x3ffd_c000)];
        assert_eq!(free(&scratch), all);
        put_firmware(&scratch, &FIRMWARE_ENTRIES);
        assert_eq!(free(&scratch), all);
        let own = Descriptor { kind: 6, physical: 0x1000_0000, virt: 0, pages: 2, attribute: 1 << 63 };
        put_runtime(&scratch, &[own]);
        assert_eq!(
            free(&scratch).get(1..3).unwrap(),
            [range(MIB, 0x1000_0000), range(0x1000_2000, 0x3400_0000)]
        );
        // Memory that only one of the sources lists as such does not count.
        put_firmware(
            &scratch,
            &[(0x0, 0x9_fbff, RAM), (0x100_0000, 0x1ff_ffff, RAM), (0x180_0000, 0x18f_ffff, "Reserved")],
        );
        for number in 3..5 {
            fs::remove_dir_all(scratch.root.path(format!("{FIRMWARE}/{number}"))).unwrap();
        }
        let both = [range(0x1000, 0x9_f000), range(0x100_0000, 0x180_0000), range(0x190_0000, 0x200_0000)];
        assert_eq!(free(&scratch), both);
    }

    #[test]
    fn who_may_not_see_addresses_is_told_so_and_another_text_is_no_map() {
        let scratch = Scratch::new();
        let error = |scratch: &Scratch| Memory::usable(&scratch.root, 4096).unwrap_err().to_string();
        assert!(error(&scratch).contains("iomem cannot be read"), "{}", error(&scratch));
        for (text, words) in [
            ("00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n", "this takes root"),
            ("00000000-00000fff : Reserved\n", "no memory is left"),
            ("", "no memory is left"),
            ("1000-0fff : System RAM\n", "not as the kernel writes it"),
            ("+1000-1fff : System RAM\n", "not as the kernel writes it"),
            ("1000-1fff System RAM\n", "not as the kernel writes it"),
        ] {
            scratch.put(IOMEM, text);
            assert!(error(&scratch).contains(words), "{text:?}: {}", error(&scratch));
        }
        scratch.put(IOMEM, IOMEM_TEXT);
        put_firmware(&scratch, &[(5, 4, RAM)]);
        assert!(error(&scratch).contains("memmap/0 is not as"), "{}", error(&scratch));
    }

    #[test]
    fn a_place_is_aligned_within_bounds_and_given_once() {
        let memory = Memory::new(
            &[range(0, MIB), range(16 * MIB, 64 * MIB), range(1 << 32, (1 << 32) + 64 * MIB)],
            4096,
        );
        let bounds = Bounds { align: 2 * MIB, low: MIB, high: 1 << 32 };
        let mut low = memory.clone();
        assert_eq!(low.take(5 * MIB, bounds, Pick::Lowest), Some(16 * MIB));
        assert_eq!(low.take(5 * MIB, bounds, Pick::Lowest), Some(22 * MIB));
        let mut high = memory.clone();
        assert_eq!(high.take(5 * MIB, bounds, Pick::Highest), Some(58 * MIB));
        assert_eq!(high.take(5 * MIB, Bounds::default(), Pick::Highest), Some((1 << 32) + 59 * MIB));
        assert_eq!(high.take(1, Bounds { high: MIB, ..Bounds::default() }, Pick::Highest), Some(MIB - 4096));
        assert_eq!(high.take(65 * MIB, Bounds::default(), Pick::Highest), None);
        assert_eq!(high.take(u64::MAX, Bounds::default(), Pick::Lowest), None);
        assert_eq!(high.take(1, Bounds { low: u64::MAX, ..Bounds::default() }, Pick::Lowest), None);
    }

    #[test]
    fn each_place_can_be_the_random_one() {
        let memory = Memory::new(&[range(0, 3 * MIB), range(4 * MIB, 6 * MIB)], 4096);
        let bounds = Bounds { align: MIB, ..Bounds::default() };
        let mut places: Vec<_> = (0..7)
            .map(|number| memory.clone().take(MIB, bounds, Pick::Random(number)).unwrap() / MIB)
            .collect();
        assert_eq!(places, [0, 1, 2, 4, 5, 0, 1]);
        places.truncate(5);
        let mut memory = memory;
        for left in (0..5).rev() {
            let at = memory.take(MIB, bounds, Pick::Random(7)).unwrap() / MIB;
            places.retain(|place| *place != at);
            assert_eq!(places.len(), left);
        }
        assert_eq!(memory.take(MIB, bounds, Pick::Random(7)), None);
    }

    #[test]
    fn what_is_to_be_avoided_is_taken_by_nobody_who_does_not_ask_for_it() {
        let block = |number: u64| range(number * 2 * MIB, (number + 1) * 2 * MIB);
        let memory = Memory::new(&[range(0, 10 * MIB)], 4096).avoiding(&[block(4), block(3), block(0)]);
        let at = |size: u64, pick| memory.clone().take(size, Bounds::default(), pick);
        assert_eq!(at(MIB, Pick::Highest), Some(5 * MIB));
        assert_eq!(at(MIB, Pick::Lowest), Some(2 * MIB));
        assert_eq!(at(5 * MIB, Pick::Lowest), None);
        for number in 0..2000 {
            let at = at(MIB, Pick::Random(number)).unwrap();
            assert!((2 * MIB..=5 * MIB).contains(&at), "{at:#x}");
        }
        let bounds = Bounds { align: MIB, ..Bounds::default() };
        assert_eq!(memory.places(MIB, bounds), (4, 10));
        let mut taken = memory;
        assert_eq!(taken.take_anywhere(5 * MIB, bounds, Pick::Lowest), Some(0));
        assert_eq!(taken.take(MIB, bounds, Pick::Lowest), Some(5 * MIB));
        assert_eq!(taken.take(1, bounds, Pick::Lowest), None);
    }
}
