//! One-shot entries: boot entries that are chosen for the next boot alone.

use nextkernel_plan::{ONCE, checksum};

/// The EFI variable in which systemd-boot keeps a one-shot entry (Boot Loader Interface).
pub const VARIABLE: &str = "LoaderEntryOneShot";

/// The variable in grubenv in which GRUB's menu keeps a one-shot entry (grub-reboot).
pub const NEXT_ENTRY: &str = "next_entry";

/// A one-shot entry: where it is kept, and the text that is kept there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// Kept by systemd-boot in a variable of the firmware.
    Efi(String),
    /// Kept by GRUB in grubenv.
    Grub(String),
}

impl Once {
    /// The name of the parameter.
    pub const KEY: &'static str = ONCE;

    /// Returns the parameter for the next kernel's command line: where the one-shot entry is kept, and a
    /// checksum of its text.
    #[must_use]
    pub fn parameter(&self) -> String {
        let (keeper, says) = match self {
            Once::Efi(says) => ("efi", says),
            Once::Grub(says) => ("grub", says),
        };
        format!("{}={keeper}:{:08x}", Once::KEY, checksum(says.bytes()))
    }
}
