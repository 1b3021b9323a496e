//! A disk that starts under Secure Boot as an installed Debian does: Microsoft's key verifies shim, shim's
//! verifies GRUB, and GRUB asks shim about the kernel. shim brings Debian's key, which the kernel takes over.

use crate::esp;
use crate::image::Files;
use std::fs;
use std::path::Path;

/// Of Debian's packages shim-signed and grub-efi-amd64-signed, and where they stand on a disk that is not
/// installed to the machine (UEFI specification, "Removable Media Boot Behavior").
pub const SHIM: (&str, &str) = ("usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI");
/// See [`SHIM`].
pub const GRUB: (&str, &str) = ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "EFI/BOOT/grubx64.efi");

/// Where Debian's GRUB looks for its configuration.
pub const GRUB_CFG: &str = "EFI/debian/grub.cfg";

/// Makes the disk, by way of a folder, from the image's kernel, an initramfs and a command line.
pub fn disk(
    image: &Files,
    initramfs: &[u8],
    cmdline: &str,
    folder: &Path,
    file: &Path,
) -> Result<(), String> {
    let put = |path: &str, bytes: &[u8]| {
        let path = folder.join(path);
        let made = fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| fs::write(&path, bytes));
        made.map_err(|e| format!("{}: {e}", path.display()))
    };
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    for (from, to) in [SHIM, GRUB] {
        put(to, &read(&image.builder().join(from))?)?;
    }
    put("linux", &read(&image.kernel())?)?;
    put("initramfs", initramfs)?;
    put(GRUB_CFG, format!("linux /linux {cmdline}\ninitrd /initramfs\nboot\n").as_bytes())?;
    esp::disk(folder, file)
}
