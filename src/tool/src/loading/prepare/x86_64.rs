//! Preparing a load on `x86_64`, by the 64-bit boot protocol (Documentation/arch/x86/boot.rst). The next kernel
//! gets the same parameters as from `kexec_file_load` (`bzImage64_load`, arch/x86/kernel/kexec-bzimage64.c),
//! but no purgatory.
//!
//! The running kernel jumps with all memory mapped at its own address, interrupts off, and all registers zero
//! (`relocate_kernel`, `arch/x86/kernel/relocate_kernel_64.S`). The next one also needs the address of its
//! parameters in `rsi`, and the protocol's segments. The [`trampoline`] provides both.
//!
//! The parameters are one segment, in this order:
//!
//! | content | offset |
//! |---|---|
//! | `boot_params` | 0, one page |
//! | the command line, and room for its record | 4096 |
//! | `setup_data`: more of the memory map, EFI's addresses | behind that, each at a multiple of 16 |
//! | EFI's map of its own memory | behind that |
//! | `setup_data`: the seed | behind that |
//! | the trampoline, its stack | behind that |

use std::fs;

use nextkernel_plan::{Area, Part, Segment};

use super::memory_map::{self, Bounds, Descriptor, Entry, Memory, Pick, SETUP_E820_EXT};
use crate::image::bzimage::{self, ANYWHERE, EFI_KEXEC, FIVE_LEVELS, KERNEL_64};
use crate::image::cmdline;
use crate::loading::decompress::Thawed;
use crate::loading::prepare::parts::{Error, Parts, Prepared, Random};
use crate::machine::kconfig::Kconfig;
use crate::machine::root::Root;
use crate::machine::{efi, processor, sys};
use crate::words::little_endian::{long, short, wide};
use crate::words::quoted::quoted;
use crate::words::size::Size;

/// The page size in bytes.
const PAGE: u64 = 4096;

/// The running kernel's own boot parameters (Documentation/ABI/testing/sysfs-kernel-boot_params).
const RUNNING: &str = efi::BOOT_PARAMETERS;

/// The size of `struct boot_params` (arch/x86/include/uapi/asm/bootparam.h), and the offsets of its fields, in
/// the setup header and outside of it (zero-page.rst).
const LENGTH: usize = 4096;
mod at {
    pub(super) use crate::image::bzimage::*;
    pub(super) use crate::machine::efi::SECURE_BOOT;

    pub(super) const SCREEN: usize = 0x000;
    pub(super) const SCREEN_MEMORY: usize = 0x002;
    pub(super) const ACPI: usize = 0x070;
    pub(super) const INITRD_HIGH: usize = 0x0c0;
    pub(super) const INITRD_SIZE_HIGH: usize = 0x0c4;
    pub(super) const CMDLINE_HIGH: usize = 0x0c8;
    pub(super) const CONFIDENTIAL: usize = 0x13c;
    pub(super) const EFI: usize = 0x1c0;
    pub(super) const MEMORY: usize = 0x1e0;
    pub(super) use super::memory_map::E820_COUNT as MAP_COUNT;
    pub(super) const DISKS_COUNT: usize = 0x1e9;
    pub(super) const SIGNATURES_COUNT: usize = 0x1ea;
    pub(super) const HEADER: usize = 0x1f1;
    pub(super) const HEADER_END: usize = 0x201;
    pub(super) const LOADER: usize = 0x210;
    pub(super) const INITRD: usize = 0x218;
    pub(super) const INITRD_SIZE: usize = 0x21c;
    pub(super) const CMDLINE: usize = 0x228;
    pub(super) const RELOCATABLE: usize = 0x234;
    pub(super) const SUBARCH: usize = 0x23c;
    pub(super) const SETUP_DATA: usize = 0x250;
    pub(super) const SIGNATURES: usize = 0x290;
    pub(super) use super::memory_map::E820 as MAP;
    pub(super) const DISKS: usize = 0xd00;
}

/// The lengths of `struct screen_info`, of `edd_mbr_sig_buffer`, and of `eddbuf`, which has six of
/// `struct edd_info`.
const SCREEN_LENGTH: usize = 64;
const SIGNATURES_LENGTH: usize = 64;
const DISKS_LENGTH: usize = 6 * 82;

/// The number of memory map entries that fit into `boot_params`, and the length of one.
const MAP_ENTRIES: usize = 128;
const MAP_ENTRY: usize = 20;

/// The oldest boot protocol whose flags announce a 64-bit entry point, and the offset of that entry point.
const PROTOCOL: u16 = 0x020c;
const ENTRY: u64 = 0x200;

/// Bits of `loadflags`: the kernel lies above 1 MiB; the kernel was moved at random, and moves its own mappings
/// at random, too.
const LOADED_HIGH: u8 = 1 << 0;
const KASLR: u8 = 1 << 1;

/// `type_of_loader` of a kernel loaded by kexec, with either call.
const LOADER: u8 = 0xd0;

/// Types of `setup_data`.
const SETUP_EFI: u32 = 4;
const SETUP_RNG_SEED: u32 = 9;

/// The length of `struct setup_data` without its data.
const NODE: usize = 16;

/// The length of the seed (`RNG_SEED_LENGTH`).
const SEED: usize = 32;

/// The lowest addresses in use, in general and for an initrd. Low memory is left to those who need it, and
/// `kexec_file_load` leaves even more below an initrd.
const LOWEST: u64 = 1 << 20;
const INITRD_LOWEST: u64 = 16 << 20;

/// The kernel hands out memory above this address first, if there is any (`ZONE_NORMAL`,
/// `Documentation/mm/physical_memory.rst`). So the initrd goes below, if there is room. The gain is explained
/// in [`handed_out`](super::handed_out).
const LAST_HANDED_OUT: u64 = 4 << 30;

/// Of all the random places for a kernel, the memory to leave alone must leave this fraction, so that the place
/// cannot be guessed.
const FAIR_SHARE: u64 = 4;

/// The value of an unknown address (`EFI_INVALID_TABLE_ADDR`, include/linux/efi.h).
const UNKNOWN: u64 = u64::MAX;

/// The length of a descriptor in EFI's map, without any additions of the firmware.
const DESCRIPTOR: usize = 40;

/// Prepares a load.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    let kernel = Kernel::read(parts)?;
    let machine = Machine::read(parts.root)?;
    kernel.fits(&machine, parts)?;
    let mut random = Random::open(parts.root)?;
    let number =
        random.number().map_err(|error| Error::Unreadable { what: "/dev/urandom".to_owned(), error })?;
    let memory = Memory::usable(parts.root, PAGE)?;
    let initrd = parts.initrd.map(|file| super::parts::length(file, "the staged initrd")).transpose()?;
    let told = |initrd| Told { kernel: &kernel, machine: &machine, initrd, cmdline_room: parts.cmdline_room };
    // The length does not depend on the initrd's place.
    let length = told(initrd.map(|size| (0, size))).layout(0, 0)?.parameters.len() as u64;
    let asked = Asked { kernel: &kernel, initrd, parameters: length, cmdline: parts.cmdline, number };
    let places = super::parts::with_least_in_the_way(&memory, parts.avoided, |memory| asked.places(memory))?;

    let told = told(places.initrd.zip(initrd));
    let Layout { parameters, start, cmdline, seed } =
        told.layout(places.parameters, places.kernel + kernel.entry)?;
    let segment =
        |part, bytes, at, takes: u64| Segment { part, bytes, at, takes: takes.next_multiple_of(PAGE) };
    let all = |size| Area { offset: 0, size };
    let mut segments = vec![
        segment(Part::Kernel, kernel.bytes, places.kernel, kernel.takes),
        segment(Part::Parameters, all(length), places.parameters, length),
    ];
    if let (Some(at), Some(size)) = (places.initrd, initrd) {
        segments.push(segment(Part::Initrd, all(size), at, size));
    }
    // Small segments are loaded first. The kernel sets a page aside if it is the destination of a later
    // segment, and searches all the pages set aside for each further page.
    segments.sort_by_key(|segment| segment.takes);
    let thawed = parts.thawed.map(|thawed| thawed.notes.clone()).unwrap_or_default();
    let notes = thawed.into_iter().chain(machine.notes.iter().cloned()).collect();
    Ok(Prepared { parameters, start, segments, cmdline, seeds: vec![seed], notes })
}

/// The parts that need places.
struct Asked<'a> {
    kernel: &'a Kernel<'a>,
    /// The initrd's size in bytes.
    initrd: Option<u64>,
    /// The parameters' size in bytes.
    parameters: u64,
    cmdline: &'a str,
    /// A random number, for the kernel's place.
    number: u64,
}

/// The places found.
struct Places {
    kernel: u64,
    initrd: Option<u64>,
    parameters: u64,
}

impl Asked<'_> {
    /// Finds a place for each part.
    fn places(&self, mut memory: Memory) -> Result<Places, Error> {
        let below = memory_limit(self.cmdline);
        let (bounds, choice) = self.kernel.place(self.cmdline);
        let bounds = Bounds { high: bounds.high.min(below), ..bounds };
        let takes = self.kernel.takes;
        let no_kernel = || no_place("the kernel", takes);
        let (kernel, initrd) = if choice == Choice::Random {
            // The kernel is placed around the initrd, as its own code would do it.
            let initrd = self.initrd(&mut memory)?;
            let (left, all) = memory.places(takes, bounds);
            if left < all / FAIR_SHARE {
                return Err(no_kernel());
            }
            let kernel = memory.take(takes, bounds, Pick::Random(self.number));
            (kernel.ok_or_else(no_kernel)?, initrd)
        } else {
            // The kernel is placed first, even in memory to leave alone, so that nothing else affects its
            // place.
            let pick = if choice == Choice::Highest { Pick::Highest } else { Pick::Lowest };
            let kernel = memory.take_anywhere(takes, bounds, pick).ok_or_else(no_kernel)?;
            (kernel, self.initrd(&mut memory)?)
        };
        let bounds = Bounds { low: LOWEST, high: below, ..Bounds::default() };
        let parameters = memory.take(self.parameters, bounds, Pick::Highest);
        let parameters = parameters.ok_or_else(|| no_place("its parameters", self.parameters))?;
        Ok(Places { kernel, initrd, parameters })
    }

    fn initrd(&self, memory: &mut Memory) -> Result<Option<u64>, Error> {
        let Some(size) = self.initrd else { return Ok(None) };
        let below = memory_limit(self.cmdline);
        let mut highs = [below.min(LAST_HANDED_OUT), below].into_iter();
        let at = highs.find_map(|high| {
            let bounds = Bounds { low: INITRD_LOWEST, high, ..Bounds::default() };
            memory.take(size, bounds, Pick::Highest)
        });
        at.map(Some).ok_or_else(|| no_place("the initrd", size))
    }
}

fn no_place(what: &str, size: u64) -> Error {
    Error::Unfit(format!(
        "there is no place for {what}: nowhere in this machine's memory are {} together that nothing else is said to \
         be in; stage with --loader verified",
        Size(size)
    ))
}

/// Returns the limit of the memory that the next kernel will use, from its command line (`parse_memopt`,
/// arch/x86/kernel/e820.c).
fn memory_limit(cmdline: &str) -> u64 {
    let Some(text) = cmdline::value(cmdline, "mem") else { return u64::MAX };
    bytes_in(text).filter(|limit| *limit > 0).unwrap_or(u64::MAX)
}

/// Parses a number like the kernel's `memparse`: decimal, or hexadecimal behind `0x`, with an optional unit.
fn bytes_in(text: &str) -> Option<u64> {
    let (radix, digits) = text.strip_prefix("0x").map_or((10, text), |digits| (16, digits));
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (number, unit) = digits.split_at_checked(end)?;
    let shift = match unit.bytes().next().map(|unit| unit.to_ascii_uppercase()) {
        None => 0,
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(_) => return None,
    };
    u64::from_str_radix(number, radix).ok()?.checked_mul(1 << shift)
}

/// The choice among a kernel's possible places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Random,
    Highest,
    Lowest,
}

/// The kernel as it will be loaded.
struct Kernel<'a> {
    /// The first bytes of its image, with the setup header.
    head: Vec<u8>,
    /// The loaded part of its file.
    bytes: Area,
    takes: u64,
    /// The offset of the first instruction in that part.
    entry: u64,
    thawed: Option<&'a Thawed>,
}

impl<'a> Kernel<'a> {
    /// Reads the kernel's header, and refuses a kernel that cannot be started this way.
    fn read(parts: &Parts<'a>) -> Result<Kernel<'a>, Error> {
        const WHAT: &str = "the staged kernel";
        let size = crate::loading::prepare::parts::length(parts.kernel, WHAT)?;
        if let Some(thawed) = parts.thawed {
            let bytes = Area { offset: 0, size };
            let (head, takes) = (thawed.head.clone(), thawed.takes.max(size));
            return Ok(Kernel { head, bytes, takes, entry: thawed.entry, thawed: Some(thawed) });
        }
        let head = crate::loading::prepare::parts::head(parts.kernel, WHAT, LENGTH)?;
        see_that_it_is_one(&head)?;
        let offset = bzimage::real_mode(&head);
        let size = size.checked_sub(offset).filter(|size| *size > ENTRY);
        let size = size.ok_or_else(|| unfit("it is cut off behind its first sectors; install it again"))?;
        let takes = u64::from(long(&head, at::INIT_SIZE)).max(size);
        Ok(Kernel { head, bytes: Area { offset, size }, takes, entry: ENTRY, thawed: None })
    }

    /// Checks the kernel against this machine's requirements.
    fn fits(&self, machine: &Machine, parts: &Parts<'_>) -> Result<(), Error> {
        let flags = short(&self.head, at::XFLAGS);
        if machine.five_levels && flags & FIVE_LEVELS == 0 {
            return Err(unfit(
                "this kernel uses five levels of page tables, and it was built without (CONFIG_X86_5LEVEL); stage one \
                 that has them, or start this kernel with no5lvl",
            ));
        }
        if machine.efi.is_some() && flags & EFI_KEXEC == 0 {
            return Err(unfit(
                "this machine has UEFI, and it cannot take that over from a kernel before it (XLF_EFI_KEXEC); stage \
                 another kernel",
            ));
        }
        let most = u64::from(long(&self.head, at::CMDLINE_MAX));
        if parts.cmdline_room > most.saturating_add(1) {
            return Err(unfit(format!(
                "it takes {most} bytes of command line, and with the handoff's record there are up to {}; leave \
                 something out",
                parts.cmdline_room.saturating_sub(1)
            )));
        }
        Ok(())
    }

    /// Returns the bounds of the kernel's place, and the choice within them.
    ///
    /// A kernel that unpacks itself then moves itself to a random place. It does not if it gets EFI's map from
    /// a kernel before it, because nothing in that map counts as free (`process_efi_entries`,
    /// arch/x86/boot/compressed/kaslr.c). Therefore its first place is a random one, too. With `nokaslr`, or
    /// with memory options that are not evaluated here, it is the highest, as with `kexec_file_load`.
    ///
    /// A decompressed kernel gets the place that its own code would choose: a random one. With such memory
    /// options it is the nearest one to the address that the kernel was linked for, and likewise without KASLR.
    fn place(&self, line: &str) -> (Bounds, Choice) {
        let align = u64::from(long(&self.head, at::ALIGNMENT)).next_power_of_two().max(PAGE);
        let says_more = ["memmap", "movable_node", "hugepages", "hugepagesz"];
        let is_free = says_more.iter().all(|name| cmdline::value(line, name).is_none());
        match self.thawed {
            Some(thawed) if self.head.get(at::RELOCATABLE) == Some(&0) => {
                let high = thawed.linked.saturating_add(self.takes.next_multiple_of(PAGE));
                (Bounds { align: PAGE, low: thawed.linked, high }, Choice::Lowest)
            }
            Some(thawed) => {
                let bounds = Bounds { align, low: thawed.linked.max(LOWEST), high: u64::MAX };
                (bounds, if thawed.random && is_free { Choice::Random } else { Choice::Lowest })
            }
            None => {
                let low = wide(&self.head, at::PREFERRED).max(LOWEST);
                let is_fixed = cmdline::value(line, "nokaslr").is_some() || !is_free;
                let choice = if is_fixed { Choice::Highest } else { Choice::Random };
                (Bounds { align, low, high: u64::MAX }, choice)
            }
        }
    }
}

fn unfit(why: impl Into<String>) -> Error {
    Error::Unfit(format!("the kernel cannot be loaded by segments: {}", why.into()))
}

/// Checks that a file with this head is a bzImage that can be started in 64-bit mode at any address.
fn see_that_it_is_one(head: &[u8]) -> Result<(), Error> {
    let flags = short(head, at::XFLAGS);
    let why = if head.starts_with(b"\x7fELF") {
        "it is an ELF file, which has to be laid out first; stage with --thaw"
    } else if !bzimage::is_one(head) {
        "it is no bzImage; stage with --loader verified"
    } else if short(head, at::VERSION) < PROTOCOL {
        "its boot protocol is older than 2.12, that of Linux 3.8; stage another kernel"
    } else if head.get(at::FLAGS).is_none_or(|flags| flags & LOADED_HIGH == 0) {
        "it is a zImage, which lies in low memory; stage another kernel"
    } else if flags & KERNEL_64 == 0 {
        "it is a 32-bit kernel, and this one starts 64-bit ones alone; stage one of these"
    } else if flags & ANYWHERE == 0 {
        "it must lie below 4 GiB (it was built without CONFIG_RELOCATABLE, or for mixed-mode UEFI), and so must all \
         that it is told; stage with --loader verified to hear what this kernel says to it"
    } else {
        return Ok(());
    };
    Err(unfit(why))
}

/// The running kernel's knowledge of the machine that the next one needs.
#[derive(Clone, Debug)]
struct Machine {
    /// The running kernel's own boot parameters.
    running: Vec<u8>,
    /// The firmware's memory map.
    map: Vec<Entry>,
    efi: Option<Efi>,
    /// The address of the root of the ACPI tables, or 0.
    acpi: u64,
    /// Whether the running kernel uses five levels of page tables.
    five_levels: bool,
    /// Notes for the user.
    notes: Vec<String>,
}

/// The running kernel's knowledge of UEFI.
#[derive(Clone, Debug)]
struct Efi {
    map: Vec<Descriptor>,
    vendor: u64,
    runtime: u64,
    tables: u64,
    smbios: u64,
}

impl Machine {
    fn read(root: &Root) -> Result<Machine, Error> {
        let unreadable = |error| Error::Unreadable { what: RUNNING.to_owned(), error };
        let mut running = fs::read(root.path(RUNNING)).map_err(unreadable)?;
        running.resize(LENGTH, 0);
        see_that_memory_is_plain(root, &running)?;
        let map = memory_map::of_firmware(root)?.ok_or_else(|| {
            Error::Unfit(
                "this kernel does not tell what its firmware said of memory (/sys/firmware/memmap, \
                 CONFIG_FIRMWARE_MEMMAP), and the next one has to be told; stage with --loader verified"
                    .to_owned(),
            )
        })?;
        let acpi = match wide(&running, at::ACPI) {
            0 => efi::acpi_root(root).and_then(|text| memory_map::hex(text.trim_ascii())).unwrap_or(0),
            known => known,
        };
        let (efi, note) = Efi::read(root, &running)?;
        Ok(Machine {
            map,
            efi,
            acpi,
            five_levels: processor::uses_five_levels(root),
            notes: note.into_iter().collect(),
            running,
        })
    }
}

impl Efi {
    /// Reads it as `kexec_file_load` does (`setup_efi_state`). If the running kernel does not use EFI's runtime
    /// services (efi=noruntime), the next one learns nothing of EFI except the address of the ACPI tables.
    fn read(root: &Root, running: &[u8]) -> Result<(Option<Efi>, Option<String>), Error> {
        const FOLDER: &str = "/sys/firmware/efi";
        if !root.path(FOLDER).is_dir() {
            return Ok((None, None));
        }
        let map = memory_map::of_efi(root)?;
        let had = long(running, at::EFI + 20) != 0;
        if map.is_empty() || !had {
            let note = "this kernel does not use UEFI's runtime, so the next one will know nothing of UEFI either: no \
                        efivars, but the ACPI tables, as with the kernel's own loader";
            return Ok((None, Some(note.to_owned())));
        }
        if root.fact("/sys/firmware/efi/fw_platform_size").as_deref() == Some("32") {
            return Err(unfit("the firmware is 32-bit UEFI, which no next kernel takes over; use `reboot`"));
        }
        let address = |name: &str| {
            root.fact(&format!("{FOLDER}/{name}")).and_then(|text| memory_map::hex(text.trim_ascii()))
        };
        let systab = efi::table(root, "SMBIOS").and_then(|text| memory_map::hex(text.trim_ascii()));
        let efi = Efi {
            map,
            vendor: address("fw_vendor").unwrap_or(UNKNOWN),
            runtime: address("runtime").unwrap_or(0),
            tables: address("config_table").unwrap_or(UNKNOWN),
            smbios: systab.unwrap_or(UNKNOWN),
        };
        Ok((Some(efi), None))
    }
}

/// Refuses a machine with encrypted memory, because loading and jumping depend on the kind of encryption, and
/// `kexec_load` was never tried with it. A guest with encrypted memory is recognized by the processor's flags
/// (TDX), by the address of the data that its firmware left (SEV-SNP), and by CPUID 0x8000001f (SEV), which no
/// other guest sees.
fn see_that_memory_is_plain(root: &Root, running: &[u8]) -> Result<(), Error> {
    let flags = processor::flags(root);
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let line = cmdline::running(root).unwrap_or_default();
    let is_sev = || {
        root.is_system()
            && has("hypervisor")
            && sys::cpuid(0x8000_001f, 0).is_some_and(|[eax, ..]| eax & 2 != 0)
    };
    let is_sme = || match cmdline::value(&line, "mem_encrypt") {
        Some("on") => true,
        Some(_) => false,
        None => has("sme") && Kconfig::find(root).is_some_and(|k| k.has("AMD_MEM_ENCRYPT_ACTIVE_BY_DEFAULT")),
    };
    let kind = if has("tdx_guest") {
        "TDX"
    } else if long(running, at::CONFIDENTIAL) != 0 || is_sev() {
        "SEV"
    } else if is_sme() {
        "SME"
    } else {
        return Ok(());
    };
    Err(Error::Unfit(format!(
        "this machine's memory is encrypted ({kind}), which loading by segments was never tried with; stage with \
         --loader verified"
    )))
}

/// The input of the parameters for the next kernel.
struct Told<'a> {
    kernel: &'a Kernel<'a>,
    machine: &'a Machine,
    /// The initrd's address and length.
    initrd: Option<(u64, u64)>,
    cmdline_room: u64,
}

/// The parameters as bytes.
struct Layout {
    parameters: Vec<u8>,
    start: u64,
    cmdline: Area,
    seed: Area,
}

impl Told<'_> {
    /// Lays the parameters out for the address `at`; their length does not depend on it.
    fn layout(&self, at: u64, entry: u64) -> Result<Layout, Error> {
        let Told { machine, initrd, cmdline_room, .. } = *self;
        let mut bytes = Bytes(self.boot_params());
        let cmdline = Area { offset: LENGTH as u64, size: cmdline_room.max(1) };
        let room = usize::try_from(cmdline.size).map_err(|_| unfit("its command line is too long"))?;
        bytes.append(&vec![0; room]);
        bytes.split(at::CMDLINE, at::CMDLINE_HIGH, at + cmdline.offset);
        if let Some((initrd, size)) = initrd {
            bytes.split(at::INITRD, at::INITRD_HIGH, initrd);
            bytes.split(at::INITRD_SIZE, at::INITRD_SIZE_HIGH, size);
        }
        let map = machine.map.iter().map(map_entry).collect::<Result<Vec<_>, _>>()?.concat();
        let (first, more) = map.split_at_checked(MAP_ENTRIES * MAP_ENTRY).unwrap_or((&map, &[]));
        let count = u8::try_from(first.len() / MAP_ENTRY).unwrap_or(u8::MAX);
        bytes.put(at::MAP_COUNT, &[count]);
        bytes.put(at::MAP, first);
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
            bytes.put(at::EFI, machine.running.get(at::EFI..at::EFI + 8).unwrap_or_default());
            bytes.put(at::EFI + 8, &u32::try_from(DESCRIPTOR).unwrap_or_default().to_le_bytes());
            bytes.put(at::EFI + 12, machine.running.get(at::EFI + 12..at::EFI + 16).unwrap_or_default());
            bytes.split(at::EFI + 16, at::EFI + 28, at + offset as u64);
            bytes.put(at::EFI + 20, &u32::try_from(map.len()).unwrap_or_default().to_le_bytes());
            bytes.put(at::EFI + 24, machine.running.get(at::EFI + 24..at::EFI + 28).unwrap_or_default());
            bytes.put(
                at::SECURE_BOOT,
                machine.running.get(at::SECURE_BOOT..=at::SECURE_BOOT).unwrap_or_default(),
            );
        }
        let seed = nodes.add(&mut bytes, SETUP_RNG_SEED, &[0; SEED]);
        bytes.put(at::SETUP_DATA, &nodes.last.to_le_bytes());
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
        let mut bytes = Bytes(vec![0; LENGTH]);
        let copy = |bytes: &mut Bytes, at: usize, length: usize| {
            bytes.put(at, running.get(at..at + length).unwrap_or_default());
        };
        // boot.rst, "Loading The Rest of The Kernel": from 0x1f1 to the end that the jump instruction gives.
        let end = at::MAGIC + usize::from(head.get(at::HEADER_END).copied().unwrap_or_default());
        let end = end.min(at::SIGNATURES).min(head.len());
        bytes.put(at::HEADER, head.get(at::HEADER..end).unwrap_or_default());
        bytes.put(at::LOADER, &[LOADER]);
        let flags = if self.kernel.thawed.is_some_and(|thawed| thawed.random) { KASLR } else { 0 };
        bytes.put(at::FLAGS, &[flags]);
        for field in [at::INITRD, at::INITRD_SIZE, at::CMDLINE] {
            bytes.put(field, &[0; 4]);
        }
        bytes.put(at::SETUP_DATA, &[0; 8]);
        copy(&mut bytes, at::SUBARCH, 4);
        copy(&mut bytes, at::SCREEN, SCREEN_LENGTH);
        copy(&mut bytes, at::DISKS_COUNT, 1);
        copy(&mut bytes, at::DISKS, DISKS_LENGTH);
        copy(&mut bytes, at::SIGNATURES_COUNT, 1);
        copy(&mut bytes, at::SIGNATURES, SIGNATURES_LENGTH);
        bytes.put(at::ACPI, &self.machine.acpi.to_le_bytes());
        let kib = self.memory_above_1_mib();
        bytes.put(at::SCREEN_MEMORY, &u16::try_from(kib.min(0xfc00)).unwrap_or(0xfc00).to_le_bytes());
        bytes.put(at::MEMORY, &u32::try_from(kib).unwrap_or(u32::MAX).to_le_bytes());
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
fn descriptor(of: &Descriptor) -> impl Iterator<Item = u8> + use<> {
    let kind = u64::from(of.kind);
    [kind, of.physical, of.virt, of.pages, of.attribute].into_iter().flat_map(u64::to_le_bytes)
}

/// Returns the first instructions of the handoff, for their address: they set the segments and `rsi`, and jump.
/// Behind them are the segments' descriptor table (boot.rst, "64-bit Boot Protocol": `__BOOT_CS` 0x10, execute
/// and read; `__BOOT_DS` 0x18, read and write), and a stack.
fn trampoline(at: u64, boot_params: u64, entry: u64) -> Vec<u8> {
    /// The length of the instructions, and the offsets of the table and of the stack's top.
    const CODE: u8 = 0x38;
    const TABLE: u8 = CODE + 10;
    const STACK_TOP: u8 = (TABLE + 32).next_multiple_of(8) + 64;
    let mut code = Vec::new();
    code.extend([0xfa]); //                                       0x00 cli
    code.extend([0xfc]); //                                       0x01 cld
    code.extend([0x0f, 0x01, 0x15, CODE - 0x09, 0, 0, 0]); //     0x02 lgdt [rip + CODE - 9]
    code.extend([0xb8, 0x18, 0, 0, 0]); //                        0x09 mov eax, 0x18
    code.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); //         0x0e mov ds, eax; mov es, eax; mov ss, eax
    code.extend([0x8e, 0xe0, 0x8e, 0xe8]); //                     0x14 mov fs, eax; mov gs, eax
    code.extend([0x48, 0x8d, 0x25, STACK_TOP - 0x1f, 0, 0, 0]); // 0x18 lea rsp, [rip + STACK_TOP - 0x1f]
    code.extend([0x48, 0xbe]); //                                 0x1f mov rsi, boot_params
    code.extend(boot_params.to_le_bytes()); //                    0x21
    code.extend([0x48, 0xb8]); //                                 0x29 mov rax, entry
    code.extend(entry.to_le_bytes()); //                          0x2b
    code.extend([0x6a, 0x10]); //                                 0x33 push 0x10
    code.extend([0x50]); //                                       0x35 push rax
    code.extend([0x48, 0xcb]); //                                 0x36 retfq
    // The operand of `lgdt`: the offset of the table's last byte, and the table's address.
    code.extend([31, 0]);
    code.extend((at + u64::from(TABLE)).to_le_bytes());
    // The table: empty at 0 and 8, 64-bit code at 0x10, data at 0x18.
    for entry in [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff_u64] {
        code.extend(entry.to_le_bytes());
    }
    code.resize(usize::from(STACK_TOP), 0);
    code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::loading::prepare;
    use crate::loading::prepare::memory_map::Range;
    use crate::loading::prepare::memory_map::tests::{
        FIRMWARE_ENTRIES, IOMEM_TEXT, put_firmware, put_runtime, told,
    };
    use crate::machine::scratch::Scratch;
    use std::collections::BTreeSet;
    use std::fs::File;

    const MIB: u64 = 1 << 20;

    /// A QEMU guest with 1 GiB, and with boot parameters of its own.
    fn machine() -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", IOMEM_TEXT);
        scratch.put("/proc/cpuinfo", "processor: 0\nflags\t\t: fpu lm\n");
        scratch.put("/proc/cmdline", "quiet\n");
        scratch.put("/proc/meminfo", "MemTotal: 1000000 kB\n");
        scratch.put("/dev/urandom", &"12345678".repeat(9));
        put_firmware(&scratch, &FIRMWARE_ENTRIES);
        put_running(&scratch, &[]);
        scratch
    }

    /// Writes the running kernel's boot parameters: the value of each byte is its offset, except for some
    /// fields.
    fn put_running(scratch: &Scratch, fields: &[(usize, &[u8])]) {
        let mut bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251).to_le_bytes()[0]).collect();
        let map = told(&FIRMWARE_ENTRIES);
        let count = [u8::try_from(FIRMWARE_ENTRIES.len()).unwrap()];
        for (at, value) in [
            (at::CONFIDENTIAL, &[0; 4][..]),
            (at::MAP_COUNT, &count),
            (at::MAP, &map),
            (at::ACPI, &[0xd0, 0x59, 0x0f, 0, 0, 0, 0, 0]),
        ]
        .iter()
        .chain(fields)
        {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        scratch.put(RUNNING, "");
        fs::write(scratch.root.path(RUNNING), bytes).unwrap();
    }

    fn put_efi(scratch: &Scratch) -> [Descriptor; 2] {
        let code = Descriptor {
            kind: 5,
            physical: 0x2000_0000,
            virt: 0xffff_fffe_ff00_0000,
            pages: 3,
            attribute: 1 << 63 | 0xf,
        };
        let data = Descriptor {
            kind: 6,
            physical: 0x1000_0000,
            virt: 0xffff_fffe_fe00_0000,
            pages: 2,
            attribute: 1 << 63,
        };
        put_runtime(scratch, &[code, data]);
        for (file, text) in [
            ("fw_vendor", "0x2f91c818\n"),
            ("config_table", "0x2f9ecc98\n"),
            ("fw_platform_size", "64\n"),
            ("systab", "ACPI20=0x2fb7e014\nACPI=0x2fb7e000\nSMBIOS=0x2f918000\n"),
        ] {
            scratch.put(&format!("/sys/firmware/efi/{file}"), text);
        }
        [code, data]
    }

    /// Makes a bzImage with these fields, whose protected-mode part has that length and takes 48 MiB.
    fn image(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes: Vec<u8> = vec![0xee; 5 * 512 + length];
        let own: [(usize, &[u8]); 15] = [
            (at::SETUP_SECTORS, &[4]),
            (at::BOOT_FLAG, &[0x55, 0xaa]),
            (0x200, &[0xeb, 0x6a]),
            (at::MAGIC, b"HdrS"),
            (at::VERSION, &[0x0f, 0x02]),
            (at::FLAGS, &[LOADED_HIGH]),
            (at::ALIGNMENT, &(2_u32 << 20).to_le_bytes()),
            (at::RELOCATABLE, &[1]),
            (at::XFLAGS, &0x3f_u16.to_le_bytes()),
            (at::CMDLINE_MAX, &2047_u32.to_le_bytes()),
            (at::SETUP_DATA, &[0xbb; 8]),
            (at::PREFERRED, &(16 * MIB).to_le_bytes()),
            (at::INIT_SIZE, &(48_u32 << 20).to_le_bytes()),
            (at::HEADER_END, &[0x6a]),
            (0x26c, &[0xcc; 4]),
        ];
        for (at, value) in own.iter().chain(fields) {
            bytes[*at..at + value.len()].copy_from_slice(value);
        }
        bytes
    }

    fn file(scratch: &Scratch, name: &str, bytes: &[u8]) -> File {
        let path = scratch.root.path(format!("/run/{name}"));
        fs::write(&path, bytes).unwrap();
        File::open(path).unwrap()
    }

    fn prepared(
        scratch: &Scratch,
        kernel: &[u8],
        thawed: Option<&Thawed>,
        cmdline: &str,
    ) -> Result<Prepared, String> {
        prepared_avoiding(scratch, kernel, thawed, cmdline, &[])
    }

    fn prepared_avoiding(
        scratch: &Scratch,
        kernel: &[u8],
        thawed: Option<&Thawed>,
        cmdline: &str,
        avoided: &[Range],
    ) -> Result<Prepared, String> {
        let (kernel, initrd) = (file(scratch, "kernel", kernel), file(scratch, "initrd", &[7; 5000]));
        let parts = Parts {
            root: &scratch.root,
            kernel: &kernel,
            thawed,
            initrd: Some(&initrd),
            cmdline,
            cmdline_room: cmdline.len() as u64 + 129,
            avoided,
        };
        prepare::of("x86_64", &parts).map_err(|error| error.to_string())
    }

    fn of(prepared: &Prepared, part: Part) -> Segment {
        *prepared.segments.iter().find(|segment| segment.part == part).unwrap()
    }

    /// Returns the nodes of `setup_data`: the type, the offset of the data in the parameters, and its length.
    fn nodes(prepared: &Prepared) -> Vec<(u32, usize, u32)> {
        let (bytes, base) = (&prepared.parameters, of(prepared, Part::Parameters).at);
        let (mut next, mut nodes) = (wide(bytes, at::SETUP_DATA), Vec::new());
        while next != 0 {
            let at = usize::try_from(next - base).unwrap();
            nodes.push((long(bytes, at + 8), at + 16, long(bytes, at + 12)));
            next = wide(bytes, at);
        }
        nodes
    }

    #[test]
    fn a_kernel_gets_what_its_own_machine_knows_and_what_it_says_of_itself() {
        let scratch = machine();
        let is = prepared(&scratch, &image(100_000, &[]), None, "quiet").unwrap();
        let [kernel, initrd, parameters] =
            [Part::Kernel, Part::Initrd, Part::Parameters].map(|part| of(&is, part));
        assert_eq!(kernel.bytes, Area { offset: 2560, size: 100_000 });
        assert_eq!((kernel.takes, kernel.at % (2 * MIB)), (48 * MIB, 0));
        assert_eq!((initrd.bytes.size, initrd.takes), (5000, 8192));
        assert_eq!(parameters.bytes.size, is.parameters.len() as u64);
        let bytes = &is.parameters;
        // The setup header up to its very end, and nothing from behind it or before it.
        assert_eq!((&bytes[at::MAGIC..at::MAGIC + 4], &bytes[0x264..0x26c]), (&b"HdrS"[..], &[0xee; 8][..]));
        assert!(bytes[0x26c..at::SIGNATURES].iter().all(|byte| *byte == 0));
        assert_eq!((bytes[at::LOADER], bytes[at::FLAGS]), (LOADER, 0));
        // The running kernel's own parameters, as far as they still hold.
        for (at, length) in
            [(at::SCREEN + 4, 60), (at::SUBARCH, 4), (at::DISKS, DISKS_LENGTH), (at::SIGNATURES, 64)]
        {
            assert!((at..at + length).all(|at| usize::from(bytes[at]) == at % 251), "{at:#x}");
        }
        assert!(bytes[0x40..at::ACPI].iter().all(|byte| *byte == 0));
        assert_eq!(wide(bytes, at::ACPI), 0xf_59d0);
        // The memory's last byte is 0x3ffdbfff.
        assert_eq!(
            (short(bytes, at::SCREEN_MEMORY), long(bytes, at::MEMORY)),
            (0xfc00, (0x3ffd_bfff >> 10) - 1024)
        );
        assert_eq!(
            (long(bytes, at::INITRD), long(bytes, at::INITRD_SIZE)),
            (u32::try_from(initrd.at).unwrap(), 5000)
        );
        assert_eq!(u64::from(long(bytes, at::CMDLINE)), parameters.at + is.cmdline.offset);
        assert_eq!(is.cmdline.size, 134);
        assert_eq!(bytes[at::MAP_COUNT], 5);
        assert_eq!(map_entry_at(bytes, at::MAP + 3 * MAP_ENTRY), (0x10_0000, 0x3fed_c000, 1));
        // Without EFI there is only the seed.
        assert_eq!(nodes(&is), [(SETUP_RNG_SEED, usize::try_from(is.seeds[0].offset).unwrap(), 32)]);
        assert!(bytes[at::EFI..at::EFI + 32].iter().all(|byte| *byte == 0));
        assert!(is.notes.is_empty());
    }

    fn map_entry_at(bytes: &[u8], at: usize) -> (u64, u64, u32) {
        (wide(bytes, at), wide(bytes, at + 8), long(bytes, at + 16))
    }

    #[test]
    fn nothing_lies_across_anything_else_or_outside_of_memory() {
        let scratch = machine();
        let free = Memory::usable(&scratch.root, PAGE).unwrap();
        for seed in ["12345678", "........", "zzzzzzzz", "\0\0\0\0\0\0\0\0", "~~~~~~~~"] {
            scratch.put("/dev/urandom", &seed.repeat(2));
            for line in ["quiet", "nokaslr", "mem=512M", "memmap=1M$2M"] {
                let is = prepared(&scratch, &image(100_000, &[]), None, line).unwrap();
                let mut end = LOWEST;
                assert!(is.segments.is_sorted_by_key(|segment| segment.takes), "{line}");
                let mut segments = is.segments.clone();
                segments.sort_by_key(|segment| segment.at);
                for segment in &segments {
                    assert!(segment.at >= end && segment.at % PAGE == 0 && segment.takes % PAGE == 0);
                    end = segment.at + segment.takes;
                    let holds = |range: &memory_map::Range| range.start <= segment.at && end <= range.end;
                    assert!(free.free().iter().any(holds), "{line} {segment}");
                    assert!(line != "mem=512M" || end <= 512 * MIB);
                }
            }
        }
    }

    #[test]
    fn an_initrd_lies_where_memory_is_handed_out_last_if_there_is_room() {
        for (low_end, is_below) in [(0xbfff_ffff, true), (0xff_ffff, false)] {
            let scratch = machine();
            let high_end = 0x1_3fff_ffff;
            let iomem = format!("00100000-{low_end:08x} : System RAM\n100000000-{high_end:x} : System RAM\n");
            scratch.put("/proc/iomem", &iomem);
            put_firmware(&scratch, &[(0x10_0000, low_end, "System RAM"), (1 << 32, high_end, "System RAM")]);
            put_running(&scratch, &[(at::MAP_COUNT, &[0])]);
            let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
            assert_eq!(of(&is, Part::Initrd).at < LAST_HANDED_OUT, is_below);
        }
    }

    #[test]
    fn a_kernel_lies_somewhere_at_random_unless_its_command_line_is_against_it() {
        let scratch = machine();
        let mut places = Vec::new();
        for (seed, line) in
            [("aaaaaaaa", ""), ("bbbbbbbb", ""), ("aaaaaaaa", "nokaslr"), ("bbbbbbbb", "nokaslr")]
        {
            scratch.put("/dev/urandom", &seed.repeat(2));
            places.push(of(&prepared(&scratch, &image(9000, &[]), None, line).unwrap(), Part::Kernel).at);
        }
        assert_ne!(places[0], places[1]);
        assert_eq!((places[2], places[3]), (974 * MIB, 974 * MIB));
    }

    fn thawed(random: bool) -> Thawed {
        let head = image(0, &[])[..at::SIGNATURES].to_vec();
        Thawed {
            head,
            takes: 6 * MIB,
            entry: 0xc43,
            linked: 16 * MIB,
            moved: 90 * MIB,
            random,
            notes: vec!["note".to_owned()],
        }
    }

    #[test]
    fn what_is_handed_out_is_left_alone_and_a_kernels_place_stays_hard_to_guess() {
        let scratch = machine();
        let blocks = |numbers: std::ops::Range<u64>, step: usize| -> Vec<_> {
            let blocks = numbers.step_by(step);
            blocks.map(|number| Range { start: number * 2 * MIB, end: (number + 1) * 2 * MIB }).collect()
        };
        let places = |avoided: &[Range]| -> (BTreeSet<u64>, u64) {
            let mut kernels = BTreeSet::new();
            let mut initrd = 0;
            for seed in 0..64_u64 {
                // Numbers that are far apart.
                let number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().repeat(2);
                fs::write(scratch.root.path("/dev/urandom"), number).unwrap();
                let is = prepared_avoiding(&scratch, &[7; 5000], Some(&thawed(true)), "", avoided).unwrap();
                kernels.insert(of(&is, Part::Kernel).at);
                initrd = of(&is, Part::Initrd).at;
            }
            (kernels, initrd)
        };
        let anywhere = places(&[]).0.len();
        // All free memory is to be left alone, except for 200 to 600 MiB.
        let (kernels, initrd) = places(&[blocks(0..100, 1), blocks(300..512, 1)].concat());
        assert!(kernels.iter().all(|at| (200 * MIB..=594 * MIB).contains(at)), "{kernels:x?}");
        assert!((200 * MIB..600 * MIB).contains(&initrd), "{initrd:x}");
        // No 6 MiB in a row remain. Then less is left alone, and never so much that only few places remain.
        for avoided in [blocks(0..512, 2), blocks(0..470, 1)] {
            let (kernels, _) = places(&avoided);
            assert!(kernels.len() > anywhere / 3, "{} of {anywhere}", kernels.len());
        }
        // A place that must be the lowest, because the command line's reservations are unknown, stays the
        // lowest.
        let lowest =
            prepared_avoiding(&scratch, &[7; 5000], Some(&thawed(true)), "memmap=x", &blocks(0..100, 1));
        assert_eq!(of(&lowest.unwrap(), Part::Kernel).at, 16 * MIB);
    }

    #[test]
    fn a_thawed_kernel_is_entered_where_it_says_and_told_that_it_was_moved() {
        let scratch = machine();
        for (random, line, flags) in [(true, "", KASLR), (false, "nokaslr", 0)] {
            let is = prepared(&scratch, &[9; 9000], Some(&thawed(random)), line).unwrap();
            let kernel = of(&is, Part::Kernel);
            assert_eq!((kernel.bytes, kernel.takes), (Area { offset: 0, size: 9000 }, 6 * MIB));
            assert_eq!(is.parameters[at::FLAGS], flags);
            assert_eq!(kernel.at == 16 * MIB, !random);
            assert_eq!(entered(&is), kernel.at + 0xc43);
            assert_eq!(is.notes, ["note"]);
        }
        // With unknown memory options on its command line, the kernel lies at the address that it was linked
        // for.
        let is = prepared(&scratch, &[9; 9000], Some(&thawed(true)), "movable_node").unwrap();
        assert_eq!((of(&is, Part::Kernel).at, is.parameters[at::FLAGS]), (16 * MIB, KASLR));
    }

    #[test]
    fn one_that_cannot_be_anywhere_lies_where_it_was_linked_for_or_nowhere() {
        let scratch = machine();
        let mut elf = thawed(false);
        elf.head[at::RELOCATABLE] = 0;
        assert_eq!(of(&prepared(&scratch, &[9; 9000], Some(&elf), "").unwrap(), Part::Kernel).at, 16 * MIB);
        // The crash kernel lies at this address.
        elf.linked = 0x3400_0000;
        assert!(
            prepared(&scratch, &[9; 9000], Some(&elf), "").unwrap_err().contains("no place for the kernel")
        );
    }

    /// Returns the address that the trampoline jumps to.
    fn entered(is: &Prepared) -> u64 {
        let at = usize::try_from(is.start - of(is, Part::Parameters).at).unwrap();
        wide(&is.parameters, at + 0x2b)
    }

    #[test]
    fn the_trampoline_is_what_its_comments_say() {
        let code = trampoline(0x1_2345_6000, 0x1_0000_1000, 0x7700_0200);
        let relative = |at: usize, behind: u64| 0x1_2345_6000 + behind + u64::from(long(&code, at));
        assert_eq!(&code[..5], &[0xfa, 0xfc, 0x0f, 0x01, 0x15]);
        assert_eq!(relative(5, 9), 0x1_2345_6038);
        assert_eq!((short(&code, 0x38), wide(&code, 0x3a)), (31, 0x1_2345_6042));
        assert_eq!(
            (&code[0x18..0x1b], relative(0x1b, 0x1f)),
            (&[0x48, 0x8d, 0x25][..], 0x1_2345_6000 + code.len() as u64)
        );
        assert_eq!((&code[0x1f..0x21], wide(&code, 0x21)), (&[0x48, 0xbe][..], 0x1_0000_1000));
        assert_eq!((&code[0x29..0x2b], wide(&code, 0x2b)), (&[0x48, 0xb8][..], 0x7700_0200));
        assert_eq!(&code[0x33..0x38], &[0x6a, 0x10, 0x50, 0x48, 0xcb]);
        assert_eq!(wide(&code, 0x42 + 0x10), 0x00af_9b00_0000_ffff);
        assert_eq!(wide(&code, 0x42 + 0x18), 0x00cf_9300_0000_ffff);
        assert_eq!(code.len() % 8, 0);
    }

    #[test]
    fn a_memory_map_that_does_not_fit_goes_on_behind() {
        let scratch = machine();
        let entries: Vec<_> =
            (0..131).map(|number| (number << 30, (number << 30) + 0x3fff_ffff, "System RAM")).collect();
        put_firmware(&scratch, &entries);
        put_running(&scratch, &[(at::MAP_COUNT, &[0])]);
        let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
        assert_eq!(is.parameters[at::MAP_COUNT], 128);
        let (kind, at, length) = *nodes(&is).last().unwrap();
        assert_eq!((kind, length), (SETUP_E820_EXT, 60));
        assert_eq!(map_entry_at(&is.parameters, at + 40), (130 << 30, 1 << 30, 1));
    }

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

    #[test]
    fn efi_is_handed_on_as_this_kernel_has_it_or_told_that_it_is_not() {
        let scratch = machine();
        let map = put_efi(&scratch);
        let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
        let bytes = &is.parameters;
        let running = fs::read(scratch.root.path(RUNNING)).unwrap();
        for (at, length) in [(at::EFI, 8), (at::EFI + 12, 4), (at::EFI + 24, 4), (at::SECURE_BOOT, 1)] {
            assert_eq!(bytes[at..at + length], running[at..at + length], "{at:#x}");
        }
        assert_eq!((long(bytes, at::EFI + 8), long(bytes, at::EFI + 20)), (40, 80));
        let own = u64::from(long(bytes, at::EFI + 16)) - of(&is, Part::Parameters).at;
        let own = &bytes[usize::try_from(own).unwrap()..][..80];
        assert_eq!(own, map.iter().flat_map(descriptor).collect::<Vec<_>>());
        let (kind, at, length) = nodes(&is)[1];
        assert_eq!((kind, length), (SETUP_EFI, 96));
        let addresses = [0, 8, 16, 24].map(|field| wide(bytes, at + field));
        assert_eq!(addresses, [0x2f91_c818, 0, 0x2f9e_cc98, 0x2f91_8000]);
        // The running kernel's own boot parameters have precedence for the address of the ACPI tables.
        assert_eq!(wide(bytes, at::ACPI), 0xf_59d0);
        put_running(&scratch, &[(at::ACPI, &[0; 8])]);
        assert_eq!(
            wide(&prepared(&scratch, &image(9000, &[]), None, "").unwrap().parameters, at::ACPI),
            0x2fb7_e014
        );
        // The state with efi=noruntime.
        fs::remove_dir_all(scratch.root.path("/sys/firmware/efi/runtime-map")).unwrap();
        let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
        assert_eq!((nodes(&is).len(), wide(&is.parameters, at::ACPI)), (1, 0x2fb7_e014));
        assert!(is.parameters[at::EFI..at::EFI + 32].iter().all(|byte| *byte == 0));
        assert!(is.notes[0].contains("nothing of UEFI"), "{:?}", is.notes);
    }

    /// A change of the machine, changed fields of the kernel's header, and some words of the resulting message.
    type Case<'a> = (&'a dyn Fn(&Scratch), &'a [(usize, &'a [u8])], &'a str);

    #[test]
    fn what_a_kernel_or_a_machine_lacks_is_said_in_one_sentence() {
        let refused = |change: &dyn Fn(&Scratch), fields: &[(usize, &[u8])]| {
            let scratch = machine();
            change(&scratch);
            prepared(&scratch, &image(9000, fields), None, "").err().unwrap_or_default()
        };
        let nothing = |_: &Scratch| {};
        let la57 = |scratch: &Scratch| scratch.put("/proc/cpuinfo", "flags : lm la57\n");
        let cpu = |flags: &str| {
            let text = format!("flags : {flags}\n");
            move |scratch: &Scratch| scratch.put("/proc/cpuinfo", &text)
        };
        let efi = |scratch: &Scratch| {
            put_efi(scratch);
        };
        let gone = |path: &str| {
            let path = path.to_owned();
            move |scratch: &Scratch| fs::remove_file(scratch.root.path(&path)).unwrap()
        };
        let cases: [Case<'_>; 20] = [
            (&nothing, &[], ""),
            (&nothing, &[(at::MAGIC, b"hdrs")], "no bzImage"),
            (&nothing, &[(at::BOOT_FLAG, &[0, 0])], "no bzImage"),
            (&nothing, &[(0, b"\x7fELF")], "ELF"),
            (&nothing, &[(at::VERSION, &[0x0b, 2])], "older than 2.12"),
            (&nothing, &[(at::FLAGS, &[0])], "zImage"),
            (&nothing, &[(at::XFLAGS, &[0x3e, 0])], "32-bit"),
            (&nothing, &[(at::XFLAGS, &[0x3d, 0])], "below 4 GiB"),
            (&la57, &[], ""),
            (&la57, &[(at::XFLAGS, &[0x1f, 0])], "five levels"),
            (&efi, &[], ""),
            (&efi, &[(at::XFLAGS, &[0x2f, 0])], "XLF_EFI_KEXEC"),
            (&nothing, &[(at::XFLAGS, &[0x2f, 0])], ""),
            (&nothing, &[(at::CMDLINE_MAX, &[127, 0, 0, 0])], "leave something out"),
            (&nothing, &[(at::INIT_SIZE, &(600_u32 << 20).to_le_bytes())], "more than half"),
            (&nothing, &[(at::INIT_SIZE, &(900_u32 << 20).to_le_bytes())], "no place for the kernel"),
            (&cpu("hypervisor tdx_guest"), &[], "TDX"),
            (&|scratch: &Scratch| put_running(scratch, &[(at::CONFIDENTIAL, &[0, 1, 0, 0])]), &[], "SEV"),
            (&|scratch: &Scratch| scratch.put("/proc/cmdline", "mem_encrypt=on\n"), &[], "SME"),
            (&gone("/proc/iomem"), &[], "iomem cannot be read"),
        ];
        for (change, fields, words) in cases {
            let why = refused(change, fields);
            assert!(why.contains(words) && why.is_empty() == words.is_empty(), "{words}: {why}");
        }
        let platform = |scratch: &Scratch| {
            put_efi(scratch);
            scratch.put("/sys/firmware/efi/fw_platform_size", "32\n");
        };
        assert!(refused(&platform, &[]).contains("32-bit UEFI"));
        let unknown =
            |scratch: &Scratch| fs::remove_dir_all(scratch.root.path("/sys/firmware/memmap")).unwrap();
        assert!(refused(&unknown, &[]).contains("FIRMWARE_MEMMAP"));
        let scratch = machine();
        assert!(prepared(&scratch, &image(9000, &[])[..2600], None, "").unwrap_err().contains("cut off"));
        assert!(prepared(&scratch, b"", None, "").unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_limit_of_memory_is_read_as_the_kernel_reads_it() {
        for (line, limit) in [
            ("mem=512M", 512 << 20),
            ("mem=0x20000000 quiet", 512 << 20),
            ("mem=4G", 4 << 30),
            ("mem=1t", 1 << 40),
            ("mem=512", 512),
            ("mem=nopentium", u64::MAX),
            ("quiet", u64::MAX),
            ("mem=99999999999999999999", u64::MAX),
            ("mem=99999999999T", u64::MAX),
        ] {
            assert_eq!(memory_limit(line), limit, "{line}");
        }
    }
}
