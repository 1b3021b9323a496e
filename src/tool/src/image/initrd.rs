//! The marker that the kernel looks for at the end of an initrd.

/// The end of a bootconfig, and the most bytes of padding between it and the end of an initrd with which the
/// kernel still finds it (`get_boot_config_from_initrd`, init/main.c).
pub(crate) const BOOT_CONFIG: &[u8] = b"#BOOTCONFIG\n";

pub(crate) const BOOT_CONFIG_PADDING: usize = 3;
