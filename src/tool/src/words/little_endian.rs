//! Reads numbers from little-endian data. A number that is cut off reads as 0.

/// Reads two bytes.
#[must_use]
pub fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

/// Reads four bytes.
#[must_use]
pub fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(bytes, at))
}

/// Reads eight bytes.
#[must_use]
pub fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_byte_comes_first_and_what_is_cut_off_is_0() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!((short(&bytes, 1), long(&bytes, 1)), (0x0302, 0x0504_0302));
        assert_eq!((wide(&bytes, 1), wide(&bytes, 2)), (0x0908_0706_0504_0302, 0));
        assert_eq!((short(&bytes, 8), long(&[], usize::MAX)), (0, 0));
    }
}
