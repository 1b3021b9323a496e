//! Choices that the arguments of `nextkernel stage` and the configuration share.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which one a person wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
pub enum SyscallChoice {
    /// The verified one where it is there; with --thaw the direct one, unless something forbids it
    #[default]
    Auto,
    /// `kexec_file_load(2)`: the kernel reads and checks the image itself
    Verified,
    /// `kexec_load(2)`: segments that are made by day
    Direct,
}

impl SyscallChoice {
    /// Reads the word of the configuration.
    #[must_use]
    pub fn from_word(word: &str) -> Option<SyscallChoice> {
        match word {
            "auto" => Some(SyscallChoice::Auto),
            "verified" => Some(SyscallChoice::Verified),
            "direct" => Some(SyscallChoice::Direct),
            _ => None,
        }
    }
}

/// A boot loader whose choice can be detected, as `boot-loader` in the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootLoader {
    /// `systemd-boot`
    SystemdBoot,
    /// `grub`
    Grub,
    /// `extlinux`: U-Boot and syslinux read the same file.
    Extlinux,
    /// `none`: the distribution's convention decides.
    None,
}

impl BootLoader {
    /// Reads the word of the configuration.
    #[must_use]
    pub fn from_word(word: &str) -> Option<BootLoader> {
        match word {
            "systemd-boot" => Some(BootLoader::SystemdBoot),
            "grub" => Some(BootLoader::Grub),
            "extlinux" => Some(BootLoader::Extlinux),
            "none" => Some(BootLoader::None),
            _ => None,
        }
    }
}

/// A verb that a plan can cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
pub enum OnVerb {
    /// `systemctl kexec`, and `nextkernel reboot` with every init
    Kexec,
    /// A plain `reboot`
    Reboot,
}

/// Whether the image is loaded when it is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
pub enum PreloadChoice {
    /// It is, and copies are kept in /run for the case that somebody unloads it
    #[default]
    Yes,
    /// It is loaded at the end of shutdown
    No,
    /// It is, and no copies are kept
    Only,
}

impl PreloadChoice {
    /// Reads the word of the configuration.
    #[must_use]
    pub fn from_word(word: &str) -> Option<PreloadChoice> {
        PreloadChoice::from_str(word, false).ok()
    }
}
