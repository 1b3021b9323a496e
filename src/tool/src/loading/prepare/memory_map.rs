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

use std::path::PathBuf;
use std::{fs, io};

use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;
use crate::words::little_endian::{long, wide};

/// The kernel's list of physical memory regions (`proc_iomem(5)`).
const IOMEM: &str = "/proc/iomem";

/// The firmware's memory map as x86 kernels keep it (Documentation/ABI/testing/sysfs-firmware-memmap), one
/// directory per entry.
const FIRMWARE: &str = "/sys/firmware/memmap";

/// The firmware's own memory that it needs while a system runs
/// (Documentation/ABI/testing/sysfs-firmware-efi-runtime-map).
const RUNTIME: &str = "/sys/firmware/efi/runtime-map";

/// The boot parameters with which an x86 kernel was started
/// (Documentation/ABI/testing/sysfs-kernel-boot_params).
const TOLD: &str = "/sys/kernel/boot_params";
/// The offset of the number of memory map entries in the boot parameters (zero-page.rst).
pub const E820_COUNT: usize = 0x1e8;
/// The offset of these entries.
pub const E820: usize = 0x2d0;
/// The type of `setup_data` that contains further entries.
pub const SETUP_E820_EXT: u32 = 1;

/// The name of memory in both lists, and the beginning of the names of a running kernel's regions in it
/// (`e820_type_to_string`, arch/x86/kernel/e820.c; `request_standard_resources`, arch/arm64/kernel/setup.c).
const RAM: &str = "System RAM";
const OF_THE_KERNEL: &str = "Kernel ";

/// The page size of the EFI memory map, on every machine (UEFI 2.10, 7.2.1).
const EFI_PAGE: u64 = 4096;

/// A range of physical memory, from `start` to `end`, without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The first byte behind the range.
    pub end: u64,
}

impl Range {
    /// Returns the length in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn overlaps(self, other: Range) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// An entry of a memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The described memory.
    pub range: Range,
    /// The kernel's name for this kind of memory.
    pub name: String,
}

/// Why the usable memory cannot be determined.
#[derive(Debug, Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read: {}, and without it nobody can tell where memory is", .path.display(), InWords(.error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A file does not have the kernel's format.
    #[error("{} is not as the kernel writes it, and without it nobody can tell where memory is", .0.display())]
    Malformed(PathBuf),
    /// The kernel shows zeros instead of addresses to a process without `CAP_SYS_ADMIN` (`r_show`,
    /// kernel/resource.c).
    #[error("{IOMEM} shows no addresses: this takes root with CAP_SYS_ADMIN")]
    Hidden,
    /// No memory is usable.
    #[error("no memory is left that is memory for the kernel ({IOMEM}) and for the firmware ({FIRMWARE})")]
    None,
}

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

/// Returns the firmware's memory map as an x86 kernel passes it on, in order; `None` if the kernel keeps no
/// such list. Memory added since the machine started is in that list, too (`firmware_map_add_hotplug`,
/// drivers/firmware/memmap.c). It is left out, because the next kernel finds it as this one did, and must not
/// take it for memory that never disappears.
pub fn of_firmware(root: &Root) -> Result<Option<Vec<Entry>>, Error> {
    let Some(folders) = numbered(root, FIRMWARE)? else { return Ok(None) };
    let mut entries = Vec::new();
    for folder in folders {
        let word = |name: &str| word(root, &format!("{folder}/{name}"));
        let (start, end, name) = (word("start")?, word("end")?, word("type")?);
        let range = inclusive(hex(&start), hex(&end));
        let range = range.ok_or_else(|| Error::Malformed(root.path(&folder)))?;
        entries.push(Entry { range, name });
    }
    if let Some(booted) = of_boot(root)? {
        let booted = united(booted);
        let parts = entries.into_iter().flat_map(|entry| {
            let ranges = if entry.name == RAM { both(&[entry.range], &booted) } else { vec![entry.range] };
            ranges.into_iter().map(move |range| Entry { range, name: entry.name.clone() })
        });
        entries = parts.collect();
    }
    entries.sort_by_key(|entry| entry.range);
    Ok(Some(entries))
}

/// Returns the memory that this kernel was told of at its start; `None` if it learned of it in another way.
fn of_boot(root: &Root) -> Result<Option<Vec<Range>>, Error> {
    let path = format!("{TOLD}/data");
    let told = match fs::read(root.path(&path)) {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Unreadable { path: root.path(path), error }),
    };
    let count = usize::from(told.get(E820_COUNT).copied().unwrap_or(0));
    let mut ranges = ram_of(told.get(E820..).unwrap_or_default(), count);
    // Entries that do not fit are in `setup_data`.
    for folder in numbered(root, &format!("{TOLD}/setup_data"))?.unwrap_or_default() {
        if hex(&word(root, &format!("{folder}/type"))?) == Some(SETUP_E820_EXT.into()) {
            let path = root.path(format!("{folder}/data"));
            let more = fs::read(&path).map_err(|error| Error::Unreadable { path, error })?;
            ranges.extend(ram_of(&more, usize::MAX));
        }
    }
    Ok((!ranges.is_empty()).then_some(ranges))
}

/// Returns the memory among the first `count` entries of the boot protocol's map (`struct boot_e820_entry`).
/// Accepts any bytes.
fn ram_of(entries: &[u8], count: usize) -> Vec<Range> {
    const LENGTH: usize = 20;
    const KIND_OF_RAM: u32 = 1;
    let ram = entries.chunks_exact(LENGTH).take(count).filter(|entry| long(entry, 16) == KIND_OF_RAM);
    ram.map(|entry| Range { start: wide(entry, 0), end: wide(entry, 0).saturating_add(wide(entry, 8)) })
        .collect()
}

/// A descriptor of the EFI memory map (`EFI_MEMORY_DESCRIPTOR`, UEFI 2.10, 7.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The type of memory.
    pub kind: u32,
    /// The physical address.
    pub physical: u64,
    /// The virtual address that was given to the firmware.
    pub virt: u64,
    /// The number of pages of 4 KiB.
    pub pages: u64,
    /// The attribute bits: the allowed uses of the memory.
    pub attribute: u64,
}

impl Descriptor {
    fn range(self) -> Range {
        let size = self.pages.saturating_mul(EFI_PAGE);
        Range { start: self.physical, end: self.physical.saturating_add(size) }
    }
}

/// Returns the firmware's own memory at run time, in the order of its numbers; empty if the kernel keeps no
/// such list.
pub fn of_efi(root: &Root) -> Result<Vec<Descriptor>, Error> {
    let mut descriptors = Vec::new();
    for folder in numbered(root, RUNTIME)?.unwrap_or_default() {
        let number = |name: &str| {
            let path = format!("{folder}/{name}");
            hex(&word(root, &path)?).ok_or_else(|| Error::Malformed(root.path(&path)))
        };
        descriptors.push(Descriptor {
            kind: u32::try_from(number("type")?).map_err(|_| Error::Malformed(root.path(&folder)))?,
            physical: number("phys_addr")?,
            virt: number("virt_addr")?,
            pages: number("num_pages")?,
            attribute: number("attribute")?,
        });
    }
    Ok(descriptors)
}

/// Returns the subdirectories named 0, 1, ..., in that order; `None` if the directory does not exist.
fn numbered(root: &Root, folder: &str) -> Result<Option<Vec<String>>, Error> {
    let unreadable = |error| Error::Unreadable { path: root.path(folder), error };
    let entries = match fs::read_dir(root.path(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(Some(numbers.iter().map(|number| format!("{folder}/{number}")).collect()))
}

fn word(root: &Root, path: &str) -> Result<String, Error> {
    let text = fs::read_to_string(root.path(path));
    let text = text.map_err(|error| Error::Unreadable { path: root.path(path), error })?;
    Ok(text.trim_end().to_owned())
}

/// Parses a number as the kernel writes it with `0x%llx`.
pub(super) fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

/// Makes a range from its first and last byte. The very last addressable byte is never memory.
fn inclusive(first: Option<u64>, last: Option<u64>) -> Option<Range> {
    let (start, last) = (first?, last?);
    (start <= last).then_some(Range { start, end: last.saturating_add(1) })
}

/// Returns the free memory according to the text of `/proc/iomem`: memory without the regions in it that are
/// not the running kernel's. Returns `None` if the text has another format.
#[must_use]
pub fn free_in(text: &str) -> Option<Vec<Range>> {
    let (mut ram, mut taken) = (Vec::new(), Vec::new());
    let mut is_in_ram = false;
    for line in text.lines() {
        let (place, name) = line.split_once(" : ")?;
        let digits = place.trim_start_matches(' ');
        let (first, last) = digits.split_once('-')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        let range = inclusive(Some(number(first)?), Some(number(last)?))?;
        let is_top = digits.len() == place.len();
        match is_top {
            true => {
                is_in_ram = name == RAM;
                // If another region overlaps memory, the overlap is not memory.
                if is_in_ram { &mut ram } else { &mut taken }.push(range);
            }
            false if is_in_ram && !name.starts_with(OF_THE_KERNEL) => taken.push(range),
            false => {}
        }
    }
    // If addresses are hidden, every region is one byte at 0.
    if is_hidden(text) {
        return Some(Vec::new());
    }
    Some(without(&united(ram), &united(taken)))
}

/// Returns whether all addresses are 0, as the kernel shows them to a process without `CAP_SYS_ADMIN`.
fn is_hidden(text: &str) -> bool {
    text.lines().all(|line| {
        let place = line.split(" : ").next().unwrap_or_default();
        place.trim_start_matches(' ').bytes().all(|byte| byte == b'0' || byte == b'-')
    })
}

/// Returns the same memory as sorted ranges that do not touch.
pub(super) fn united(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable();
    let mut united: Vec<Range> = Vec::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => united.push(range),
        }
    }
    united
}

/// Returns the intersection; both arguments are as returned by `united`.
fn both(one: &[Range], other: &[Range]) -> Vec<Range> {
    let mut both = Vec::new();
    let mut others = other.iter().copied().peekable();
    for range in one {
        while let Some(&with) = others.peek() {
            if with.overlaps(*range) {
                both.push(Range { start: range.start.max(with.start), end: range.end.min(with.end) });
            }
            if with.end > range.end {
                break;
            }
            others.next();
        }
    }
    both
}

/// Returns the first argument without the second; both are as returned by `united`.
fn without(ranges: &[Range], taken: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut taken = taken.iter().copied().peekable();
    for range in ranges {
        let mut start = range.start;
        while let Some(&hole) = taken.peek() {
            if hole.start >= range.end {
                break;
            }
            if hole.start > start {
                left.push(Range { start, end: hole.start });
            }
            start = start.max(hole.end);
            if hole.end > range.end {
                break;
            }
            taken.next();
        }
        if start < range.end {
            left.push(Range { start, end: range.end });
        }
    }
    left
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::machine::scratch::Scratch;

    const fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    const MIB: u64 = 1 << 20;

    /// A QEMU guest with 1 GiB and a crash kernel in it.
    pub(crate) const IOMEM_TEXT: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-3ffdbfff : System RAM
  02c00000-03a00e90 : Kernel code
  03c00000-0488ffff : Kernel rodata
  34000000-37ffffff : Crash kernel
3ffdc000-3fffffff : Reserved
fd000000-fdffffff : 0000:00:02.0
  fd000000-fdffffff : bochs-drm
100000000-13fffffff : System RAM (kmem)
";

    /// Writes the firmware's list into a system.
    pub(crate) fn put_firmware(scratch: &Scratch, entries: &[(u64, u64, &str)]) {
        for (number, (start, last, name)) in entries.iter().enumerate() {
            let file = |name: &str| format!("{FIRMWARE}/{number}/{name}");
            scratch.put(&file("start"), &format!("{start:#x}\n"));
            scratch.put(&file("end"), &format!("{last:#x}\n"));
            scratch.put(&file("type"), &format!("{name}\n"));
        }
    }

    /// The same guest's firmware list.
    pub(crate) const FIRMWARE_ENTRIES: [(u64, u64, &str); 5] = [
        (0x0, 0x9_fbff, RAM),
        (0x9_fc00, 0x9_ffff, "Reserved"),
        (0xf_0000, 0xf_ffff, "Reserved"),
        (0x10_0000, 0x3ffd_bfff, RAM),
        (0x3ffd_c000, 0x3fff_ffff, "Reserved"),
    ];

    /// Encodes these entries of the firmware as entries of the boot protocol's map.
    pub(crate) fn told(entries: &[(u64, u64, &str)]) -> Vec<u8> {
        let entry = |(start, last, name): &(u64, u64, &str)| {
            let kind: u32 = if *name == RAM { 1 } else { 2 };
            [&start.to_le_bytes()[..], &(last - start + 1).to_le_bytes(), &kind.to_le_bytes()].concat()
        };
        entries.iter().flat_map(entry).collect()
    }

    #[test]
    fn memory_that_was_put_in_since_is_not_told_of() {
        let scratch = Scratch::new();
        let put_in = (0x1_0000_0000, 0x1_3fff_ffff, RAM);
        put_firmware(&scratch, &[&FIRMWARE_ENTRIES[..], &[put_in]].concat());
        let count = || of_firmware(&scratch.root).unwrap().unwrap().len();
        assert_eq!(count(), 6);
        let mut data = vec![0; E820];
        *data.get_mut(E820_COUNT).unwrap() = 5;
        data.extend(told(&FIRMWARE_ENTRIES));
        // An entry behind the counted ones is ignored.
        data.extend(told(&[put_in]));
        scratch.put(&format!("{TOLD}/data"), "");
        fs::write(scratch.root.path(format!("{TOLD}/data")), &data).unwrap();
        assert_eq!(count(), 5);
        // An entry in `setup_data` is not.
        scratch.put(&format!("{TOLD}/setup_data/0/type"), "0x1\n");
        scratch.put(&format!("{TOLD}/setup_data/0/data"), "");
        fs::write(scratch.root.path(format!("{TOLD}/setup_data/0/data")), told(&[put_in])).unwrap();
        assert_eq!(count(), 6);
    }

    /// Writes the firmware's own memory into a system.
    pub(crate) fn put_runtime(scratch: &Scratch, descriptors: &[Descriptor]) {
        for (number, of) in descriptors.iter().enumerate() {
            let file = |name: &str| format!("{RUNTIME}/{number}/{name}");
            scratch.put(&file("type"), &format!("{:#x}\n", of.kind));
            scratch.put(&file("phys_addr"), &format!("{:#x}\n", of.physical));
            scratch.put(&file("virt_addr"), &format!("{:#x}\n", of.virt));
            scratch.put(&file("num_pages"), &format!("{:#x}\n", of.pages));
            scratch.put(&file("attribute"), &format!("{:#x}\n", of.attribute));
        }
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
    fn whatever_lies_in_memory_and_is_not_the_kernel_is_kept_however_deep() {
        let text = "40000000-7fffffff : System RAM\n  40200000-40ffffff : Kernel code\n  41000000-41ffffff : reserved\n    41400000-414fffff : x\n  42000000-42ffffff : Kernel data\n    42100000-421fffff : reserved\n80000000-8000ffff : System RAM (virtio_mem)\n  80000000-8000ffff : reserved\n";
        let free = [
            range(0x4000_0000, 0x4100_0000),
            range(0x4200_0000, 0x4210_0000),
            range(0x4220_0000, 0x8000_0000),
        ];
        assert_eq!(free_in(text).unwrap(), free);
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

    #[test]
    fn what_is_taken_away_is_gone_from_wherever_it_lies() {
        let all = [range(10, 20), range(30, 40), range(50, 60)];
        for (holes, left) in [
            (&[range(0, 100)][..], &[][..]),
            (&[range(20, 30)], &all),
            (&[range(15, 55)], &[range(10, 15), range(55, 60)]),
            (
                &[range(12, 13), range(14, 15), range(39, 51)],
                &[range(10, 12), range(13, 14), range(15, 20), range(30, 39), range(51, 60)],
            ),
        ] {
            assert_eq!(without(&all, holes), left, "{holes:?}");
            let kept: u64 = both(&all, holes).iter().map(|range| range.size()).sum();
            assert_eq!(kept + left.iter().map(|range| range.size()).sum::<u64>(), 30, "{holes:?}");
        }
    }
}
