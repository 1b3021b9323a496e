//! Offsets in the setup header of a bzImage, and the meaning of its flags (Documentation/arch/x86/boot.rst).

pub(crate) const SETUP_SECTORS: usize = 0x1f1;
pub(crate) const SIZE: usize = 0x1f4;
pub(crate) const BOOT_FLAG: usize = 0x1fe;
pub(crate) const JUMP: usize = 0x200;
pub(crate) const MAGIC: usize = 0x202;
pub(crate) const VERSION: usize = 0x206;
pub(crate) const FLAGS: usize = 0x211;
pub(crate) const ALIGNMENT: usize = 0x230;
pub(crate) const XFLAGS: usize = 0x236;
pub(crate) const CMDLINE_MAX: usize = 0x238;
pub(crate) const PAYLOAD: usize = 0x248;
pub(crate) const PAYLOAD_LENGTH: usize = 0x24c;
pub(crate) const PREFERRED: usize = 0x258;
pub(crate) const INIT_SIZE: usize = 0x260;

/// Bits of `xloadflags`: the image has a 64-bit entry; it may be placed anywhere in memory; it takes over EFI's
/// runtime services from a previous kernel; it can be started with five levels of page tables; it switches them
/// on by itself.
pub(crate) const KERNEL_64: u16 = 1 << 0;
pub(crate) const ANYWHERE: u16 = 1 << 1;
pub(crate) const EFI_KEXEC: u16 = 1 << 4;
pub(crate) const FIVE_LEVELS: u16 = 1 << 5;
pub(crate) const FIVE_LEVELS_ENABLED: u16 = 1 << 6;

/// The first version of the boot protocol in which the header says where the payload is.
pub(crate) const PAYLOAD_SINCE: u16 = 0x0208;

/// Returns whether an image that begins with these bytes is a bzImage.
pub(crate) fn is_one(head: &[u8]) -> bool {
    head.get(MAGIC..MAGIC + 4) == Some(b"HdrS") && head.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
}

/// Returns the length in bytes of the sectors that are used only in real mode. The part that is loaded follows
/// them.
pub(crate) fn real_mode(head: &[u8]) -> u64 {
    let sectors = match head.get(SETUP_SECTORS) {
        Some(0) | None => 4,
        Some(sectors) => u64::from(*sectors),
    };
    (sectors + 1) * 512
}
