//! The memory that the kernel hands out for a load, as an earlier load shows it.
//!
//! A load with `kexec_load` is slow if the page allocator hands out pages that are destinations of the same
//! image. The kernel sets such a page aside or exchanges it for another, and searches a list for each page
//! either way (`kimage_alloc_page`, `kernel/kexec_core.c`). Pages come first from free memory in unmovable
//! blocks. If that is not enough, other blocks become unmovable and mostly stay so (`MIGRATE_UNMOVABLE`,
//! `mm/page_alloc.c`). So a load is handed mostly the same pages as the load before it, and those can be
//! observed: the pages of an image are reserved while it is loaded (`kimage_alloc_pages`), and /proc/kpageflags
//! shows which pages are. This is an approximation, because the memory of processes is freed before the hook
//! loads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nextkernel_plan::Segment;

use super::memory::Memory;
use super::range::{Range, united};
use crate::machine::root::Root;
use crate::words::little_endian::wide;

/// The file with the flags of each page, 8 bytes per page (Documentation/admin-guide/mm/pagemap.rst).
const FLAGS: &str = "/proc/kpageflags";
const ENTRY: u64 = 8;

/// The bit of a reserved page (`KPF_RESERVED`, include/linux/kernel-page-flags.h). That header does not
/// guarantee the bit; without it no image is moved out of its own way.
const RESERVED: u64 = 1 << 32;

/// The number of entries read at once.
const AT_ONCE: u64 = 8192;

/// The unit in which the kernel separates movable from unmovable memory (`pageblock_order`), if its huge pages
/// have 2 MiB.
const BLOCK: u64 = 2 << 20;

/// Memory is examined up to this address, and at the image's destinations; examining takes long.
const LOOKED_AT: u64 = 16 << 30;

/// An image is in its own way if more of its destination pages than this were handed out. The kernel searches
/// all the pages set aside for each page that follows, so their number matters, not their share.
const FEW: usize = 400;

/// The state of memory before an image is loaded.
pub struct Look {
    places: Vec<Range>,
    page: u64,
    /// The reserved pages at the image's destinations.
    before: Vec<u64>,
    /// All the reserved pages, if another image is loaded. This load is handed none of them, but the next one
    /// is.
    held: Option<Vec<u64>>,
}

impl Look {
    /// Examines memory; `None` if the kernel does not show the flags.
    pub fn before(root: &Root, segments: impl Iterator<Item = Segment>) -> Option<Look> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let page = u64::try_from(page).ok()?;
        let places = segments.map(|it| Range { start: it.at, end: it.at.saturating_add(it.takes) });
        let places: Vec<_> = places.collect();
        let before = reserved(root, &places, page).ok()?;
        let look = Look { places, page, before, held: None };
        let held = root.kexec_loaded().then(|| look.everywhere(root)).transpose().ok()?;
        Some(Look { held, ..look })
    }

    /// Returns whether many of the pages handed out for the image, which is loaded now, may be its own
    /// destinations.
    #[must_use]
    pub fn may_be_in_its_own_way(&self, root: &Root) -> bool {
        let now = || reserved(root, &self.places, self.page);
        self.held.is_some() || now().is_ok_and(|now| beside(&now, &self.before).len() > FEW)
    }

    /// Returns the memory that is handed out, in whole blocks, the fullest first. The image is loaded now, and
    /// `unload` unloads it. The result is empty if the image is not in its own way.
    pub fn blocks<E>(&self, root: &Root, unload: impl FnOnce() -> Result<(), E>) -> Result<Vec<Range>, E> {
        let mut loaded = self.everywhere(root).unwrap_or_default();
        unload()?;
        let Ok(unloaded) = self.everywhere(root) else { return Ok(Vec::new()) };
        loaded.extend(self.held.iter().flatten());
        loaded.sort_unstable();
        loaded.dedup();
        let handed_out = beside(&loaded, &unloaded);
        let own = |number: &&u64| {
            let at = number.saturating_mul(self.page);
            self.places.iter().any(|place| (place.start..place.end).contains(&at))
        };
        let is_in_the_way = handed_out.iter().filter(own).count() > FEW;
        Ok(if is_in_the_way { blocks(&handed_out, self.page) } else { Vec::new() })
    }

    /// Returns all the reserved pages in the examined memory.
    fn everywhere(&self, root: &Root) -> io::Result<Vec<u64>> {
        let usable = Memory::usable(root, self.page).map_err(io::Error::other)?;
        let looked_at = [usable.below(LOOKED_AT), self.places.clone()].concat();
        reserved(root, &looked_at, self.page)
    }
}

/// Returns the numbers of the reserved pages in these ranges, in order.
fn reserved(root: &Root, ranges: &[Range], page: u64) -> io::Result<Vec<u64>> {
    // Segments come in any order, so the ranges are sorted first.
    let ranges = united(ranges.to_vec());
    let flags = File::open(root.path(FLAGS))?;
    let mut reserved = Vec::new();
    for range in &ranges {
        let (mut number, end) = (range.start / page, range.end / page);
        while number < end {
            let count = (end - number).min(AT_ONCE);
            let mut entries = vec![0; usize::try_from(count * ENTRY).map_err(io::Error::other)?];
            let read = flags.read_at(&mut entries, number.saturating_mul(ENTRY))?;
            let entries = entries.get(..read).unwrap_or_default().chunks_exact(8);
            let count = entries.len() as u64;
            // There is nothing to read behind the last page.
            if count == 0 {
                break;
            }
            let of_these = (number..).zip(entries).filter(|(_, flags)| wide(flags, 0) & RESERVED != 0);
            reserved.extend(of_these.map(|(number, _)| number));
            number += count;
        }
    }
    Ok(reserved)
}

/// Returns the pages of the first list that are not in the second; both are sorted.
fn beside(pages: &[u64], others: &[u64]) -> Vec<u64> {
    pages.iter().copied().filter(|page| others.binary_search(page).is_err()).collect()
}

/// Returns the blocks that contain these pages, those with the most of them first.
fn blocks(pages: &[u64], page: u64) -> Vec<Range> {
    let mut blocks: Vec<(usize, Range)> = Vec::new();
    for number in pages {
        let start = number.saturating_mul(page) / BLOCK * BLOCK;
        match blocks.last_mut() {
            Some((count, block)) if block.start == start => *count += 1,
            _ => blocks.push((1, Range { start, end: start.saturating_add(BLOCK) })),
        }
    }
    blocks.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    blocks.into_iter().map(|(_, block)| block).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::loading::prepare::memory_map::tests::IOMEM_TEXT;
    use crate::machine::scratch::Scratch;
    use nextkernel_plan::{Area, Part};

    const PAGE: u64 = 4096;

    /// Writes the page flags of 1 GiB, of which these pages are reserved.
    fn say(scratch: &Scratch, reserved: &[(u64, u64)]) {
        let mut flags = vec![0_u8; (1 << 30) / 4096 * 8];
        for number in reserved.iter().flat_map(|&(first, end)| first..end) {
            flags[usize::try_from(number * ENTRY).unwrap()..][..8]
                .copy_from_slice(&(RESERVED | 1).to_le_bytes());
        }
        scratch.put(FLAGS, "");
        std::fs::write(scratch.root.path(FLAGS), flags).unwrap();
    }

    fn look(scratch: &Scratch) -> Option<Look> {
        let bytes = Area { offset: 0, size: 1 };
        let segment = |at, takes| Segment { part: Part::Kernel, bytes, at, takes };
        Look::before(
            &scratch.root,
            [segment(0x100_0000, 0x20_0000), segment(0x200_0000, 0x20_0000)].into_iter(),
        )
    }

    #[test]
    fn an_image_may_be_in_its_own_way_where_much_of_its_place_was_handed_out_or_another_was_loaded() {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", IOMEM_TEXT);
        // Pages that were reserved before belong to no image.
        let before = (0x1000, 0x1010);
        for (handed_out, is) in [
            (vec![], false),
            (vec![(0x2000, 0x2190)], false),
            (vec![(0x2000, 0x2190), (0x1100, 0x1101)], true),
            (vec![(0x3000, 0x4000)], false),
        ] {
            say(&scratch, &[before]);
            let look = look(&scratch).unwrap();
            say(&scratch, &[&handed_out[..], &[before]].concat());
            assert_eq!(look.may_be_in_its_own_way(&scratch.root), is, "{handed_out:x?}");
        }
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        assert!(look(&scratch).unwrap().may_be_in_its_own_way(&scratch.root));
    }

    /// Returns the block that begins with this page.
    fn block(number: u64) -> Range {
        Range { start: number * PAGE, end: number * PAGE + BLOCK }
    }

    #[test]
    fn blocks_are_told_by_what_is_reserved_while_it_is_loaded_the_fullest_first() {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", IOMEM_TEXT);
        let stays = [(0, 1), (0x400, 0x500)];
        let told = |handed_out: &[(u64, u64)]| {
            say(&scratch, &[&stays[..], handed_out].concat());
            let unload = || {
                say(&scratch, &stays);
                Ok::<_, ()>(())
            };
            look(&scratch).unwrap().blocks(&scratch.root, unload).unwrap()
        };
        // The crash kernel's memory is never used, so its pages do not count.
        let own = (0x1000, 0x1191);
        assert_eq!(told(&[own, (0x1600, 0x1800), (0x34000, 0x34010)]), [block(0x1600), block(0x1000)]);
        assert_eq!(told(&[(0x1000, 0x1190), (0x1600, 0x1800)]), []);
        assert_eq!(look(&scratch).unwrap().blocks(&scratch.root, || Err("stays")), Err("stays"));
    }

    #[test]
    fn what_the_image_before_was_handed_is_handed_out_next() {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", IOMEM_TEXT);
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        say(&scratch, &[(0x1000, 0x1200)]);
        let look = look(&scratch).unwrap();
        say(&scratch, &[(0x1600, 0x1700)]);
        let unload = || {
            say(&scratch, &[]);
            Ok::<_, ()>(())
        };
        assert_eq!(look.blocks(&scratch.root, unload), Ok(vec![block(0x1000), block(0x1600)]));
    }

    #[test]
    fn where_the_kernel_does_not_tell_nothing_is_known() {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", IOMEM_TEXT);
        assert!(look(&scratch).is_none());
        say(&scratch, &[]);
        let look = look(&scratch).unwrap();
        std::fs::remove_file(scratch.root.path(FLAGS)).unwrap();
        assert!(!look.may_be_in_its_own_way(&scratch.root));
        assert_eq!(look.blocks(&scratch.root, || Ok::<_, ()>(())), Ok(vec![]));
        // A truncated file is read as far as it goes.
        scratch.put(FLAGS, "1234567");
        assert!(!look.may_be_in_its_own_way(&scratch.root));
    }
}
