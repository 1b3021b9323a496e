//! Any bytes are a LUKS2 header with tokens, or none, without a panic, and what is told of them steers no terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::machine::luks;

fuzz_target!(|bytes: &[u8]| {
    for token in luks::tokens(bytes) {
        assert!(!token.contains(|c: char| c.is_ascii_control()), "{token:?}");
    }
});
