//! What the kernel looks for at the end of an initrd.

/// What a bootconfig ends with, and how far before the end of an initrd the kernel still looks for that
/// (`get_boot_config_from_initrd`, init/main.c).
pub(crate) const BOOT_CONFIG: &[u8] = b"#BOOTCONFIG\n";

pub(crate) const BOOT_CONFIG_PADDING: usize = 3;
