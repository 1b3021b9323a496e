//! Tests of the parser with damaged plans: every cut, every flipped byte, every line repeated, required lines
//! dropped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::{
    Area, Changed, Direct, Fault, GpuFailed, GpuPolicy, HandoffId, Image, Jump, List, Malformed, On, Part,
    Plan, Policy, Preload, Segment, Stamp, Watchdog, limits,
};

const TEXT: &str = "\
nextkernel-plan 2
handoff = 5f3a9c1e2b7d4a60
entry = 6.12.57+deb13-amd64
staged-at = 1763900000
on = kexec reboot
preload = no
kernel = 5f3a9c1e2b7d4a60/kernel size=12345678 inode=41 changed=1763900000.000000007
initrd = 5f3a9c1e2b7d4a60/initrd size=36000000 inode=42 changed=1763900001.123456789
kernel-from = /boot/vmlinuz-6.12.57+deb13-amd64
initrd-from = /boot/intel ucode.img
initrd-from = /boot/initrd.img-6.12.57+deb13-amd64
cmdline = root=UUID=1-2 dyndbg=\"file drivers/usb/* +p\" = é
gpu = * unload
gpu = amdgpu unbind
gpu-failed = jump
module = efi_pstore
unbind = 0000:3b:00.0
guard = 600
watchdog = 60
jump = init
offline-cpus = yes
firmware-requests = ignore
parameters = 5f3a9c1e2b7d4a60/parameters size=16384 inode=43 changed=1763900002.000000000
start = 0x3f002f80
segment = kernel 0x4200+12328782 at=0x1000000 takes=50331648
segment = parameters 0x0+16384 at=0x3f000000 takes=16384
cmdline-at = 0x1000+2048
seed-at = 0x1810+32
end
";

fn plan() -> Plan<'static> {
    let mut initrd_from = List::new();
    initrd_from.push("/boot/intel ucode.img").unwrap();
    initrd_from.push("/boot/initrd.img-6.12.57+deb13-amd64").unwrap();
    let (mut gpu, mut modules, mut unbind) = (List::new(), List::new(), List::new());
    gpu.push(GpuPolicy { driver: "*", policy: Policy::Unload }).unwrap();
    gpu.push(GpuPolicy { driver: "amdgpu", policy: Policy::Unbind }).unwrap();
    modules.push("efi_pstore").unwrap();
    unbind.push("0000:3b:00.0").unwrap();
    let (mut segments, mut seeds) = (List::new(), List::new());
    let kernel = Area { offset: 0x4200, size: 12_328_782 };
    segments.push(Segment { part: Part::Kernel, bytes: kernel, at: 0x100_0000, takes: 50_331_648 }).unwrap();
    let told = Area { offset: 0, size: 16_384 };
    segments.push(Segment { part: Part::Parameters, bytes: told, at: 0x3f00_0000, takes: 16_384 }).unwrap();
    seeds.push(Area { offset: 0x1810, size: 32 }).unwrap();
    Plan {
        handoff: HandoffId(0x5f3a_9c1e_2b7d_4a60),
        entry: "6.12.57+deb13-amd64",
        staged_at: 1_763_900_000,
        on: On::KexecAndReboot,
        preload: Preload::No,
        kernel: Image {
            name: "5f3a9c1e2b7d4a60/kernel",
            size: 12_345_678,
            stamp: Some(Stamp { inode: 41, changed: Changed { seconds: 1_763_900_000, nanoseconds: 7 } }),
        },
        initrd: Some(Image {
            name: "5f3a9c1e2b7d4a60/initrd",
            size: 36_000_000,
            stamp: Some(Stamp {
                inode: 42,
                changed: Changed { seconds: 1_763_900_001, nanoseconds: 123_456_789 },
            }),
        }),
        kernel_from: Some("/boot/vmlinuz-6.12.57+deb13-amd64"),
        initrd_from,
        cmdline: "root=UUID=1-2 dyndbg=\"file drivers/usb/* +p\" = é",
        gpu,
        gpu_failed: Some(GpuFailed::Jump),
        modules,
        unbind,
        guard: Some(600),
        watchdog: Some(Watchdog::Seconds(60)),
        jump: Some(Jump::Init),
        offline_cpus: true,
        passes_firmware_over: true,
        direct: Some(Direct {
            parameters: Image {
                name: "5f3a9c1e2b7d4a60/parameters",
                size: 16_384,
                stamp: Some(Stamp { inode: 43, changed: Changed { seconds: 1_763_900_002, nanoseconds: 0 } }),
            },
            start: 0x3f00_2f80,
            segments,
            cmdline: Area { offset: 0x1000, size: 2048 },
            seeds,
        }),
    }
}

fn refused(text: &str) -> (usize, Fault) {
    let Malformed { line, fault } = Plan::parse(text.as_bytes()).unwrap_err();
    (line, fault)
}

#[test]
fn a_plan_reads_back_as_it_was_written() {
    assert_eq!(plan().to_string(), TEXT);
    assert_eq!(Plan::parse(TEXT.as_bytes()), Ok(plan()));
}

#[test]
fn a_plan_without_an_initrd_or_a_source_is_whole() {
    let bare = Plan {
        initrd: None,
        kernel_from: None,
        initrd_from: List::new(),
        cmdline: "",
        gpu: List::new(),
        gpu_failed: None,
        modules: List::new(),
        unbind: List::new(),
        guard: None,
        watchdog: None,
        jump: None,
        offline_cpus: false,
        passes_firmware_over: false,
        direct: None,
        ..plan()
    };
    assert_eq!(Plan::parse(bare.to_string().as_bytes()), Ok(bare));
}

#[test]
fn a_plan_cut_anywhere_is_refused() {
    for end in 0..TEXT.len() {
        assert!(Plan::parse(&TEXT.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_flipped_byte_is_refused_or_read_as_it_stands() {
    for at in 0..TEXT.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = TEXT.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(read) = Plan::parse(&bytes) {
                assert_eq!(read.to_string().as_bytes(), bytes, "byte {at} as {byte:#04x}");
            }
        }
    }
}

#[test]
fn a_key_given_twice_is_refused_on_its_second_line() {
    for (at, line) in TEXT.lines().enumerate().skip(1) {
        let twice = TEXT.replacen(&format!("{line}\n"), &format!("{line}\n{line}\n"), 1);
        match Plan::parse(twice.as_bytes()) {
            Ok(_) => {
                let repeats = ["initrd-from", "module", "unbind", "segment", "seed-at"];
                assert!(repeats.iter().any(|key| line.starts_with(key)), "{line}");
            }
            Err(Malformed { line, fault }) => {
                assert_eq!(line, at + 2);
                assert!(
                    matches!(fault, Fault::Twice | Fault::BadValue("gpu") | Fault::AfterEnd),
                    "{fault:?}"
                );
            }
        }
    }
}

#[test]
fn a_missing_key_is_named() {
    for key in [
        "handoff",
        "entry",
        "staged-at",
        "on",
        "preload",
        "kernel",
        "cmdline",
        "parameters",
        "start",
        "cmdline-at",
    ] {
        let line = TEXT.lines().find(|line| line.starts_with(&format!("{key} ="))).unwrap();
        let without = TEXT.replacen(&format!("{line}\n"), "", 1);
        assert_eq!(refused(&without), (28, Fault::Missing(key)));
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let change = |from: &str, to: &str| refused(&TEXT.replacen(from, to, 1));
    assert_eq!(refused(""), (1, Fault::NotAPlan));
    assert_eq!(refused("#!/bin/sh\n"), (1, Fault::NotAPlan));
    assert_eq!(change("plan 2", "plan 1"), (1, Fault::OtherVersion(1)));
    assert_eq!(change("plan 2", "plan 02"), (1, Fault::NotAPlan));
    assert_eq!(change("on = kexec reboot", "on = poweroff"), (5, Fault::BadValue("on")));
    assert_eq!(change("on = ", "on="), (5, Fault::NotAPair));
    assert_eq!(change("preload = no", "preload = never"), (6, Fault::BadValue("preload")));
    assert_eq!(change("5f3a9c1e2b7d4a60/kernel", "../kernel"), (7, Fault::BadValue("kernel")));
    assert_eq!(change("= /boot/vmlinuz", "= boot/vmlinuz"), (9, Fault::BadValue("kernel-from")));
    assert_eq!(change("preload", "preloat"), (6, Fault::UnknownKey));
    assert_eq!(change("= é", "= \u{7f}"), (12, Fault::NotText));
    assert_eq!(change("amdgpu", "nvidia"), (14, Fault::BadValue("gpu")));
    assert_eq!(change("amdgpu", "*"), (14, Fault::BadValue("gpu")));
    assert_eq!(change("efi_pstore", "efi-pstore"), (16, Fault::BadValue("module")));
    assert_eq!(change("0000:3b:00.0", "../nvme0"), (17, Fault::BadValue("unbind")));
    assert_eq!(change("guard = 600", "guard = 4"), (18, Fault::BadValue("guard")));
    assert_eq!(change("end\n", "end"), (29, Fault::NoEnd));
    assert_eq!(change("end\n", ""), (29, Fault::NoEnd));
    assert_eq!(change("jump = init", "jump = exit"), (20, Fault::BadValue("jump")));
    assert_eq!(change("cpus = yes", "cpus = no"), (21, Fault::BadValue("offline-cpus")));
    assert_eq!(change("= ignore", "= honour"), (22, Fault::BadValue("firmware-requests")));
    assert_eq!(change("start = 0x3f002f80", "start = 1"), (24, Fault::BadValue("start")));
    assert_eq!(change("0x4200+12328782", "0x4200+12328783"), (29, Fault::Outside));
    assert_eq!(change("0x1810+32", "0x4000+1"), (29, Fault::Outside));
    assert_eq!(change("parameters 0x0", "initrd 0x2255101"), (29, Fault::Outside));
    assert_eq!(change("end\n", "end\n\n"), (30, Fault::AfterEnd));
    assert_eq!(
        Plan::parse(b"nextkernel-plan 1\n").unwrap_err().to_string(),
        "line 1: a plan of version 1, and only version 2 is known here",
    );
}

#[test]
fn each_limit_holds_to_the_byte() {
    let with = |cmdline: &str| Plan { cmdline, ..plan() }.to_string();
    let longest = "x".repeat(limits::CMDLINE_MAX);
    assert!(Plan::parse(with(&longest).as_bytes()).is_ok());
    assert_eq!(refused(&with(&(longest + "x"))), (12, Fault::BadValue("cmdline")));

    let entry = "e".repeat(limits::ENTRY_MAX + 1);
    assert_eq!(refused(&Plan { entry: &entry, ..plan() }.to_string()), (3, Fault::BadValue("entry")));

    let path = format!("/{}", "p".repeat(limits::PATH_MAX));
    let far = Plan { kernel_from: Some(&path), ..plan() }.to_string();
    assert_eq!(refused(&far), (9, Fault::BadValue("kernel-from")));

    let many = TEXT.replacen("cmdline", &format!("{}cmdline", "initrd-from = /i\n".repeat(15)), 1);
    assert_eq!(refused(&many), (26, Fault::BadValue("initrd-from")));

    let long = TEXT.replacen("end\n", &"x\n".repeat(limits::PLAN_MAX / 2), 1);
    assert_eq!(refused(&long), (1, Fault::TooLong));
}
