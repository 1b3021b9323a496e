//! Tests real kernels and initrds, whole and damaged, without a guest: only whole images are staged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::host::scratch::Scratch;
use bed::image::Image;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Numbers of cuts and of changed places for each image.
const CUTS: usize = 20;
const CHANGES: usize = 10;

/// Returns the message with which `nextkernel embed` refuses the images; staging makes the same checks.
fn refused(kernel: &Path, initrd: &Path) -> Option<String> {
    let scratch = Scratch::new().unwrap();
    let mut embed = Command::new(bed::host::paths::vm_directory().join("installed/usr/bin/nextkernel"));
    embed.arg("embed").arg("--kernel").arg(kernel).arg("--initrd").arg(initrd).args(["--cmdline", "x"]);
    let output = embed.arg(scratch.path("embedded")).stdin(Stdio::null()).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Cuts a file off at places all over it, the last of them 9 bytes before its end; and changes 4 bytes at places within
/// the range that a checksum covers.
fn damaged(bytes: &[u8], covered: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    let cuts = (0..CUTS).map(|number| {
        let length = (bytes.len() - 9) * (number + 1) / CUTS;
        (format!("cut to {length} of {}", bytes.len()), bytes.get(..length).unwrap().to_vec())
    });
    let changes = (0..CHANGES).map(|number| {
        let at = covered.start + (covered.len() - 4) * number / (CHANGES - 1);
        let mut other = bytes.to_vec();
        other.get_mut(at..at + 4).unwrap().iter_mut().for_each(|byte| *byte ^= 0x5a);
        (format!("changed at {at} of {}", bytes.len()), other)
    });
    cuts.chain(changes).collect()
}

/// Returns a small valid kernel and initrd, for the image that is not under test.
fn small(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let (kernel, initrd) = (scratch.path("stub"), scratch.path("empty"));
    fs::write(&kernel, bed::kernel::stub::kernel().unwrap()).unwrap();
    fs::write(&initrd, [0; 512]).unwrap();
    assert_eq!(refused(&kernel, &initrd), None);
    (kernel, initrd)
}

#[test]
fn no_real_kernel_is_staged_that_was_cut_off_or_whose_payload_was_changed() {
    let scratch = Scratch::new().unwrap();
    let (_, empty) = small(&scratch);
    let kernel = Image::Debian13.files().unwrap().kernel();
    assert_eq!(refused(&kernel, &empty), None);
    let bytes = fs::read(kernel).unwrap();
    // Fields of boot.rst: setup_sects, payload_offset and payload_length.
    let long = |at: usize| u32::from_le_bytes(bytes.get(at..at + 4).unwrap().try_into().unwrap()) as usize;
    let begin = (usize::from(*bytes.get(0x1f1).unwrap()) + 1) * 512 + long(0x248);
    // The last four bytes are the size, appended by the kernel's build and read by no decompressor.
    for (how, other) in damaged(&bytes, begin..begin + long(0x24c) - 4) {
        let damaged = scratch.path("vmlinuz");
        fs::write(&damaged, other).unwrap();
        let said = refused(&damaged, &empty).unwrap_or_else(|| panic!("{how}: it is staged"));
        assert!(said.contains(" damaged: ") || said.contains("no kernel"), "{how}: {said}");
    }
}

#[test]
fn no_real_initrd_is_staged_that_was_cut_off_or_changed() {
    let scratch = Scratch::new().unwrap();
    let (stub, _) = small(&scratch);
    let initrd = Image::Debian13.files().unwrap().initrd();
    assert_eq!(refused(&stub, &initrd), None);
    let bytes = fs::read(initrd).unwrap();
    for (how, other) in damaged(&bytes, bytes.len() / 2..bytes.len() - 8) {
        let damaged = scratch.path("initrd");
        fs::write(&damaged, other).unwrap();
        let said = refused(&stub, &damaged).unwrap_or_else(|| panic!("{how}: it is staged"));
        assert!(said.contains(" damaged: at byte "), "{how}: {said}");
    }
}
