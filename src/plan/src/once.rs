/// The parameter by which a next kernel is told that it was started from a one-shot entry of a boot loader's, and may use it
/// up. It has a dot, so that the kernel takes it for a module's and says nothing.
pub const ONCE: &str = "nextkernel.once";

/// What that parameter holds of a one-shot entry besides who keeps it: FNV-1a of what it says, which tells one name from
/// another, and is no secret.
#[must_use]
pub fn checksum(text: impl Iterator<Item = u8>) -> u32 {
    text.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
