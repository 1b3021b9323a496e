//! Machines that UEFI and systemd-boot start.

use bed::guest::{Guest, Spec, Starts};
use bed::harness::Test;
use bed::machine::Scratch;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the image has it; of the guest's own suite.
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";

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
        let starts = Starts::Uefi(self.path());
        let mut guest = Guest::boot(&Spec { starts, ..Spec::new(test) })?;
        guest.ok("mkdir /efi && echo 'PARTLABEL=esp /efi vfat defaults 0 0' >>/etc/fstab && mount /efi")?;
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
