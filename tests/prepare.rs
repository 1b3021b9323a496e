//! Tests how tests/prepare treats apt's answers, which come from a stand-in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::host::scratch::Scratch;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Stand-ins for root, a new Rust, and no installed package.
const STAND_INS: [(&str, &str); 6] = [
    ("id", "echo 0"),
    ("cargo", "echo cargo 1.85.0"),
    ("dpkg-query", "exit 1"),
    ("apt-cache", "exit 1"),
    ("df", "echo Avail; echo 50000000"),
    ("du", "printf '0\\ttotal\\n'"),
];

/// Records the arguments of apt-get, and prints the simulated answer.
const APT: &str = r#"echo "$*" >>"${0%/*}/told"
case " $* " in
*" -s "*) cat "${0%/*}/simulated" ;;
*" --assume-no "*) printf '%s\n' 'Need to get 51.9 MB of archives.' \
    'After this operation, 192 MB of additional disk space will be used.' Abort.; exit 1 ;;
esac"#;

/// apt's simulation of an installation that changes nothing else.
const HARMLESS: &str = "\
The following NEW packages will be installed:
  libfdt1 qemu-system-x86
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Inst libfdt1 (1.7.2-2 Debian:13.1/stable [amd64])
Inst qemu-system-x86 (1:10.0.2+ds-2 Debian:13.1/stable [amd64])
Conf libfdt1 (1.7.2-2 Debian:13.1/stable [amd64])
Conf qemu-system-x86 (1:10.0.2+ds-2 Debian:13.1/stable [amd64])
";

/// apt's simulation of an installation that removes two packages.
const REMOVING: &str = "\
The following packages will be REMOVED:
  busybox qemu-utils
The following NEW packages will be installed:
  busybox-static
0 upgraded, 1 newly installed, 2 to remove and 0 not upgraded.
Remv qemu-utils [1:7.2+dfsg-7+deb12u13]
Remv busybox [1:1.35.0-4+b5] [initramfs-tools:amd64 ]
Inst busybox-static (1:1.35.0-4+b5 Debian:12.11/oldstable [amd64])
";

/// apt's simulation of an installation that downgrades packages.
const DOWNGRADING: &str = "\
The following packages will be DOWNGRADED:
  libc6 libc-bin
0 upgraded, 0 newly installed, 2 downgraded, 0 to remove and 0 not upgraded.
Inst libc6 [2.42-1] (2.41-12 Debian:13.1/stable [amd64])
";

/// Makes a directory of stand-ins.
fn stand_ins(scripts: &[(&str, &str)]) -> Scratch {
    let scratch = Scratch::new().unwrap();
    for (name, script) in scripts {
        let path = scratch.path(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    scratch
}

fn run(word: &str, path: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("prepare");
    Command::new(script).arg(word).env("PATH", path).env_remove("CARGO").output().unwrap()
}

/// Runs tests/prepare with this simulated answer of apt; returns its output and the arguments apt-get was given.
fn prepare(word: &str, simulated: &str) -> (Output, Vec<String>) {
    let scratch = stand_ins(&[&STAND_INS[..], &[("apt-get", APT)]].concat());
    fs::write(scratch.path("simulated"), simulated).unwrap();
    let output = run(word, &format!("{}:/usr/bin:/bin", scratch.path("").display()));
    let told = fs::read_to_string(scratch.path("told")).unwrap_or_default();
    (output, told.lines().map(Into::into).collect())
}

fn changes_something(told: &str) -> bool {
    told.starts_with("install") && !told.contains(" -s ") && !told.contains(" --assume-no ")
}

#[test]
fn what_apt_would_remove_or_downgrade_is_named_and_nothing_is_installed() {
    for word in ["demo", "test", "all"] {
        for (simulated, sentence) in [
            (REMOVING, "apt would remove what you have: qemu-utils busybox; "),
            (DOWNGRADING, "apt would downgrade what you have: libc6 libc-bin; "),
        ] {
            let (output, told) = prepare(word, simulated);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(sentence), "{word}: {output:?}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert_eq!(told.iter().filter(|told| changes_something(told)).count(), 0, "{told:#?}");
        }
    }
}

#[test]
fn what_is_missing_is_installed_once_what_that_takes_is_said() {
    let (output, told) = prepare("demo", HARMLESS);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("apt installs 2 packages, downloads 51.9 MB, uses 192 MB of disk space"), "{said}");
    let changes: Vec<_> = told.iter().filter(|told| changes_something(told)).collect();
    assert!(matches!(changes[..], [last] if last.contains(" --no-remove ")), "{told:#?}");
    assert_eq!(told.last(), changes.first().copied(), "{told:#?}");
}

#[test]
fn the_demo_installs_neither_a_cross_compiler_nor_a_shell() {
    let packages = |word| {
        let (_, told) = prepare(word, HARMLESS);
        told.last().unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let (demo, all) = (packages("demo"), packages("all"));
    for package in ["gcc-aarch64-linux-gnu", "gcc-riscv64-linux-gnu", "zsh", "fish"].map(str::to_owned) {
        assert!(all.contains(&package) && !demo.contains(&package), "{package}: {demo:?}");
    }
}

#[test]
fn without_apt_the_missing_programs_are_named() {
    let tools = [("sed", "exec /usr/bin/sed \"$@\""), ("cat", "exec /usr/bin/cat \"$@\"")];
    let scratch = stand_ins(&[&[("cargo", "echo cargo 1.99.0"), ("gcc", "")], &tools[..]].concat());
    let output = run("demo", &scratch.path("").display().to_string());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(": qemu-system-x86_64 mmdebstrap "), "{output:?}");
    assert!(!said.contains("gcc") && said.lines().count() == 1, "{said}");
}

#[test]
fn where_the_disk_is_too_small_that_is_said_before_anything_is_installed() {
    let scratch =
        stand_ins(&[&STAND_INS[..], &[("apt-get", APT), ("df", "echo Avail; echo 21000000")]].concat());
    fs::write(scratch.path("simulated"), HARMLESS).unwrap();
    let output = run("all", &format!("{}:/usr/bin:/bin", scratch.path("").display()));
    let said = String::from_utf8_lossy(&output.stderr);
    let sentence = "make: all tests together need some 22 GB of disk here, in ";
    assert!(!output.status.success() && said.starts_with(sentence), "{said}");
    assert!(said.ends_with(" GB are free: free some\n") && !scratch.path("told").exists(), "{said}");
}

#[test]
fn a_rust_that_is_too_old_is_told_first() {
    let scratch = stand_ins(&[("cargo", "echo cargo 1.63.0"), ("apt-get", APT)]);
    let output = run("demo", &format!("{}:/usr/bin:/bin", scratch.path("").display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("Rust 1.85 or later is needed, and this is cargo 1.63.0"),
        "{said}"
    );
    assert!(!scratch.path("told").exists());
}
