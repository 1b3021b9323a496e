//! Offsets in `struct boot_params` (arch/x86/include/uapi/asm/bootparam.h): in its setup header, which an image
//! begins with, too, and outside of it (Documentation/arch/x86/zero-page.rst).

pub(super) use crate::image::bzimage::*;
pub(super) use crate::loading::prepare::memory_map::E820 as MAP;
pub(super) use crate::loading::prepare::memory_map::E820_COUNT as MAP_COUNT;
pub(super) use crate::machine::efi::SECURE_BOOT;

/// The size of `struct boot_params`.
pub(super) const LENGTH: usize = 4096;

pub(super) const SCREEN: usize = 0x000;
pub(super) const SCREEN_MEMORY: usize = 0x002;
pub(super) const ACPI: usize = 0x070;
pub(super) const INITRD_HIGH: usize = 0x0c0;
pub(super) const INITRD_SIZE_HIGH: usize = 0x0c4;
pub(super) const CMDLINE_HIGH: usize = 0x0c8;
pub(super) const CONFIDENTIAL: usize = 0x13c;
pub(super) const EFI: usize = 0x1c0;
pub(super) const MEMORY: usize = 0x1e0;
pub(super) const DISKS_COUNT: usize = 0x1e9;
pub(super) const SIGNATURES_COUNT: usize = 0x1ea;
pub(super) const HEADER: usize = 0x1f1;
pub(super) const HEADER_END: usize = 0x201;
pub(super) const LOADER: usize = 0x210;
pub(super) const INITRD: usize = 0x218;
pub(super) const INITRD_SIZE: usize = 0x21c;
pub(super) const CMDLINE: usize = 0x228;
pub(super) const RELOCATABLE: usize = 0x234;
pub(super) const SUBARCH: usize = 0x23c;
pub(super) const SETUP_DATA: usize = 0x250;
pub(super) const SIGNATURES: usize = 0x290;
pub(super) const DISKS: usize = 0xd00;
