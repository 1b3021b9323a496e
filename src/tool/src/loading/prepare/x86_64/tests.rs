#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs::{self, File};

use nextkernel_plan::{Area, Part, Segment};

use super::boot_params::{DISKS_LENGTH, KASLR, LOADER, MAP_ENTRY, SETUP_EFI, SETUP_RNG_SEED, descriptor};
use super::field;
use super::kernel::{LOADED_HIGH, LOWEST, PAGE};
use super::machine::RUNNING;
use super::places::LAST_HANDED_OUT;
use crate::loading::decompress::Decompressed;
use crate::loading::prepare;
use crate::loading::prepare::memory::Memory;
use crate::loading::prepare::memory_map::tests::{
    FIRMWARE_ENTRIES, IOMEM_TEXT, put_firmware, put_runtime, told,
};
use crate::loading::prepare::memory_map::{Descriptor, SETUP_E820_EXT};
use crate::loading::prepare::parts::{Parts, Prepared};
use crate::loading::prepare::range::Range;
use crate::machine::scratch::Scratch;
use crate::words::little_endian::{long, short, wide};

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
    let mut bytes: Vec<u8> = (0..field::LENGTH).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let map = told(&FIRMWARE_ENTRIES);
    let count = [u8::try_from(FIRMWARE_ENTRIES.len()).unwrap()];
    for (at, value) in [
        (field::CONFIDENTIAL, &[0; 4][..]),
        (field::MAP_COUNT, &count),
        (field::MAP, &map),
        (field::ACPI, &[0xd0, 0x59, 0x0f, 0, 0, 0, 0, 0]),
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
        (field::SETUP_SECTORS, &[4]),
        (field::BOOT_FLAG, &[0x55, 0xaa]),
        (0x200, &[0xeb, 0x6a]),
        (field::MAGIC, b"HdrS"),
        (field::VERSION, &[0x0f, 0x02]),
        (field::FLAGS, &[LOADED_HIGH]),
        (field::ALIGNMENT, &(2_u32 << 20).to_le_bytes()),
        (field::RELOCATABLE, &[1]),
        (field::XFLAGS, &0x3f_u16.to_le_bytes()),
        (field::CMDLINE_MAX, &2047_u32.to_le_bytes()),
        (field::SETUP_DATA, &[0xbb; 8]),
        (field::PREFERRED, &(16 * MIB).to_le_bytes()),
        (field::INIT_SIZE, &(48_u32 << 20).to_le_bytes()),
        (field::HEADER_END, &[0x6a]),
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
    decompressed: Option<&Decompressed>,
    cmdline: &str,
) -> Result<Prepared, String> {
    prepared_avoiding(scratch, kernel, decompressed, cmdline, &[])
}

fn prepared_avoiding(
    scratch: &Scratch,
    kernel: &[u8],
    decompressed: Option<&Decompressed>,
    cmdline: &str,
    avoided: &[Range],
) -> Result<Prepared, String> {
    let (kernel, initrd) = (file(scratch, "kernel", kernel), file(scratch, "initrd", &[7; 5000]));
    let parts = Parts {
        root: &scratch.root,
        kernel: &kernel,
        decompressed,
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
    let (mut next, mut nodes) = (wide(bytes, field::SETUP_DATA), Vec::new());
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
    assert_eq!(
        (&bytes[field::MAGIC..field::MAGIC + 4], &bytes[0x264..0x26c]),
        (&b"HdrS"[..], &[0xee; 8][..])
    );
    assert!(bytes[0x26c..field::SIGNATURES].iter().all(|byte| *byte == 0));
    assert_eq!((bytes[field::LOADER], bytes[field::FLAGS]), (LOADER, 0));
    // The running kernel's own parameters, as far as they still hold.
    for (at, length) in
        [(field::SCREEN + 4, 60), (field::SUBARCH, 4), (field::DISKS, DISKS_LENGTH), (field::SIGNATURES, 64)]
    {
        assert!((at..at + length).all(|at| usize::from(bytes[at]) == at % 251), "{at:#x}");
    }
    assert!(bytes[0x40..field::ACPI].iter().all(|byte| *byte == 0));
    assert_eq!(wide(bytes, field::ACPI), 0xf_59d0);
    // The memory's last byte is 0x3ffdbfff.
    assert_eq!(
        (short(bytes, field::SCREEN_MEMORY), long(bytes, field::MEMORY)),
        (0xfc00, (0x3ffd_bfff >> 10) - 1024)
    );
    assert_eq!(
        (long(bytes, field::INITRD), long(bytes, field::INITRD_SIZE)),
        (u32::try_from(initrd.at).unwrap(), 5000)
    );
    assert_eq!(u64::from(long(bytes, field::CMDLINE)), parameters.at + is.cmdline.offset);
    assert_eq!(is.cmdline.size, 134);
    assert_eq!(bytes[field::MAP_COUNT], 5);
    assert_eq!(map_entry_at(bytes, field::MAP + 3 * MAP_ENTRY), (0x10_0000, 0x3fed_c000, 1));
    // Without EFI there is only the seed.
    assert_eq!(nodes(&is), [(SETUP_RNG_SEED, usize::try_from(is.seeds[0].offset).unwrap(), 32)]);
    assert!(bytes[field::EFI..field::EFI + 32].iter().all(|byte| *byte == 0));
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
                let holds = |range: &Range| range.start <= segment.at && end <= range.end;
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
        put_running(&scratch, &[(field::MAP_COUNT, &[0])]);
        let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
        assert_eq!(of(&is, Part::Initrd).at < LAST_HANDED_OUT, is_below);
    }
}

#[test]
fn a_kernel_lies_somewhere_at_random_unless_its_command_line_is_against_it() {
    let scratch = machine();
    let mut places = Vec::new();
    for (seed, line) in [("aaaaaaaa", ""), ("bbbbbbbb", ""), ("aaaaaaaa", "nokaslr"), ("bbbbbbbb", "nokaslr")]
    {
        scratch.put("/dev/urandom", &seed.repeat(2));
        places.push(of(&prepared(&scratch, &image(9000, &[]), None, line).unwrap(), Part::Kernel).at);
    }
    assert_ne!(places[0], places[1]);
    assert_eq!((places[2], places[3]), (974 * MIB, 974 * MIB));
}

fn decompressed(random: bool) -> Decompressed {
    let head = image(0, &[])[..field::SIGNATURES].to_vec();
    Decompressed {
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
            let is = prepared_avoiding(&scratch, &[7; 5000], Some(&decompressed(true)), "", avoided).unwrap();
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
        prepared_avoiding(&scratch, &[7; 5000], Some(&decompressed(true)), "memmap=x", &blocks(0..100, 1));
    assert_eq!(of(&lowest.unwrap(), Part::Kernel).at, 16 * MIB);
}

#[test]
fn a_decompressed_kernel_is_entered_where_it_says_and_told_that_it_was_moved() {
    let scratch = machine();
    for (random, line, flags) in [(true, "", KASLR), (false, "nokaslr", 0)] {
        let is = prepared(&scratch, &[9; 9000], Some(&decompressed(random)), line).unwrap();
        let kernel = of(&is, Part::Kernel);
        assert_eq!((kernel.bytes, kernel.takes), (Area { offset: 0, size: 9000 }, 6 * MIB));
        assert_eq!(is.parameters[field::FLAGS], flags);
        assert_eq!(kernel.at == 16 * MIB, !random);
        assert_eq!(entered(&is), kernel.at + 0xc43);
        assert_eq!(is.notes, ["note"]);
    }
    // With unknown memory options on its command line, the kernel lies at the address that it was linked
    // for.
    let is = prepared(&scratch, &[9; 9000], Some(&decompressed(true)), "movable_node").unwrap();
    assert_eq!((of(&is, Part::Kernel).at, is.parameters[field::FLAGS]), (16 * MIB, KASLR));
}

#[test]
fn one_that_cannot_be_anywhere_lies_where_it_was_linked_for_or_nowhere() {
    let scratch = machine();
    let mut elf = decompressed(false);
    elf.head[field::RELOCATABLE] = 0;
    assert_eq!(of(&prepared(&scratch, &[9; 9000], Some(&elf), "").unwrap(), Part::Kernel).at, 16 * MIB);
    // The crash kernel lies at this address.
    elf.linked = 0x3400_0000;
    assert!(prepared(&scratch, &[9; 9000], Some(&elf), "").unwrap_err().contains("no place for the kernel"));
}

/// Returns the address that the trampoline jumps to.
fn entered(is: &Prepared) -> u64 {
    let at = usize::try_from(is.start - of(is, Part::Parameters).at).unwrap();
    wide(&is.parameters, at + 0x2b)
}

#[test]
fn a_memory_map_that_does_not_fit_goes_on_behind() {
    let scratch = machine();
    let entries: Vec<_> =
        (0..131).map(|number| (number << 30, (number << 30) + 0x3fff_ffff, "System RAM")).collect();
    put_firmware(&scratch, &entries);
    put_running(&scratch, &[(field::MAP_COUNT, &[0])]);
    let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
    assert_eq!(is.parameters[field::MAP_COUNT], 128);
    let (kind, at, length) = *nodes(&is).last().unwrap();
    assert_eq!((kind, length), (SETUP_E820_EXT, 60));
    assert_eq!(map_entry_at(&is.parameters, at + 40), (130 << 30, 1 << 30, 1));
}

#[test]
fn efi_is_handed_on_as_this_kernel_has_it_or_told_that_it_is_not() {
    let scratch = machine();
    let map = put_efi(&scratch);
    let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
    let bytes = &is.parameters;
    let running = fs::read(scratch.root.path(RUNNING)).unwrap();
    for (at, length) in [(field::EFI, 8), (field::EFI + 12, 4), (field::EFI + 24, 4), (field::SECURE_BOOT, 1)]
    {
        assert_eq!(bytes[at..at + length], running[at..at + length], "{at:#x}");
    }
    assert_eq!((long(bytes, field::EFI + 8), long(bytes, field::EFI + 20)), (40, 80));
    let own = u64::from(long(bytes, field::EFI + 16)) - of(&is, Part::Parameters).at;
    let own = &bytes[usize::try_from(own).unwrap()..][..80];
    assert_eq!(own, map.iter().flat_map(descriptor).collect::<Vec<_>>());
    let (kind, at, length) = nodes(&is)[1];
    assert_eq!((kind, length), (SETUP_EFI, 96));
    let addresses = [0, 8, 16, 24].map(|field| wide(bytes, at + field));
    assert_eq!(addresses, [0x2f91_c818, 0, 0x2f9e_cc98, 0x2f91_8000]);
    // The running kernel's own boot parameters have precedence for the address of the ACPI tables.
    assert_eq!(wide(bytes, field::ACPI), 0xf_59d0);
    put_running(&scratch, &[(field::ACPI, &[0; 8])]);
    assert_eq!(
        wide(&prepared(&scratch, &image(9000, &[]), None, "").unwrap().parameters, field::ACPI),
        0x2fb7_e014
    );
    // The state with efi=noruntime.
    fs::remove_dir_all(scratch.root.path("/sys/firmware/efi/runtime-map")).unwrap();
    let is = prepared(&scratch, &image(9000, &[]), None, "").unwrap();
    assert_eq!((nodes(&is).len(), wide(&is.parameters, field::ACPI)), (1, 0x2fb7_e014));
    assert!(is.parameters[field::EFI..field::EFI + 32].iter().all(|byte| *byte == 0));
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
        (&nothing, &[(field::MAGIC, b"hdrs")], "no bzImage"),
        (&nothing, &[(field::BOOT_FLAG, &[0, 0])], "no bzImage"),
        (&nothing, &[(0, b"\x7fELF")], "ELF"),
        (&nothing, &[(field::VERSION, &[0x0b, 2])], "older than 2.12"),
        (&nothing, &[(field::FLAGS, &[0])], "zImage"),
        (&nothing, &[(field::XFLAGS, &[0x3e, 0])], "32-bit"),
        (&nothing, &[(field::XFLAGS, &[0x3d, 0])], "below 4 GiB"),
        (&la57, &[], ""),
        (&la57, &[(field::XFLAGS, &[0x1f, 0])], "five levels"),
        (&efi, &[], ""),
        (&efi, &[(field::XFLAGS, &[0x2f, 0])], "XLF_EFI_KEXEC"),
        (&nothing, &[(field::XFLAGS, &[0x2f, 0])], ""),
        (&nothing, &[(field::CMDLINE_MAX, &[127, 0, 0, 0])], "leave something out"),
        (&nothing, &[(field::INIT_SIZE, &(600_u32 << 20).to_le_bytes())], "more than half"),
        (&nothing, &[(field::INIT_SIZE, &(900_u32 << 20).to_le_bytes())], "no place for the kernel"),
        (&cpu("hypervisor tdx_guest"), &[], "TDX"),
        (&|scratch: &Scratch| put_running(scratch, &[(field::CONFIDENTIAL, &[0, 1, 0, 0])]), &[], "SEV"),
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
    let unknown = |scratch: &Scratch| fs::remove_dir_all(scratch.root.path("/sys/firmware/memmap")).unwrap();
    assert!(refused(&unknown, &[]).contains("FIRMWARE_MEMMAP"));
    let scratch = machine();
    assert!(prepared(&scratch, &image(9000, &[])[..2600], None, "").unwrap_err().contains("cut off"));
    assert!(prepared(&scratch, b"", None, "").unwrap_err().contains("is empty"));
}
