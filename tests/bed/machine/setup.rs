//! The description of a machine.

use std::path::{Path, PathBuf};

/// The architecture that is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// A PC.
    X86_64,
    /// QEMU's own board, described by a device tree. It has one serial port, and so no channel to an agent.
    Arm64,
    /// QEMU's own board, like arm64's.
    Riscv64,
}

impl Architecture {
    /// Returns QEMU's program for the architecture, and the arguments that it needs at least. arm64's newest
    /// processor checks every pointer that a function returns to, and that would take most of the time when
    /// emulated.
    pub(super) fn qemu(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["qemu-system-x86_64", "-cpu", "max"],
            Self::Arm64 => &["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"],
            Self::Riscv64 => &["qemu-system-riscv64", "-machine", "virt"],
        }
    }
}

/// The program that the firmware starts.
#[derive(Clone, Copy)]
pub enum Starts<'a> {
    /// A kernel that QEMU hands to the firmware.
    Kernel {
        /// The kernel.
        kernel: &'a Path,
        /// Its initrd.
        initrd: &'a Path,
        /// Its command line.
        cmdline: &'a str,
    },
    /// The boot loader on a disk's EFI system partition. The firmware is UEFI then.
    Uefi(&'a Path),
    /// The boot loader on a disk's EFI system partition, under Secure Boot and with these variables of the
    /// firmware.
    Verified(&'a Path, &'a Path),
    /// The boot loader in a disk's first sector.
    Bios(&'a Path),
}

/// The description of a machine to start.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The architecture that is emulated.
    pub architecture: Architecture,
    /// The program that the firmware starts.
    pub starts: Starts<'a>,
    /// The memory in MiB.
    pub memory: u32,
    /// Whether the time-stamp counter counts instructions.
    pub counting: bool,
    /// The disks, in order. Writes to them last over resets, and not longer.
    pub disks: &'a [PathBuf],
    /// Additional arguments for QEMU.
    pub args: &'a [String],
    /// Whether the guest waits in `tests/restored.c` until it is given its files.
    pub waits: bool,
    /// The file to which the console is appended.
    pub log: &'a Path,
}
