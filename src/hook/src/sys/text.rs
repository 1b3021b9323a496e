//! A text made without a heap, for calls that take a C string.

use core::ffi::CStr;
use core::fmt::{self, Write};

/// At most `N` bytes, the NUL included.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    /// How many it holds, where all fit.
    length: Option<usize>,
}

impl<const N: usize> Text<N> {
    /// What is shown so.
    #[must_use]
    pub fn of(what: impl fmt::Display) -> Text<N> {
        let mut text = Text { bytes: [0; N], length: None };
        text.length = fill(&mut text.bytes, &what);
        text
    }

    /// The text, where it fits and holds no NUL of its own.
    #[must_use]
    pub fn as_c_str(&self) -> Option<&CStr> {
        let text = CStr::from_bytes_until_nul(&self.bytes).ok();
        text.filter(|text| self.length == Some(text.count_bytes()))
    }
}

/// Writes it and returns its length, where it fits. One copy of this is enough for texts of all lengths.
#[inline(never)]
fn fill(bytes: &mut [u8], what: &dyn fmt::Display) -> Option<usize> {
    let mut place = Place { bytes, length: 0 };
    write!(place, "{what}").ok().map(|()| place.length)
}

struct Place<'b> {
    bytes: &'b mut [u8],
    length: usize,
}

impl Write for Place<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        // One byte is kept for the NUL.
        let fits = end < self.bytes.len();
        let room = self.bytes.get_mut(self.length..end).filter(|_| fits);
        room.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_to_the_byte_is_no_text() {
        assert_eq!(Text::<4>::of("abc").as_c_str(), Some(c"abc"));
        assert_eq!(Text::<4>::of("abcd").as_c_str(), None);
        assert_eq!(Text::<8>::of("a\0b").as_c_str(), None);
        assert_eq!(Text::<8>::of(format_args!("{}/{}", "a", 1)).as_c_str(), Some(c"a/1"));
        assert_eq!(Text::<1>::of("").as_c_str(), Some(c""));
    }
}
