//! Text built without a heap, for calls that take a C string.

use core::ffi::CStr;
use core::fmt::{self, Write};

/// Text of at most `N` bytes, the NUL included.
pub struct Text<const N: usize> {
    bytes: [u8; N],
    /// Its length in bytes; `None` if not everything fitted.
    length: Option<usize>,
}

impl<const N: usize> Text<N> {
    /// Formats a value.
    #[must_use]
    pub fn of(what: impl fmt::Display) -> Text<N> {
        let mut text = Text { bytes: [0; N], length: None };
        text.length = fill(&mut text.bytes, &what);
        text
    }

    /// Returns the text, or `None` if it did not fit or contains a NUL.
    #[must_use]
    pub fn as_c_str(&self) -> Option<&CStr> {
        let text = CStr::from_bytes_until_nul(&self.bytes).ok();
        text.filter(|text| self.length == Some(text.count_bytes()))
    }
}

/// Formats a value into the buffer and returns its length, or `None` if it does not fit. Not generic in the
/// length, so the compiler emits only one copy.
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
        // One byte is reserved for the NUL.
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
