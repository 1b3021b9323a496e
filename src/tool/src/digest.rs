//! What the digest over an image costs. On some architectures a piece of code between the two kernels, the
//! purgatory, hashes the whole image once more, with plain SHA-256 and none of the processor's help
//! (arch/x86/purgatory, lib/crypto/sha256.c). How fast this processor does that is measured, not known.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// How long is measured.
const WHILE: Duration = Duration::from_millis(20);

/// What is hashed before the clock is looked at.
const CHUNK: usize = 64 * 1024;

/// Where the kernel has such a purgatory (`ARCH_SUPPORTS_KEXEC_PURGATORY`, arch/*/Kconfig).
const HASHING: [&str; 4] = ["x86_64", "riscv64", "powerpc64", "s390x"];

/// Whether the image is hashed on this architecture at a jump.
#[must_use]
pub fn is_made_here() -> bool {
    HASHING.contains(&std::env::consts::ARCH)
}

/// Bytes in a second, here and now.
#[must_use]
pub fn rate() -> u64 {
    let (chunk, mut hash) = (vec![0x5a; CHUNK], Sha256::new());
    let (since, mut bytes) = (Instant::now(), 0_u64);
    while since.elapsed() < WHILE {
        hash.update(&chunk);
        bytes += CHUNK as u64;
    }
    std::hint::black_box(hash.finalize());
    let micros = since.elapsed().as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_hashes_something() {
        assert!(rate() > 0);
    }
}
