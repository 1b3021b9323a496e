//! The parameters for the next kernel: `boot_params`, and what its addresses lead to.

use nextkernel_plan::Area;

use super::field;
use super::kernel::{Kernel, LOWEST};
use super::machine::Machine;
use super::trampoline::trampoline;
use crate::loading::prepare::memory_map::{Descriptor, Entry, SETUP_E820_EXT};
use crate::loading::prepare::parts::Error;
use crate::words::quoted::quoted;

/// The lengths of `struct screen_info`, of `edd_mbr_sig_buffer`, and of `eddbuf`, which has six of
/// `struct edd_info`.
const SCREEN_LENGTH: usize = 64;
const SIGNATURES_LENGTH: usize = 64;
pub(super) const DISKS_LENGTH: usize = 6 * 82;

/// The number of memory map entries that fit into `boot_params`, and the length of one.
const MAP_ENTRIES: usize = 128;
pub(super) const MAP_ENTRY: usize = 20;

/// The bit of `loadflags` that says that the kernel was moved at random, and moves its own mappings at random,
/// too.
pub(super) const KASLR: u8 = 1 << 1;

/// `type_of_loader` of a kernel loaded by kexec, with either call.
pub(super) const LOADER: u8 = 0xd0;

/// Types of `setup_data`.
pub(super) const SETUP_EFI: u32 = 4;
pub(super) const SETUP_RNG_SEED: u32 = 9;

/// The length of `struct setup_data` without its data.
const NODE: usize = 16;

/// The length of the seed (`RNG_SEED_LENGTH`).
const SEED: usize = 32;

/// The length of a descriptor in EFI's map, without any additions of the firmware.
const DESCRIPTOR: usize = 40;

/// The input of the parameters for the next kernel.
pub(super) struct Told<'a> {
    pub(super) kernel: &'a Kernel<'a>,
    pub(super) machine: &'a Machine,
    /// The initrd's address and length.
    pub(super) initrd: Option<(u64, u64)>,
    pub(super) cmdline_room: u64,
}

/// The parameters as bytes.
pub(super) struct Layout {
    pub(super) parameters: Vec<u8>,
    pub(super) start: u64,
    pub(super) cmdline: Area,
    pub(super) seed: Area,
}

impl Told<'_> {
    /// Lays the parameters out for the address `at`; their length does not depend on it.
    pub(super) fn layout(&self, at: u64, entry: u64) -> Result<Layout, Error> {
        let Told { machine, initrd, cmdline_room, .. } = *self;
        let mut bytes = Bytes(self.boot_params());
        let cmdline = Area { offset: field::LENGTH as u64, size: cmdline_room.max(1) };
        let room =
            usize::try_from(cmdline.size).map_err(|_| Error::kernel("its command line is too long"))?;
        bytes.append(&vec![0; room]);
        bytes.split(field::CMDLINE, field::CMDLINE_HIGH, at + cmdline.offset);
        if let Some((initrd, size)) = initrd {
            bytes.split(field::INITRD, field::INITRD_HIGH, initrd);
            bytes.split(field::INITRD_SIZE, field::INITRD_SIZE_HIGH, size);
        }
        let map = machine.map.iter().map(map_entry).collect::<Result<Vec<_>, _>>()?.concat();
        let (first, more) = map.split_at_checked(MAP_ENTRIES * MAP_ENTRY).unwrap_or((&map, &[]));
        let count = u8::try_from(first.len() / MAP_ENTRY).unwrap_or(u8::MAX);
        bytes.put(field::MAP_COUNT, &[count]);
        bytes.put(field::MAP, first);
        let mut nodes = Nodes { at, last: 0 };
        if !more.is_empty() {
            nodes.add(&mut bytes, SETUP_E820_EXT, more);
        }
        if let Some(efi) = &machine.efi {
            let addresses = [efi.vendor, efi.runtime, efi.tables, efi.smbios, 0, 0, 0, 0, 0, 0, 0, 0];
            let addresses: Vec<u8> = addresses.into_iter().flat_map(u64::to_le_bytes).collect();
            nodes.add(&mut bytes, SETUP_EFI, &addresses);
            let map = efi.map.iter().flat_map(descriptor).collect::<Vec<u8>>();
            let offset = bytes.append(&map);
            bytes.put(field::EFI, machine.running.get(field::EFI..field::EFI + 8).unwrap_or_default());
            bytes.put(field::EFI + 8, &u32::try_from(DESCRIPTOR).unwrap_or_default().to_le_bytes());
            bytes.put(
                field::EFI + 12,
                machine.running.get(field::EFI + 12..field::EFI + 16).unwrap_or_default(),
            );
            bytes.split(field::EFI + 16, field::EFI + 28, at + offset as u64);
            bytes.put(field::EFI + 20, &u32::try_from(map.len()).unwrap_or_default().to_le_bytes());
            bytes.put(
                field::EFI + 24,
                machine.running.get(field::EFI + 24..field::EFI + 28).unwrap_or_default(),
            );
            bytes.put(
                field::SECURE_BOOT,
                machine.running.get(field::SECURE_BOOT..=field::SECURE_BOOT).unwrap_or_default(),
            );
        }
        let seed = nodes.add(&mut bytes, SETUP_RNG_SEED, &[0; SEED]);
        bytes.put(field::SETUP_DATA, &nodes.last.to_le_bytes());
        let offset = bytes.append(&[]);
        let start = at + offset as u64;
        bytes.append(&trampoline(start, at, entry));
        Ok(Layout {
            parameters: bytes.0,
            start,
            cmdline,
            seed: Area { offset: seed as u64, size: SEED as u64 },
        })
    }

    /// Returns the part of `boot_params` that does not depend on any address.
    fn boot_params(&self) -> Vec<u8> {
        let (head, running) = (&self.kernel.head, &self.machine.running);
        let mut bytes = Bytes(vec![0; field::LENGTH]);
        let copy = |bytes: &mut Bytes, at: usize, length: usize| {
            bytes.put(at, running.get(at..at + length).unwrap_or_default());
        };
        // boot.rst, "Loading The Rest of The Kernel": from 0x1f1 to the end that the jump instruction gives.
        let end = field::MAGIC + usize::from(head.get(field::HEADER_END).copied().unwrap_or_default());
        let end = end.min(field::SIGNATURES).min(head.len());
        bytes.put(field::HEADER, head.get(field::HEADER..end).unwrap_or_default());
        bytes.put(field::LOADER, &[LOADER]);
        let flags =
            if self.kernel.decompressed.is_some_and(|decompressed| decompressed.random) { KASLR } else { 0 };
        bytes.put(field::FLAGS, &[flags]);
        for field in [field::INITRD, field::INITRD_SIZE, field::CMDLINE] {
            bytes.put(field, &[0; 4]);
        }
        bytes.put(field::SETUP_DATA, &[0; 8]);
        copy(&mut bytes, field::SUBARCH, 4);
        copy(&mut bytes, field::SCREEN, SCREEN_LENGTH);
        copy(&mut bytes, field::DISKS_COUNT, 1);
        copy(&mut bytes, field::DISKS, DISKS_LENGTH);
        copy(&mut bytes, field::SIGNATURES_COUNT, 1);
        copy(&mut bytes, field::SIGNATURES, SIGNATURES_LENGTH);
        bytes.put(field::ACPI, &self.machine.acpi.to_le_bytes());
        let kib = self.memory_above_1_mib();
        bytes.put(field::SCREEN_MEMORY, &u16::try_from(kib.min(0xfc00)).unwrap_or(0xfc00).to_le_bytes());
        bytes.put(field::MEMORY, &u32::try_from(kib).unwrap_or(u32::MAX).to_le_bytes());
        bytes.0
    }

    /// Returns, in KiB, how far the memory that begins at or below 1 MiB extends above that
    /// (`setup_boot_parameters`).
    fn memory_above_1_mib(&self) -> u64 {
        let ram =
            self.machine.map.iter().filter(|entry| kind(&entry.name) == Some(1)).map(|entry| entry.range);
        let mut across = ram.filter(|range| range.start <= LOWEST && range.end > LOWEST + 1);
        across.next_back().map_or(0, |range| ((range.end - 1) >> 10) - (LOWEST >> 10))
    }
}

/// A buffer with fields to fill in.
struct Bytes(Vec<u8>);

impl Bytes {
    /// Writes bytes at an offset.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Writes the lower half of a number at one offset, and its upper half at another.
    fn split(&mut self, low: usize, high: usize, number: u64) {
        let bytes = number.to_le_bytes();
        let (lower, upper) = bytes.split_at(4);
        self.put(low, lower);
        self.put(high, upper);
    }

    /// Appends bytes at the next multiple of 16, and returns their offset.
    fn append(&mut self, bytes: &[u8]) -> usize {
        let at = self.0.len().next_multiple_of(16);
        self.0.resize(at, 0);
        self.0.extend_from_slice(bytes);
        at
    }
}

/// A linked list of `setup_data`.
struct Nodes {
    /// The address of the parameters.
    at: u64,
    /// The address of the node added last, to which the next one links.
    last: u64,
}

impl Nodes {
    /// Adds a node, and returns the offset of its data.
    fn add(&mut self, bytes: &mut Bytes, kind: u32, data: &[u8]) -> usize {
        let length = u32::try_from(data.len()).unwrap_or_default();
        let node = [&self.last.to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes(), data].concat();
        let offset = bytes.append(&node);
        self.last = self.at + offset as u64;
        offset + NODE
    }
}

/// Encodes an entry of the memory map (`struct boot_e820_entry`).
fn map_entry(entry: &Entry) -> Result<Vec<u8>, Error> {
    let kind = kind(&entry.name).ok_or_else(|| {
        let name = quoted(&entry.name, 60);
        Error::Unfit(format!(
            "this kernel calls a part of the memory {name} (/sys/firmware/memmap), and how the next one is told of that is not \
             known; stage with --loader verified"
        ))
    })?;
    Ok([&entry.range.start.to_le_bytes()[..], &entry.range.size().to_le_bytes(), &kind.to_le_bytes()]
        .concat())
}

/// Returns the number for the kernel's name of a kind of memory (`e820_type_to_string`, arch/x86/kernel/e820.c;
/// before Linux 4.12 some names began in lower case); `None` for an unknown name.
fn kind(name: &str) -> Option<u32> {
    Some(match name {
        "System RAM" => 1,
        // The kernel leaves memory alone for which it has no name.
        "Reserved" | "reserved" | "Unknown E820 type" => 2,
        "ACPI Tables" => 3,
        "ACPI Non-volatile Storage" => 4,
        "Unusable memory" => 5,
        "Persistent Memory" => 7,
        "Persistent Memory (legacy)" => 12,
        "Soft Reserved" => 0xefff_ffff,
        _ => return None,
    })
}

/// Encodes a descriptor of EFI's map.
pub(super) fn descriptor(of: &Descriptor) -> impl Iterator<Item = u8> + use<> {
    let kind = u64::from(of.kind);
    [kind, of.physical, of.virt, of.pages, of.attribute].into_iter().flat_map(u64::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_memory_is_told_by_its_number() {
        let names = [
            "System RAM",
            "Reserved",
            "reserved",
            "ACPI Tables",
            "ACPI Non-volatile Storage",
            "Unusable memory",
            "Persistent Memory",
            "Persistent Memory (legacy)",
            "Soft Reserved",
            "Unknown E820 type",
            "Something new",
        ];
        let numbers = [1, 2, 2, 3, 4, 5, 7, 12, 0xefff_ffff, 2].map(Some);
        assert_eq!(names.map(kind), [&numbers[..], &[None]].concat()[..]);
    }
}
