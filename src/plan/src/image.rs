use core::fmt;

use crate::limits;

/// A staged image, and the data by which it is recognised later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Its name, relative to the plan's directory.
    pub name: &'a str,
    /// Its size in bytes, never 0: the kernel refuses empty files.
    pub size: u64,
    /// Distinguishes the image from a later file of that name and size. `None` if the image lies in an
    /// initramfs, which the kernel unpacks anew at every boot.
    pub stamp: Option<Stamp>,
}

/// Identifies a file and its contents. Replacing the file changes its inode, and writing to it changes its
/// change time, which nobody can set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The inode number (`st_ino`, inode(7)).
    pub inode: u64,
    /// When it last changed (`st_ctim`, inode(7)).
    pub changed: Changed,
}

/// A change time: seconds since the epoch and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whole seconds; never before 1970.
    pub seconds: u64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl<'a> Image<'a> {
    /// Reads `NAME size=N inode=N changed=S.NNNNNNNNN`, or `NAME size=N`.
    pub(crate) fn parse(text: &'a str) -> Option<Image<'a>> {
        let mut words = text.split(' ');
        let name = words.next().filter(|name| is_name(name))?;
        let size = number(words.next()?.strip_prefix("size=")?).filter(|size| *size > 0)?;
        let stamp = match words.next() {
            Some(word) => Some(Stamp {
                inode: number(word.strip_prefix("inode=")?)?,
                changed: Changed::parse(words.next()?.strip_prefix("changed=")?)?,
            }),
            None => None,
        };
        words.next().is_none().then_some(Image { name, size, stamp })
    }
}

impl fmt::Display for Image<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Image { name, size, stamp } = self;
        write!(out, "{name} size={size}")?;
        match stamp {
            Some(Stamp { inode, changed }) => write!(out, " inode={inode} changed={changed}"),
            None => Ok(()),
        }
    }
}

impl Changed {
    fn parse(text: &str) -> Option<Changed> {
        let (seconds, nanoseconds) = text.split_once('.')?;
        let digits = nanoseconds.len() == 9 && nanoseconds.bytes().all(|b| b.is_ascii_digit());
        let nanoseconds = nanoseconds.parse().ok().filter(|_| digits)?;
        Some(Changed { seconds: number(seconds)?, nanoseconds })
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

/// Whether the tool could have made this name: one that lies below the plan's directory.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty() && part.bytes().all(plain)
    };
    name.len() <= limits::NAME_MAX && name.split('/').all(part)
}

/// Reads a decimal number as `Display` writes it: without a sign, and without leading zeros.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|_| canonical)
}

/// Reads a number as `{:x}` writes it.
pub(crate) fn hexadecimal(digits: &str) -> Option<u64> {
    let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let canonical = digits == "0" || !digits.starts_with('0');
    u64::from_str_radix(digits, 16).ok().filter(|_| canonical && digits.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_the_folder() {
        for bad in ["", "/", "/kernel", "a/", "a//b", "..", "../a", "a/../b", "a b", "A", "a.b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name("5f3a9c1e2b7d4a60/kernel"));
        assert!(!is_name(&"k".repeat(limits::NAME_MAX + 1)));
    }

    #[test]
    fn an_image_is_named_and_measured_exactly() {
        let good = "a/kernel size=1 inode=2 changed=3.000000004";
        for good in [good, "kernel size=1"] {
            assert_eq!(Image::parse(good).map(|image| image.to_string()).as_deref(), Some(good));
        }
        for bad in [
            "",
            "a/kernel",
            "a/kernel size=0 inode=2 changed=3.000000004",
            "a/kernel size=01 inode=2 changed=3.000000004",
            "a/kernel size=1 ",
            "a/kernel size=1 inode=2",
            "a/kernel size=1 changed=3.000000004",
            "a/kernel size=+1 inode=2 changed=3.000000004",
            "a/kernel size=1 inode=2 changed=3",
            "a/kernel size=1 inode=2 changed=3.4",
            "a/kernel size=1 inode=2 changed=3.000000004 ",
            "a/kernel size=1 inode=2 changed=3.+00000004",
            "a/kernel size=99999999999999999999 inode=2 changed=3.000000004",
            "a/kernel inode=2 size=1 changed=3.000000004",
        ] {
            assert_eq!(Image::parse(bad), None, "{bad:?}");
        }
    }
}
