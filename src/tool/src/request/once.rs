//! One-shot entries: a boot entry that counts once.

use nextkernel_plan::{ONCE, checksum};

/// The variable in which systemd-boot keeps it (Boot Loader Interface).
pub const VARIABLE: &str = "LoaderEntryOneShot";

/// The variable in grubenv in which GRUB's menu keeps it (grub-reboot).
pub const NEXT_ENTRY: &str = "next_entry";

/// A one-shot entry: who keeps it, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// systemd-boot, in the firmware's variables.
    Efi(String),
    /// GRUB, in grubenv.
    Grub(String),
}

impl Once {
    /// The parameter's name.
    pub const KEY: &'static str = ONCE;

    /// What the next kernel is told: who keeps it, and a checksum of what it says.
    #[must_use]
    pub fn parameter(&self) -> String {
        let (keeper, says) = match self {
            Once::Efi(says) => ("efi", says),
            Once::Grub(says) => ("grub", says),
        };
        format!("{}={keeper}:{:08x}", Once::KEY, checksum(says.bytes()))
    }
}
