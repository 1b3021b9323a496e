/// The kernel parameter that tells the next system that it was started from a boot loader's one-shot entry,
/// which it may consume. The name has a dot, so that the kernel takes it for a module's parameter and does
/// not warn.
pub const ONCE: &str = "nextkernel.once";

/// Returns the checksum of a one-shot entry for that parameter, which also says where the entry is kept. It
/// is FNV-1a of the entry's text: it distinguishes one name from another, and is no secret.
#[must_use]
pub fn checksum(text: impl Iterator<Item = u8>) -> u32 {
    text.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
