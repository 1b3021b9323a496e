//! Kernels with a signature, and what becomes of them: a PE file (Microsoft's "PE Format") names in its header
//! where its signatures are, behind everything else.

use std::ops::Range;

/// Where the header's place is written.
const HEADER_AT: usize = 0x3c;
/// From there to the entry for signatures, the fifth of the data directories of a 64-bit image.
const SIGNATURES: usize = 24 + 112 + 4 * 8;

/// How many sectors of a bzImage stand before its code, less one (Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;

/// A kernel without its signatures.
pub fn stripped(kernel: &[u8]) -> Result<Vec<u8>, String> {
    let (entry, signatures) = signatures(kernel).ok_or("the kernel has no signature")?;
    let mut bytes = kernel.get(..signatures).ok_or("the kernel is cut off")?.to_vec();
    bytes.splice(entry, [0; 8]);
    Ok(bytes)
}

/// A kernel with one bit of its code changed, under the same signatures: of the code that unpacks the rest, which nobody but
/// a signature covers.
pub fn damaged(kernel: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = kernel.to_vec();
    let sectors = *bytes.get(SETUP_SECTORS).ok_or("the kernel is empty")?;
    let code = (usize::from(sectors) + 1) * 512 + 256;
    *bytes.get_mut(code).ok_or("the kernel is cut off")? ^= 1;
    Ok(bytes)
}

/// The entry for signatures, and where they begin.
fn signatures(kernel: &[u8]) -> Option<(Range<usize>, usize)> {
    let entry = usize::try_from(word(kernel, HEADER_AT)?).ok()? + SIGNATURES;
    let begin = usize::try_from(word(kernel, entry)?).ok()?;
    (begin > 0).then_some((entry..entry + 8, begin))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
