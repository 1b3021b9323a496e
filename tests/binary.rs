//! Tests the hook as a file and as a process: the promises of README.md about the binary itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::host::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Upper bound of the design for the hook's size, with any compiler. It has some 115,000 bytes today.
const HOOK_MAX: u64 = 128 << 10;

fn hook() -> PathBuf {
    bed::host::paths::vm_directory().join("installed/usr/lib/systemd/system-shutdown/nextkernel")
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../src").canonicalize().unwrap()
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Builds the hook in this directory, from a copy of its sources.
fn build_in(directory: &Path, strip: &str) -> PathBuf {
    let copy = directory.join("src");
    fs::create_dir_all(&copy).unwrap();
    // The target directory is left out; it has some 400 MB.
    let parts = fs::read_dir(sources()).unwrap().map(|part| part.unwrap());
    let parts = parts.filter(|part| part.file_name() != "target").map(|part| part.path());
    text(Command::new("cp").arg("-r").args(parts).arg(&copy));
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cargo");
    let remap = format!("--remap-path-prefix={}=. --remap-path-prefix={home}=cargo", directory.display());
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--locked", "--bin", "nextkernel-hook"]).current_dir(&copy);
    cargo.env("RUSTFLAGS", remap).env("CARGO_PROFILE_RELEASE_STRIP", strip).env_remove("CARGO_TARGET_DIR");
    text(&mut cargo);
    copy.join("target/release/nextkernel-hook")
}

#[test]
fn the_hook_is_static_and_needs_no_interpreter() {
    let headers = text(Command::new("readelf").args(["-lW"]).arg(hook()));
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("DYNAMIC"), "{headers}");
}

#[test]
fn the_hook_is_smaller_than_128_kibibytes() {
    let size = hook().metadata().unwrap().len();
    assert!(size < HOOK_MAX, "{size}");
}

#[test]
#[ignore = "`make cross` builds them first"]
fn for_other_architectures_it_is_one_small_static_file_too_and_runs() {
    for (target, machine, emulator) in [
        ("aarch64-unknown-linux-gnu", "AArch64", "qemu-aarch64-static"),
        ("riscv64gc-unknown-linux-gnu", "RISC-V", "qemu-riscv64-static"),
    ] {
        let Some(built) = bed::host::paths::built_for(target) else { continue };
        for program in ["nextkernel", "nextkernel-hook"] {
            let file = built.join(program);
            let headers = text(Command::new("readelf").args(["-hlW"]).arg(&file));
            let is_for_it =
                headers.lines().any(|line| line.contains("Machine:") && line.trim_end().ends_with(machine));
            assert!(is_for_it && !headers.contains("INTERP"), "{program}: {headers}");
            // Printing the version needs every part of a program that starts it to be right.
            let version = text(Command::new(emulator).arg(&file).arg("--version"));
            assert!(version.starts_with(&format!("{program} ")), "{version}");
        }
        let hook = built.join("nextkernel-hook");
        assert!(!text(Command::new("readelf").args(["-lW"]).arg(&hook)).contains("DYNAMIC"), "{target}");
        let size = hook.metadata().unwrap().len();
        assert!(size < HOOK_MAX, "{target}: {size}");
        let dry = text(Command::new(emulator).arg(&hook).args(["--dry-run", "kexec"]));
        assert_eq!(dry, "at kexec: nothing is staged, left to the init\n", "{target}");
        let refused = output(Command::new(emulator).arg(&hook).arg("kexec"));
        assert_eq!(refused.status.code(), Some(1), "{target}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("refused: "), "{target}: {refused:?}");
    }
}

#[test]
fn no_allocator_is_linked_into_the_hook() {
    let scratch = Scratch::new().unwrap();
    let symbols = text(Command::new("nm").arg(build_in(&scratch.path("symbols"), "none")));
    assert!(symbols.contains("nextkernel_hook") && symbols.contains("_start"), "{symbols}");
    for allocator in
        ["__rust_alloc", "__rust_realloc", "__rg_alloc", "__rdl_alloc", " malloc", " calloc", "brk"]
    {
        assert!(!symbols.contains(allocator), "{allocator} is there:\n{symbols}");
    }
}

#[test]
fn two_builds_from_different_folders_are_the_same_to_the_byte() {
    let scratch = Scratch::new().unwrap();
    let one = build_in(&scratch.path("one"), "symbols");
    let other = build_in(&scratch.path("quite/another/folder"), "symbols");
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "they differ");
}

#[test]
fn by_day_the_hook_asks_for_no_memory() {
    for arguments in [["--dry-run", "kexec"], ["kexec", ""], ["--help", ""]] {
        let trace = output(Command::new("strace").arg("-f").arg(hook()).args(arguments));
        let trace = String::from_utf8_lossy(&trace.stderr).into_owned();
        assert!(trace.contains("exit_group("), "{trace}");
        for call in ["brk(", "mmap(", "mremap("] {
            assert!(!trace.contains(call), "{trace}");
        }
    }
}

#[test]
fn without_descriptors_and_without_dev_the_hook_runs() {
    let scratch = Scratch::new().unwrap();
    fs::copy(hook(), scratch.path("hook")).unwrap();
    let root = scratch.path("");
    let root = root.display();
    for (arguments, status) in [("--dry-run kexec", 0), ("kexec", 1), ("", 0), ("--no-such-option", 2)] {
        let script = format!("exec chroot {root} /hook {arguments} <&- >&- 2>&-");
        // Without its output a dry run prints nothing, and ends as usual.
        let ended = output(Command::new("sh").args(["-c", &script]));
        assert_eq!(ended.status.code(), Some(status), "{arguments}: {ended:?}");
    }
}

#[test]
fn typed_at_a_shell_the_hook_refuses_in_one_sentence() {
    for verb in ["kexec", "reboot"] {
        let refused = output(Command::new(hook()).arg(verb));
        let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{sentence}");
        assert!(sentence.starts_with("nextkernel-hook: refused: no shutdown is under way"), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
}

#[test]
fn in_a_container_the_hook_refuses() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "sh", "-c", "\"$0\" kexec; echo status $?"]).arg(hook());
    let refused = output(&mut unshare);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nextkernel-hook: refused: this is a container"), "{refused:?}");
    assert_eq!(String::from_utf8_lossy(&refused.stdout).trim(), "status 1");
}

#[test]
fn as_pid_1_of_a_container_the_hook_ends_and_changes_nothing() {
    for (arguments, status) in [("kexec", 1), ("--version", 0), ("", 0)] {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c", "exec \"$0\" $1"])
            .arg(hook())
            .arg(arguments);
        assert_eq!(output(&mut unshare).status.code(), Some(status), "{arguments}");
    }
}
