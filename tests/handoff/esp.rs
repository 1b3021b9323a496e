//! Machines that UEFI starts, with systemd-boot, or with shim and GRUB.

use bed::disk::disks::Disks;
use bed::disk::shim;
use bed::guest::whole::{Guest, Spec, Starts};
use bed::harness::Test;
use bed::host::command;
use bed::host::scratch::Scratch;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Path of systemd-boot in the image; it is that of the guest's own release.
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// shim and GRUB, the removable path, and the path where grub-install puts them. The removable path serves
/// firmware that does not know the other (`grub-install --force-extra-removable`).
const SIGNED: [((&str, &str), &str); 2] =
    [(shim::SHIM, "EFI/debian/shimx64.efi"), (shim::GRUB, "EFI/debian/grubx64.efi")];

/// Vendor GUID of the variables of the Boot Loader Interface.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// The files of an EFI system partition, in a scratch directory.
pub struct Esp(Scratch);

impl Esp {
    /// Makes a partition with systemd-boot alone.
    pub fn new(test: &Test) -> Result<Self, String> {
        let esp = Self(Scratch::new()?);
        esp.copy("EFI/BOOT/BOOTX64.EFI", &test.image.files()?.tree().join(SYSTEMD_BOOT))?;
        Ok(esp)
    }

    /// Makes a partition with shim and GRUB, as grub-install leaves it; /boot is on the root. Until
    /// /boot/grub/grub.cfg exists, GRUB boots the image's kernel.
    pub fn grub(test: &Test) -> Result<Self, String> {
        let (esp, image) = (Self(Scratch::new()?), test.image.files()?);
        for ((from, removable), installed) in SIGNED {
            let file = read(&image.builder().join(from))?;
            esp.put(removable, &file)?;
            esp.put(installed, &file)?;
        }
        let mut blkid = Command::new("blkid");
        let uuid = command::run(blkid.args(["-s", "UUID", "-o", "value"]).arg(test.image.root(&image)))?;
        // util/grub-install.c writes the first three lines.
        let config = format!(
            "search.fs_uuid {} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n\
             linux /vmlinuz root=LABEL=root rw console=ttyS0\ninitrd /initrd.img\nboot\n",
            uuid.trim()
        );
        esp.put(shim::GRUB_CFG, config)?;
        Ok(esp)
    }

    /// Adds a file with this content.
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        let path = self.0.path(path);
        let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
        directory.and_then(|()| fs::write(&path, bytes)).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Adds a copy of a file of the host.
    pub fn copy(&self, path: &str, from: &Path) -> Result<(), String> {
        self.put(path, read(from)?)
    }

    /// Returns the directory that holds the files.
    pub fn path(&self) -> PathBuf {
        self.0.path("")
    }

    /// Boots from the partition, and mounts it at /efi.
    pub fn boot(&self, test: &Test) -> Result<Guest, String> {
        self.boots(Spec::new(test), "/efi")
    }

    /// Boots with a root that the firmware shows to the boot loader, and mounts the partition at /boot/efi. OVMF
    /// connects no disk that has no place in the boot order (`ConnectDevicesFromQemu`).
    pub fn boot_from_root(&self, test: &Test) -> Result<Guest, String> {
        let image = test.image.files()?;
        let root = test.image.root(&image);
        let drive = format!("id=root,if=none,format=raw,snapshot=on,file={}", root.display());
        let qemu = ["-drive", &drive, "-device", "virtio-blk-pci,drive=root,bootindex=1"];
        let disks =
            Disks { disks: Vec::new(), initrd: image.initrd(), root: "LABEL=root".into(), are_shared: false };
        let qemu = qemu.map(str::to_owned).into();
        self.boots(Spec { disks: Some(disks), qemu, ..Spec::new(test) }, "/boot/efi")
    }

    fn boots(&self, spec: Spec, point: &str) -> Result<Guest, String> {
        let mut guest = Guest::boot(&Spec { starts: Starts::Uefi(self.path()), ..spec })?;
        guest.ok(&format!(
            "mkdir {point} && echo 'PARTLABEL=esp {point} vfat defaults 0 0' >>/etc/fstab && mount {point}"
        ))?;
        Ok(guest)
    }
}

pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Returns a variable's path in efivarfs.
pub fn variable(name: &str) -> String {
    format!("{EFIVARS}/{name}-{VENDOR}")
}

/// Returns the command that writes a text into a variable.
pub fn set(name: &str, value: &str) -> String {
    let octal = |byte: u8| format!("\\{byte:03o}");
    let value: String = value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).map(octal).collect();
    // The value begins with the attributes, and must be written in a single write.
    format!("printf '\\007\\000\\000\\000{value}' >/run/variable && cat /run/variable >{}", variable(name))
}

/// Returns the text of a variable that holds a single one.
pub fn says(guest: &mut Guest, name: &str) -> Result<String, String> {
    guest.ok(&format!("cat {} | tail -c +5 | tr -d '\\0'", variable(name)))
}

/// Returns the command that succeeds if a variable does not exist.
pub fn is_gone(name: &str) -> String {
    format!("[ ! -e {} ]", variable(name))
}
