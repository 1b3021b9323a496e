//! Parses any bytes as a LUKS2 header with tokens, or refuses them, without a panic; the reported text cannot
//! steer a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::machine::luks;

fuzz_target!(|bytes: &[u8]| {
    for token in luks::tokens(bytes) {
        assert!(!token.contains(|c: char| c.is_ascii_control()), "{token:?}");
    }
});
