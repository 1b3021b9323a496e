//! Names from the kernel, stored without a heap: a name that does not fit is cut.

use core::ffi::CStr;
use core::fmt;

/// At most `N` bytes (255 at most) of a name that is most likely text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Name<N> {
    /// Returns the name, or as much of it as fits.
    #[must_use]
    pub fn cut(name: &[u8]) -> Name<N> {
        let mut kept = Name { bytes: [0; N], length: 0 };
        kept.length = copy(&mut kept.bytes, name);
        kept
    }

    /// Returns the name with every `from` replaced by `to`.
    #[must_use]
    pub fn replace(mut self, from: u8, to: u8) -> Name<N> {
        for byte in &mut self.bytes {
            if *byte == from {
                *byte = to;
            }
        }
        self
    }

    /// Returns the bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    /// Returns the name as text, or `None` if it is not valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }

    /// Returns the name as a C string. It is empty if the name fills its buffer, because then no NUL follows
    /// it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Display for Name<N> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_text(self.as_bytes(), out)
    }
}

/// Returns a hash of some bytes, which tells them from others (FNV-1a).
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

// These functions are not generic, so the compiler emits only one copy of each for names of all lengths.

#[inline(never)]
fn copy(place: &mut [u8], name: &[u8]) -> u8 {
    let mut length = 0;
    for (to, from) in place.iter_mut().zip(name).take(u8::MAX.into()) {
        *to = *from;
        length += 1;
    }
    length
}

#[inline(never)]
fn write_text(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        // Anybody may have chosen this name, and a newline in it could forge a log line of ours.
        for (number, plain) in chunk.valid().split(char::is_control).enumerate() {
            out.write_str(if number == 0 { "" } else { "?" })?;
            out.write_str(plain)?;
        }
        if !chunk.invalid().is_empty() {
            out.write_str("?")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_to_its_place_and_always_text() {
        assert_eq!(Name::<4>::cut(b"ext4").to_string(), "ext4");
        assert_eq!(Name::<4>::cut(b"btrfs").to_string(), "btrf");
        assert_eq!(Name::<8>::cut(b"a\xffb").to_string(), "a?b");
        assert_eq!(Name::<8>::cut(b"").to_string(), "");
    }

    #[test]
    fn a_name_is_never_more_than_a_part_of_one_line() {
        let evil = "x\nnextkernel: \r\x1b[2J\u{85}\0";
        assert_eq!(Name::<64>::cut(evil.as_bytes()).to_string(), "x?nextkernel: ??[2J??");
    }
}
