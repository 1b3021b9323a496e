//! Maps of the physical memory: the kernel's own, the firmware's as the kernel passes it on, and EFI's.

use std::path::PathBuf;
use std::{fs, io};

use thiserror::Error;

use crate::loading::prepare::range::{Range, both, united, without};
use crate::machine::root::Root;
use crate::words::errno::InWords;
use crate::words::little_endian::{long, wide};

/// The kernel's list of physical memory regions (`proc_iomem(5)`).
pub(super) const IOMEM: &str = "/proc/iomem";

/// The firmware's memory map as x86 kernels keep it (Documentation/ABI/testing/sysfs-firmware-memmap), one
/// directory per entry.
pub(super) const FIRMWARE: &str = "/sys/firmware/memmap";

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
pub(super) const RAM: &str = "System RAM";
const OF_THE_KERNEL: &str = "Kernel ";

/// The page size of the EFI memory map, on every machine (UEFI 2.10, 7.2.1).
const EFI_PAGE: u64 = 4096;

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

/// Returns the firmware's memory map as an x86 kernel passes it on, in order; `None` if the kernel keeps no
/// such list. Memory added since the machine started is in that list, too (`firmware_map_add_hotplug`,
/// drivers/firmware/memmap.c). It is left out, because the next kernel finds it as this one did, and must not
/// take it for memory that never disappears.
pub fn of_firmware(root: &Root) -> Result<Option<Vec<Entry>>, Error> {
    let Some(directories) = numbered(root, FIRMWARE)? else { return Ok(None) };
    let mut entries = Vec::new();
    for directory in directories {
        let word = |name: &str| word(root, &format!("{directory}/{name}"));
        let (start, end, name) = (word("start")?, word("end")?, word("type")?);
        let range = inclusive(hex(&start), hex(&end));
        let range = range.ok_or_else(|| Error::Malformed(root.path(&directory)))?;
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
    for directory in numbered(root, &format!("{TOLD}/setup_data"))?.unwrap_or_default() {
        if hex(&word(root, &format!("{directory}/type"))?) == Some(SETUP_E820_EXT.into()) {
            let path = root.path(format!("{directory}/data"));
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
    pub(super) fn range(self) -> Range {
        let size = self.pages.saturating_mul(EFI_PAGE);
        Range { start: self.physical, end: self.physical.saturating_add(size) }
    }
}

/// Returns the firmware's own memory at run time, in the order of its numbers; empty if the kernel keeps no
/// such list.
pub fn of_efi(root: &Root) -> Result<Vec<Descriptor>, Error> {
    let mut descriptors = Vec::new();
    for directory in numbered(root, RUNTIME)?.unwrap_or_default() {
        let number = |name: &str| {
            let path = format!("{directory}/{name}");
            hex(&word(root, &path)?).ok_or_else(|| Error::Malformed(root.path(&path)))
        };
        descriptors.push(Descriptor {
            kind: u32::try_from(number("type")?).map_err(|_| Error::Malformed(root.path(&directory)))?,
            physical: number("phys_addr")?,
            virt: number("virt_addr")?,
            pages: number("num_pages")?,
            attribute: number("attribute")?,
        });
    }
    Ok(descriptors)
}

/// Returns the subdirectories named 0, 1, ..., in that order; `None` if the directory does not exist.
fn numbered(root: &Root, directory: &str) -> Result<Option<Vec<String>>, Error> {
    let unreadable = |error| Error::Unreadable { path: root.path(directory), error };
    let entries = match fs::read_dir(root.path(directory)) {
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
    Ok(Some(numbers.iter().map(|number| format!("{directory}/{number}")).collect()))
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
pub(super) fn is_hidden(text: &str) -> bool {
    text.lines().all(|line| {
        let place = line.split(" : ").next().unwrap_or_default();
        place.trim_start_matches(' ').bytes().all(|byte| byte == b'0' || byte == b'-')
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::machine::scratch::Scratch;

    const fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

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
    fn whatever_lies_in_memory_and_is_not_the_kernel_is_kept_however_deep() {
        let text = "40000000-7fffffff : System RAM\n  40200000-40ffffff : Kernel code\n  41000000-41ffffff : reserved\n    41400000-414fffff : x\n  42000000-42ffffff : Kernel data\n    42100000-421fffff : reserved\n80000000-8000ffff : System RAM (virtio_mem)\n  80000000-8000ffff : reserved\n";
        let free = [
            range(0x4000_0000, 0x4100_0000),
            range(0x4200_0000, 0x4210_0000),
            range(0x4220_0000, 0x8000_0000),
        ];
        assert_eq!(free_in(text).unwrap(), free);
    }
}
