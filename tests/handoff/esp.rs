//! Machines that UEFI starts, and systemd-boot, or shim and GRUB.

use bed::guest::{Disks, Guest, Spec, Starts};
use bed::harness::Test;
use bed::machine::Scratch;
use bed::{host, shim};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the image has it; of the guest's own suite.
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// shim and GRUB, and where grub-install puts them; for firmware that knows nothing of that place, at the other, too
/// (`grub-install --force-extra-removable`).
const SIGNED: [((&str, &str), &str); 2] =
    [(shim::SHIM, "EFI/debian/shimx64.efi"), (shim::GRUB, "EFI/debian/grubx64.efi")];

/// The variables of the Boot Loader Interface.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// The files of an EFI system partition, as they are put together.
pub struct Esp(Scratch);

impl Esp {
    /// With systemd-boot alone.
    pub fn new(test: &Test) -> Result<Self, String> {
        let esp = Self(Scratch::new()?);
        esp.copy("EFI/BOOT/BOOTX64.EFI", &test.image.files()?.tree().join(SYSTEMD_BOOT))?;
        Ok(esp)
    }

    /// With shim and GRUB, as grub-install leaves it; /boot lies on the root. As long as nobody has made a grub.cfg there,
    /// it boots the image's kernel.
    pub fn grub(test: &Test) -> Result<Self, String> {
        let (esp, image) = (Self(Scratch::new()?), test.image.files()?);
        for ((from, removable), installed) in SIGNED {
            let file = read(&image.builder().join(from))?;
            esp.put(removable, &file)?;
            esp.put(installed, &file)?;
        }
        let mut blkid = Command::new("blkid");
        let uuid = host(blkid.args(["-s", "UUID", "-o", "value"]).arg(test.image.root(&image)))?;
        // The first three lines are what util/grub-install.c writes.
        let config = format!(
            "search.fs_uuid {} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n\
             linux /vmlinuz root=LABEL=root rw console=ttyS0\ninitrd /initrd.img\nboot\n",
            uuid.trim()
        );
        esp.put(shim::GRUB_CFG, config)?;
        Ok(esp)
    }

    /// Adds a file.
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        let path = self.0.path(path);
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| fs::write(&path, bytes)).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Adds a file of the host.
    pub fn copy(&self, path: &str, from: &Path) -> Result<(), String> {
        self.put(path, read(from)?)
    }

    /// The folder that its files are in.
    pub fn path(&self) -> PathBuf {
        self.0.path("")
    }

    /// Boots from it; it is mounted at /efi then.
    pub fn boot(&self, test: &Test) -> Result<Guest, String> {
        self.boots(Spec::new(test), "/efi")
    }

    /// The same with a root that the firmware shows to the boot loader, and at /boot/efi. OVMF connects no disk that has no
    /// place in the boot order (`ConnectDevicesFromQemu`).
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

/// A variable's path.
pub fn variable(name: &str) -> String {
    format!("{EFIVARS}/{name}-{VENDOR}")
}

/// The command that writes a text into a variable.
pub fn set(name: &str, value: &str) -> String {
    let octal = |byte: u8| format!("\\{byte:03o}");
    let value: String = value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).map(octal).collect();
    // Its attributes stand first, and a variable is written at once or not at all.
    format!("printf '\\007\\000\\000\\000{value}' >/run/variable && cat /run/variable >{}", variable(name))
}

/// What a variable says, where it holds one text.
pub fn says(guest: &mut Guest, name: &str) -> Result<String, String> {
    guest.ok(&format!("cat {} | tail -c +5 | tr -d '\\0'", variable(name)))
}

/// The command that proves that a variable is not there.
pub fn is_gone(name: &str) -> String {
    format!("[ ! -e {} ]", variable(name))
}
