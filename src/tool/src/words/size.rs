//! Sizes in a form for people.

use std::fmt;

/// Bytes, shown in MB (1,000,000 bytes) from 0.1 MB on, and rounded up, so that a required size is never shown
/// too small.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.div_ceil(100_000) {
            _ if self.0 < 100_000 => write!(out, "{} bytes", self.0),
            tenths if tenths < 100 => write!(out, "{}.{} MB", tenths / 10, tenths % 10),
            tenths => write!(out, "{} MB", tenths.div_ceil(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_never_shown_too_small() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (99_999, "99999 bytes"),
            (100_000, "0.1 MB"),
            (1_250_001, "1.3 MB"),
            (12_000_001, "13 MB"),
        ] {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }
}
