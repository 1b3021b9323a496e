//! Tests where our hooks for initramfs generators put files, without a guest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::host::scratch::Scratch;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

const HOOK: &str = "usr/lib/systemd/system-shutdown/nextkernel";

/// Runs the mkinitcpio of a checkout for the hooks in $1, with the built hook at its installed path. A mount
/// that only this process sees replaces the directory of systemd's programs.
const REAL: &str = r#"set -e
    mkdir "$SCRATCH/systemd"
    cp /usr/lib/systemd/systemd-shutdown "$SCRATCH/systemd/"
    install -D "$INSTALLED/usr/lib/systemd/system-shutdown/nextkernel" "$SCRATCH/systemd/system-shutdown/nextkernel"
    mount --bind "$SCRATCH/systemd" /usr/lib/systemd
    mkdir "$SCRATCH/install" "$SCRATCH/image"
    # Where Debian has these two.
    sed 's|/usr/lib/libmount.so|/usr/lib/x86_64-linux-gnu/libmount.so.1|' \
        "$CHECKOUT/install/sd-shutdown" >"$SCRATCH/install/sd-shutdown"
    sed "s|/usr/lib/initcpio/shutdown|$CHECKOUT/shutdown|" "$CHECKOUT/install/shutdown" >"$SCRATCH/install/shutdown"
    cp "$OURS" "$SCRATCH/install/nextkernel"
    chmod +x "$SCRATCH"/install/*
    echo "HOOKS=($1)" >"$SCRATCH/conf"
    export MKINITCPIO_LIBRARY="$CHECKOUT" MKINITCPIO_HOOKS="$CHECKOUT/hooks" MKINITCPIO_INSTALL="$SCRATCH/install"
    exec bash "$CHECKOUT/mkinitcpio" -c "$SCRATCH/conf" -d "$SCRATCH/image" -k none"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
}

fn build(image: &Path) {
    let mut build = Command::new(repository().join("tests/mkinitcpio/build"));
    build.arg(repository().join("initramfs/mkinitcpio/install/nextkernel"));
    run(build.env("BUILDROOT", image).env("ROOT", bed::host::paths::vm_directory().join("installed")));
}

/// Returns all files and links of an image, by their names.
fn names(image: &Path) -> Vec<String> {
    let output = Command::new("find").args([".", "!", "-type", "d"]).current_dir(image).output().unwrap();
    let mut names: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.replacen("./", "", 1)).collect();
    names.sort();
    names
}

/// Proves that the hook is where systemd-shutdown looks for it, and where the hook on the host looks for it in
/// an exitrd.
fn has_the_hook(image: &Path) {
    let hook = image.join(HOOK);
    assert_eq!(fs::metadata(&hook).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(
        fs::read(hook).unwrap(),
        fs::read(bed::host::paths::vm_directory().join("installed").join(HOOK)).unwrap()
    );
}

fn is_shutdown_itself(image: &Path) {
    assert_eq!(fs::read_link(image.join("shutdown")).unwrap(), Path::new(HOOK));
}

#[test]
fn mkinitcpio_is_given_the_hook_and_no_library() {
    let scratch = Scratch::new().unwrap();
    fs::write(scratch.path("shutdown"), "systemd-shutdown").unwrap();
    build(&scratch.path(""));
    has_the_hook(&scratch.path(""));
    assert_eq!(names(&scratch.path("")), ["shutdown", HOOK]);
    assert!(!scratch.path("shutdown").is_symlink());
}

#[test]
fn in_an_initramfs_of_mkinitcpio_without_systemd_the_hook_is_shutdown_itself() {
    let scratch = Scratch::new().unwrap();
    fs::create_dir(scratch.path("hooks")).unwrap();
    fs::write(scratch.path("hooks/shutdown"), "copies the image").unwrap();
    fs::write(scratch.path("shutdown"), "unmounts, detaches").unwrap();
    build(&scratch.path(""));
    has_the_hook(&scratch.path(""));
    is_shutdown_itself(&scratch.path(""));
}

/// Runs by `make vm TEST=mkinitcpio MKINITCPIO=checkout`.
#[test]
fn the_real_mkinitcpio_builds_the_same() {
    let Some(checkout) = env::var_os("MKINITCPIO").filter(|path| !path.is_empty()) else {
        // This message must appear even if cargo captures the test's output.
        let _ = writeln!(
            io::stderr(),
            "the real mkinitcpio is skipped: Debian has no package of it; \
             MKINITCPIO=CHECKOUT names a checkout of https://gitlab.archlinux.org/archlinux/mkinitcpio/mkinitcpio"
        );
        return;
    };
    let checkout = repository().join(checkout).canonicalize().unwrap();
    let ours = repository().join("initramfs/mkinitcpio/install/nextkernel");
    for hooks in ["sd-shutdown nextkernel", "shutdown nextkernel"] {
        let scratch = Scratch::new().unwrap();
        let mut real = Command::new("unshare");
        real.args(["--mount", "sh", "-c", REAL, "sh", hooks]);
        real.env("SCRATCH", scratch.path("")).env("CHECKOUT", &checkout).env("OURS", &ours);
        run(real.env("INSTALLED", bed::host::paths::vm_directory().join("installed")));
        let image = scratch.path("image");
        has_the_hook(&image);
        match hooks {
            "shutdown nextkernel" => is_shutdown_itself(&image),
            _ => assert!(image.join("shutdown").is_file() && !image.join("shutdown").is_symlink()),
        }
        assert!(image.join("etc/initrd-release").exists());
    }
}
