//! A disk that starts under Secure Boot as an installed Debian does. Microsoft's key verifies shim, shim's key
//! verifies GRUB, and GRUB asks shim about the kernel. shim brings Debian's key, which the kernel takes over.

use crate::disk::esp;
use crate::image::Files;
use std::fs;
use std::path::Path;

/// The file of Debian's package shim-signed, and its place on a disk that is not installed to the machine (UEFI
/// specification, "Removable Media Boot Behavior").
pub const SHIM: (&str, &str) = ("usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI");
/// The file of Debian's package grub-efi-amd64-signed, and its place on such a disk: see [`SHIM`].
pub const GRUB: (&str, &str) = ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "EFI/BOOT/grubx64.efi");

/// The file in which Debian's GRUB looks for its configuration.
pub const GRUB_CFG: &str = "EFI/debian/grub.cfg";

/// The firmware's variables, with Microsoft's keys enrolled (Debian's package ovmf).
pub const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// The variable that tells shim to verify nothing, as `mokutil --disable-validation` has it set (shim's mok.c):
/// its vendor, `605dab50-e046-4300-abb6-3dd810dd8b23`, and its name. It cannot be set from a running system.
const VENDOR: [u8; 16] =
    [0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23];
const NAME: &str = "MokSBState";

/// The format of the firmware's variables (edk2's VariableFormat.h). They follow the headers of the volume and of
/// the store, each with a header of its own and at a multiple of 4. After the last one, all bytes are 0xff.
const FIRST: usize = 0x64;
const HEADER: usize = 60;
const BEGIN: [u8; 2] = [0xaa, 0x55];

/// Returns the firmware's variables with that variable added.
pub fn without_validation() -> Result<Vec<u8>, String> {
    let mut store = fs::read(VARIABLES).map_err(|e| format!("{VARIABLES}: {e}"))?;
    let name: Vec<u8> = NAME.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let number = |at: usize| {
        let bytes = store.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let mut at = FIRST;
    while store.get(at..).is_some_and(|rest| rest.starts_with(&BEGIN)) {
        let size = number(at + 36).zip(number(at + 40)).map(|(name, data)| HEADER + name + data);
        at += size.ok_or("a variable is cut off")?.next_multiple_of(4);
    }
    let mut variable = vec![0; HEADER];
    // The variable is complete, non-volatile, and only accessible to boot services.
    let parts: [(usize, &[u8]); 6] = [
        (0, &BEGIN),
        (2, &[0x3f]),
        (4, &[3]),
        (36, &(u32::try_from(name.len()).unwrap_or_default()).to_le_bytes()),
        (40, &1_u32.to_le_bytes()),
        (44, &VENDOR),
    ];
    for (at, bytes) in parts {
        variable.splice(at..at + bytes.len(), bytes.iter().copied());
    }
    variable.extend(name);
    variable.push(1);
    let end = at + variable.len();
    if store.get(at..end).is_none_or(|room| room.iter().any(|byte| *byte != 0xff)) {
        return Err(format!("{VARIABLES} has no room at {at:#x}"));
    }
    store.splice(at..end, variable);
    Ok(store)
}

/// Makes the disk from the image's kernel, an initramfs and a command line. Its files are collected in `directory`
/// first.
pub fn disk(
    image: &Files,
    initramfs: &[u8],
    cmdline: &str,
    directory: &Path,
    file: &Path,
) -> Result<(), String> {
    let put = |path: &str, bytes: &[u8]| {
        let path = directory.join(path);
        let made =
            fs::create_dir_all(path.parent().unwrap_or(directory)).and_then(|()| fs::write(&path, bytes));
        made.map_err(|e| format!("{}: {e}", path.display()))
    };
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    for (from, to) in [SHIM, GRUB] {
        put(to, &read(&image.builder().join(from))?)?;
    }
    put("linux", &read(&image.kernel())?)?;
    put("initramfs", initramfs)?;
    put(GRUB_CFG, format!("linux /linux {cmdline}\ninitrd /initramfs\nboot\n").as_bytes())?;
    esp::disk(directory, file)
}
