//! Kernels with a signature that is removed or no longer matches. A PE file (Microsoft's "PE Format") names in
//! its header the place of its signatures, which is behind everything else.

use std::ops::Range;

/// The offset at which the header's own offset is stored.
const HEADER_AT: usize = 0x3c;
/// The distance from the header to the entry for signatures, the fifth of the data directories of a 64-bit image.
const SIGNATURES: usize = 24 + 112 + 4 * 8;

/// The offset of the number of sectors before a bzImage's code, less one (Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;

/// Returns a kernel without its signatures.
pub fn stripped(kernel: &[u8]) -> Result<Vec<u8>, String> {
    let (entry, signatures) = signatures(kernel).ok_or("the kernel has no signature")?;
    let mut bytes = kernel.get(..signatures).ok_or("the kernel is cut off")?.to_vec();
    bytes.splice(entry, [0; 8]);
    Ok(bytes)
}

/// Returns a kernel with one bit of its code changed, under the same signatures. The bit is in the code that
/// unpacks the rest, which only a signature covers.
pub fn damaged(kernel: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = kernel.to_vec();
    let sectors = *bytes.get(SETUP_SECTORS).ok_or("the kernel is empty")?;
    let code = (usize::from(sectors) + 1) * 512 + 256;
    *bytes.get_mut(code).ok_or("the kernel is cut off")? ^= 1;
    Ok(bytes)
}

/// Returns the place of the entry for signatures, and the offset at which they begin.
fn signatures(kernel: &[u8]) -> Option<(Range<usize>, usize)> {
    let entry = usize::try_from(word(kernel, HEADER_AT)?).ok()? + SIGNATURES;
    let begin = usize::try_from(word(kernel, entry)?).ok()?;
    (begin > 0).then_some((entry..entry + 8, begin))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
