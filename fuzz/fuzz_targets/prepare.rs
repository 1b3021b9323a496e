//! Prepares a load, or refuses it in plain words, for any kernel header, any boot parameters of the running
//! kernel, and any command line. Segments are in memory, separate, and in order; areas filled in later are
//! within the boot parameters.
#![no_main]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use nextkernel::loading::prepare;
use nextkernel::loading::prepare::memory::Memory;
use nextkernel::loading::prepare::parts::Parts;
use nextkernel::loading::prepare::range::Range;
use nextkernel::machine::root::Root;

const PAGE: u64 = 4096;
const MEMORY: &str = "00001000-0009fbff : System RAM\n00100000-3fffffff : System RAM\n  01000000-02ffffff : Kernel code\n  34000000-37ffffff : Crash kernel\n";

/// Returns a machine whose memory and numbers are always the same.
fn machine() -> &'static (Root, PathBuf) {
    static MACHINE: OnceLock<(Root, PathBuf)> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("nextkernel-fuzz-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("proc/iomem", MEMORY);
        put("proc/cmdline", "quiet");
        put("dev/urandom", "12345678901234567890");
        for (number, (start, end)) in [("0x0", "0x9fbff"), ("0x100000", "0x3fffffff")].iter().enumerate() {
            for (file, text) in [("start", *start), ("end", *end), ("type", "System RAM")] {
                put(&format!("sys/firmware/memmap/{number}/{file}"), text);
            }
        }
        put("sys/firmware/efi/runtime-map/0/type", "0x5");
        for file in ["phys_addr", "virt_addr", "num_pages", "attribute"] {
            put(&format!("sys/firmware/efi/runtime-map/0/{file}"), "0x1000");
        }
        put("sys/kernel/boot_params/data", "");
        put("kernel", "");
        put("initrd", "initrd");
        (Root::below(&directory), directory)
    })
}

/// Returns a range of up to 16 MiB within 4 GiB.
fn avoided(bytes: &[u8]) -> Range {
    let start = u64::from(bytes[0]) << 24;
    Range { start, end: start + (u64::from(bytes[1]) << 16) }
}

fuzz_target!(|bytes: &[u8]| {
    let (root, directory) = machine();
    let Some((&split, bytes)) = bytes.split_first() else { return };
    let (running, rest) = bytes.split_at(bytes.len().min(usize::from(split) * 4));
    let (line, kernel_bytes) = rest.split_at(rest.len().min(usize::from(split & 31)));
    let Ok(cmdline) = std::str::from_utf8(line) else { return };
    fs::write(directory.join("sys/kernel/boot_params/data"), running).expect("written");
    fs::write(directory.join("kernel"), kernel_bytes).expect("written");
    let open = |name: &str| File::open(directory.join(name)).expect("opened");
    let (kernel, initrd) = (open("kernel"), open("initrd"));
    // The kernel's bytes choose the ranges handed out already.
    let avoided: Vec<_> = kernel_bytes.chunks_exact(2).take(64).map(avoided).collect();
    let parts = Parts {
        root,
        kernel: &kernel,
        decompressed: None,
        initrd: Some(&initrd),
        cmdline,
        cmdline_room: 200,
        avoided: &avoided,
    };
    // Ranges to avoid never make a load impossible.
    let anywhere = prepare::of("x86_64", &Parts { avoided: &[], ..parts });
    let prepared = prepare::of("x86_64", &parts);
    assert_eq!(anywhere.is_ok(), prepared.is_ok());
    match prepared {
        Ok(is) => {
            let free = Memory::usable(root, PAGE).expect("memory");
            let mut segments = is.segments.clone();
            segments.sort_by_key(|segment| segment.at);
            let mut end = 1 << 20;
            for segment in &segments {
                assert!(
                    segment.at >= end && segment.at % PAGE == 0 && segment.takes % PAGE == 0,
                    "{segment}"
                );
                assert!(segment.bytes.size <= segment.takes, "{segment}");
                end = segment.at + segment.takes;
                assert!(
                    free.free().iter().any(|range| range.start <= segment.at && end <= range.end),
                    "{segment}"
                );
            }
            let length = is.parameters.len() as u64;
            assert!(is.cmdline.end_within(length).is_some() && is.cmdline.size == 200);
            assert!(is.seeds.iter().all(|seed| seed.end_within(length).is_some()));
            assert!(
                is.segments
                    .iter()
                    .any(|segment| segment.at <= is.start && is.start < segment.at + segment.takes)
            );
        }
        Err(error) => assert!(!error.to_string().contains(|c: char| c.is_ascii_control()), "{error}"),
    }
});
