//! Which physical memory a next kernel and what belongs to it may be put into, and where in it.
//!
//! The kernel takes a segment wherever it is told to: it checks alignment, overlap and the highest address
//! (`sanity_check_segment_list`, `kernel/kexec_core.c`). That there is memory at all, and that nothing is lost there which
//! the next kernel needs, is for who loads to know. So memory counts as usable where everybody who can tell says so:
//! - `/proc/iomem`: "System RAM", without what is reserved in it, and without the crash kernel's. Memory that a driver
//!   brought has another name there ("System RAM (kmem)"), and is gone when the driver is.
//! - `/sys/firmware/memmap`, where there is one (x86): "System RAM", as the firmware told the first of all kernels.
//! - `/sys/firmware/efi/runtime-map`: none of the firmware's own.
//!
//! The kernel that runs lies in memory, too, and its place is as good as any other: what is loaded is copied to its
//! place at the jump.

use std::path::PathBuf;
use std::{fs, io};

use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;
use crate::words::little_endian::{long, wide};

/// Where the kernel lists what lies where (`proc_iomem(5)`).
const IOMEM: &str = "/proc/iomem";

/// Where x86's keeps what the firmware said (Documentation/ABI/testing/sysfs-firmware-memmap): one folder an entry.
const FIRMWARE: &str = "/sys/firmware/memmap";

/// Where the memory of the firmware's own is that it needs while a system runs
/// (Documentation/ABI/testing/sysfs-firmware-efi-runtime-map).
const RUNTIME: &str = "/sys/firmware/efi/runtime-map";

/// What x86's was told when it started (Documentation/ABI/testing/sysfs-kernel-boot_params).
const TOLD: &str = "/sys/kernel/boot_params";
/// Where in that the number of the memory map's entries is (zero-page.rst).
pub const E820_COUNT: usize = 0x1e8;
/// Where they begin.
pub const E820: usize = 0x2d0;
/// The type of `setup_data` that has more of them.
pub const SETUP_E820_EXT: u32 = 1;

/// What memory is called in both, and what of a running kernel lies in it (`e820_type_to_string`,
/// arch/x86/kernel/e820.c; `request_standard_resources`, arch/arm64/kernel/setup.c).
const RAM: &str = "System RAM";
const OF_THE_KERNEL: &str = "Kernel ";

/// What a page of the EFI memory map is large (UEFI 2.10, 7.2.1), on every machine.
const EFI_PAGE: u64 = 4096;

/// Physical memory, from `start` up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// Its first byte.
    pub start: u64,
    /// The first byte behind it.
    pub end: u64,
}

impl Range {
    /// Its length in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn overlaps(self, other: Range) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// What is said of some memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// It.
    pub range: Range,
    /// What the kernel calls it.
    pub name: String,
}

/// Why it is not known what may be used.
#[derive(Debug, Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{} cannot be read: {}, and without it nobody can tell where memory is", .path.display(), InWords(.error))]
    Unreadable {
        /// It.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not as the kernel writes it.
    #[error("{} is not as the kernel writes it, and without it nobody can tell where memory is", .0.display())]
    Malformed(PathBuf),
    /// The kernel writes zeros for whoever may not see addresses (`r_show`, kernel/resource.c).
    #[error("{IOMEM} shows no addresses: this takes root with CAP_SYS_ADMIN")]
    Hidden,
    /// There is none.
    #[error("no memory is left that is memory for the kernel ({IOMEM}) and for the firmware ({FIRMWARE})")]
    None,
}

/// Memory that may be used, and of which parts are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// In their order, none touching another.
    free: Vec<Range>,
    /// What had better be left alone; as `united` makes them.
    avoided: Vec<Range>,
    /// A page: every end of what is free is a multiple of it.
    page: u64,
}

/// Where something may lie.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// It begins at a multiple of this, which is a power of two.
    pub align: u64,
    /// It does not begin before this.
    pub low: u64,
    /// It ends here at the latest.
    pub high: u64,
}

impl Default for Bounds {
    /// Anywhere.
    fn default() -> Bounds {
        Bounds { align: 1, low: 0, high: u64::MAX }
    }
}

/// Which of the places that there are.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// The lowest.
    Lowest,
    /// The highest.
    Highest,
    /// Any, each as likely as another, by a random number.
    Random(u64),
}

impl Memory {
    /// What of this machine's may be used, in pages of that size. A power of two.
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

    /// Memory of these ranges, cut to whole pages.
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

    /// The same memory, of which [`Memory::take`] takes nothing that lies in one of these ranges.
    #[must_use]
    pub fn avoiding(self, ranges: &[Range]) -> Memory {
        Memory { avoided: united(ranges.to_vec()), ..self }
    }

    /// What is free, in its order.
    #[must_use]
    pub fn free(&self) -> &[Range] {
        &self.free
    }

    /// What of it is free below an address.
    #[must_use]
    pub fn below(&self, end: u64) -> Vec<Range> {
        both(&self.free, &[Range { start: 0, end }])
    }

    /// Takes so many bytes away, rounded up to pages, and tells where they begin; none where there is no such place.
    pub fn take(&mut self, size: u64, bounds: Bounds, pick: Pick) -> Option<u64> {
        let from = without(&self.free, &self.avoided);
        self.take_from(&from, size, bounds, pick)
    }

    /// The same, whatever is to be avoided.
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

    /// Of the places for so many bytes, how many are left by what is to be avoided, and how many there are.
    #[must_use]
    pub fn places(&self, size: u64, bounds: Bounds) -> (u64, u64) {
        let Some((size, bounds)) = self.whole(size, bounds) else { return (0, 0) };
        let count = |ranges: &[Range]| {
            let counts = places(ranges, size, bounds).map(|(_, count)| count);
            counts.fold(0_u64, u64::saturating_add)
        };
        (count(&without(&self.free, &self.avoided)), count(&self.free))
    }

    /// In whole pages, aligned to one at least.
    fn whole(&self, size: u64, bounds: Bounds) -> Option<(u64, Bounds)> {
        let size = size.max(1).checked_next_multiple_of(self.page)?;
        Some((size, Bounds { align: bounds.align.max(self.page), ..bounds }))
    }
}

/// The first place for so many bytes in each of these ranges, and how many there are in it.
fn places(ranges: &[Range], size: u64, bounds: Bounds) -> impl DoubleEndedIterator<Item = (u64, u64)> {
    ranges.iter().filter_map(move |range| {
        let first = range.start.max(bounds.low).checked_next_multiple_of(bounds.align)?;
        let last = range.end.min(bounds.high).checked_sub(size)?;
        Some((first, last.checked_sub(first)? / bounds.align + 1))
    })
}

/// Where so many bytes begin in one of these ranges.
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

/// What the firmware said where memory is, as x86's kernel hands it on: entries in their order. None on a machine whose
/// kernel keeps no such list. Memory that was put in since the machine started is in that list, too (`firmware_map_add_hotplug`,
/// drivers/firmware/memmap.c), and is left out: the next kernel finds it as this one did, and is not to take it for memory that
/// never leaves.
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

/// The memory that this kernel was told of when it started; none where it was told in another way.
fn of_boot(root: &Root) -> Result<Option<Vec<Range>>, Error> {
    let path = format!("{TOLD}/data");
    let told = match fs::read(root.path(&path)) {
        Ok(told) => told,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Unreadable { path: root.path(path), error }),
    };
    let count = usize::from(told.get(E820_COUNT).copied().unwrap_or(0));
    let mut ranges = ram_of(told.get(E820..).unwrap_or_default(), count);
    // What does not fit goes on behind.
    for folder in numbered(root, &format!("{TOLD}/setup_data"))?.unwrap_or_default() {
        if hex(&word(root, &format!("{folder}/type"))?) == Some(SETUP_E820_EXT.into()) {
            let path = root.path(format!("{folder}/data"));
            let more = fs::read(&path).map_err(|error| Error::Unreadable { path, error })?;
            ranges.extend(ram_of(&more, usize::MAX));
        }
    }
    Ok((!ranges.is_empty()).then_some(ranges))
}

/// The memory among so many entries of the boot protocol's map (`struct boot_e820_entry`). Total: any bytes have some, or none.
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
    /// Of which type.
    pub kind: u32,
    /// Where it begins.
    pub physical: u64,
    /// Where the firmware was told that it will find it.
    pub virt: u64,
    /// How many pages of 4 KiB it has.
    pub pages: u64,
    /// What may be done with it.
    pub attribute: u64,
}

impl Descriptor {
    fn range(self) -> Range {
        let size = self.pages.saturating_mul(EFI_PAGE);
        Range { start: self.physical, end: self.physical.saturating_add(size) }
    }
}

/// The firmware's own memory while a system runs, in the order of its numbers; empty where the kernel keeps no such
/// list.
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

/// The folders below one that are called 0, 1, ..., in that order; none where it is not there.
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

/// As the kernel's `%llx` behind `0x` writes it.
pub(super) fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}

/// A range whose last byte is given. The very last byte of all that can be addressed is never memory.
fn inclusive(first: Option<u64>, last: Option<u64>) -> Option<Range> {
    let (start, last) = (first?, last?);
    (start <= last).then_some(Range { start, end: last.saturating_add(1) })
}

/// What is free by the text of `/proc/iomem`: memory without what lies in it and is not of the kernel itself. None where
/// it is no such text.
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
                // Where one thing is called memory and another lies across it, it is that.
                if is_in_ram { &mut ram } else { &mut taken }.push(range);
            }
            false if is_in_ram && !name.starts_with(OF_THE_KERNEL) => taken.push(range),
            false => {}
        }
    }
    // Without addresses everything is one byte at 0.
    if is_hidden(text) {
        return Some(Vec::new());
    }
    Some(without(&united(ram), &united(taken)))
}

/// Whether all addresses are 0, as for whoever may not see them.
fn is_hidden(text: &str) -> bool {
    text.lines().all(|line| {
        let place = line.split(" : ").next().unwrap_or_default();
        place.trim_start_matches(' ').bytes().all(|byte| byte == b'0' || byte == b'-')
    })
}

/// The same memory in ranges that are in order and do not touch.
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

/// What is in both; both as `united` makes them.
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

/// What is in the first and not in the second; both as `united` makes them.
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

    /// A guest of QEMU's with 1 GiB, with a crash kernel and what lies in it.
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

    /// Puts the firmware's list into a system.
    pub(crate) fn put_firmware(scratch: &Scratch, entries: &[(u64, u64, &str)]) {
        for (number, (start, last, name)) in entries.iter().enumerate() {
            let file = |name: &str| format!("{FIRMWARE}/{number}/{name}");
            scratch.put(&file("start"), &format!("{start:#x}\n"));
            scratch.put(&file("end"), &format!("{last:#x}\n"));
            scratch.put(&file("type"), &format!("{name}\n"));
        }
    }

    /// The same guest's.
    pub(crate) const FIRMWARE_ENTRIES: [(u64, u64, &str); 5] = [
        (0x0, 0x9_fbff, RAM),
        (0x9_fc00, 0x9_ffff, "Reserved"),
        (0xf_0000, 0xf_ffff, "Reserved"),
        (0x10_0000, 0x3ffd_bfff, RAM),
        (0x3ffd_c000, 0x3fff_ffff, "Reserved"),
    ];

    /// The boot protocol's entries for the memory among some of the firmware's.
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
        // What stands behind those that count is none.
        data.extend(told(&[put_in]));
        scratch.put(&format!("{TOLD}/data"), "");
        fs::write(scratch.root.path(format!("{TOLD}/data")), &data).unwrap();
        assert_eq!(count(), 5);
        // Unless it goes on elsewhere.
        scratch.put(&format!("{TOLD}/setup_data/0/type"), "0x1\n");
        scratch.put(&format!("{TOLD}/setup_data/0/data"), "");
        fs::write(scratch.root.path(format!("{TOLD}/setup_data/0/data")), told(&[put_in])).unwrap();
        assert_eq!(count(), 6);
    }

    /// Puts the firmware's own memory into a system.
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
        // What only one of them takes for memory is none.
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
