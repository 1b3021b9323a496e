//! SHA-256, and the time that it costs to hash an image. On some architectures a piece of code that runs
//! between the two kernels, the purgatory, hashes the whole image once more. It uses plain SHA-256, without the
//! processor's instructions for it (arch/x86/purgatory, lib/crypto/sha256.c). The speed of this processor is
//! measured.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// The duration of the measurement.
const WHILE: Duration = Duration::from_millis(20);

/// The number of bytes that are hashed between two looks at the clock.
const CHUNK: usize = 64 * 1024;

/// The architectures whose kernel has such a purgatory (`ARCH_SUPPORTS_KEXEC_PURGATORY`, arch/*/Kconfig).
const HASHING: [&str; 4] = ["x86_64", "riscv64", "powerpc64", "s390x"];

/// Returns whether the image is hashed at a jump on this architecture.
#[must_use]
pub fn is_made_here() -> bool {
    HASHING.contains(&std::env::consts::ARCH)
}

/// Measures how many bytes this processor hashes in a second now.
#[must_use]
pub fn rate() -> u64 {
    let (chunk, mut state) = (vec![0x5a; CHUNK], INITIAL);
    let (since, mut bytes) = (Instant::now(), 0_u64);
    while since.elapsed() < WHILE {
        hash(&mut state, &chunk);
        bytes += CHUNK as u64;
    }
    std::hint::black_box(state);
    let micros = since.elapsed().as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

/// Returns the SHA-256 of all that can be read.
pub fn sha256(mut from: impl Read) -> io::Result<[u8; 32]> {
    let (mut state, mut chunk, mut length) = (INITIAL, Vec::with_capacity(CHUNK), 0_u64);
    loop {
        chunk.clear();
        let read = from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        length += read as u64;
        if read < CHUNK {
            break;
        }
        hash(&mut state, &chunk);
    }
    // FIPS 180-4, 5.1.1: the padding is a 1 bit, zeros, and the length in bits.
    chunk.push(0x80);
    chunk.resize((chunk.len() + 8).next_multiple_of(64) - 8, 0);
    chunk.extend((length * 8).to_be_bytes());
    hash(&mut state, &chunk);
    let mut sum = [0; 32];
    for (to, from) in sum.iter_mut().zip(state.iter().flat_map(|word| word.to_be_bytes())) {
        *to = from;
    }
    Ok(sum)
}

/// FIPS 180-4, 5.3.3: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Hashes whole blocks (FIPS 180-4, 6.2.2). The variables have the standard's names.
#[allow(clippy::many_single_char_names)]
fn hash(state: &mut [u32; 8], bytes: &[u8]) {
    for block in bytes.chunks_exact(64) {
        // The last sixteen words of the message schedule; each is replaced as soon as it has been used.
        let mut words = [0; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        for k in K {
            let [word, next, .., w14, _] = words;
            let [_, _, _, _, _, _, _, _, _, w9, ..] = words;
            let s0 = next.rotate_right(7) ^ next.rotate_right(18) ^ (next >> 3);
            let s1 = w14.rotate_right(17) ^ w14.rotate_right(19) ^ (w14 >> 10);
            words.rotate_left(1);
            let [.., last] = &mut words;
            *last = word.wrapping_add(s0).wrapping_add(w9).wrapping_add(s1);
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let one = h.wrapping_add(s1).wrapping_add((e & f) ^ (!e & g)).wrapping_add(k).wrapping_add(word);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let two = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e) = (g, f, e, d.wrapping_add(one));
            (d, c, b, a) = (c, b, a, one.wrapping_add(two));
        }
        for (sum, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = sum.wrapping_add(add);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_measured_is_sha256() {
        let digest = |bytes: &[u8]| sha256(bytes).unwrap().map(|byte| format!("{byte:02x}")).concat();
        // These are FIPS 180-4's own examples: "abc", and a million times "a".
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let million = digest(&vec![b'a'; 1_000_000]);
        assert_eq!(million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        // In one, the length no longer fits into the last block; in the other, the last block holds no data.
        // The sums are from sha256sum.
        assert_eq!(digest(&[0; 56]), "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb");
        assert_eq!(
            digest(&vec![0; CHUNK]),
            "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31"
        );
    }

    #[test]
    fn every_processor_hashes_something() {
        assert!(rate() > 0);
    }
}
