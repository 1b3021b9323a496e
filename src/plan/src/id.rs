use core::fmt;

/// The id of one handoff: 64 bits, written as 16 hexadecimal digits. It names the directory of the image set,
/// is part of every record, and distinguishes one handoff from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffId(pub u64);

impl HandoffId {
    /// Reads 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_digits(digits: &str) -> Option<HandoffId> {
        let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() != 16 || !lower {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(HandoffId)
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = HandoffId(0x0003_9c1e_2b7d_4a60);
        assert_eq!(id.to_string(), "00039c1e2b7d4a60");
        assert_eq!(HandoffId::from_digits("00039c1e2b7d4a60"), Some(id));
        for bad in ["", "39c1e2b7d4a60", "+0039c1e2b7d4a60", "00039C1E2B7D4A60", "00039c1e2b7d4a600"] {
            assert_eq!(HandoffId::from_digits(bad), None, "{bad:?}");
        }
    }
}
