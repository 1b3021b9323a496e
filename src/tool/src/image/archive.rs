//! Parses archives as the kernel does when it unpacks them (`write_buffer`, init/initramfs.c): cpio in the newc
//! format, with or without checksums, one entry after the other. The contents are not stored.
//!
//! An archive need not have an end marker (`TRAILER!!!`): it may stop after any entry. The padding of the last
//! entry may then be missing, unless the archive is compressed. There may be zeros between two entries.
//! Anything else that follows an uncompressed archive begins at a multiple of 4.

use crate::image::cpio::{ALIGNMENT, padded};
use crate::words::little_endian;

/// The magic of an entry without checksums, that of one with checksums, and the length of the header in bytes.
const PLAIN: &[u8] = b"070701";
const SUMMED: &[u8] = b"070702";
const HEADER: usize = 110;

/// The number of fields in a header: after the magic, each has eight hexadecimal digits.
const NUMBERS: usize = 13;

/// A parser of archives, which takes them in parts.
#[derive(Debug, Default)]
pub struct Entries {
    /// The number of bytes parsed so far.
    at: u64,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// After an entry, or at the beginning.
    #[default]
    Between,
    /// In a header, of which these bytes have been seen.
    Header(Vec<u8>),
    /// In a name or its padding; the content comes next.
    Name { left: u64, filling: u64, content: Content },
    /// In the content.
    Content(Content),
    /// In the padding of the content.
    Filling(u64),
}

/// The part of a file's content that has not been seen yet.
#[derive(Clone, Copy, Debug)]
struct Content {
    left: u64,
    /// The length of the padding after it, in bytes.
    filling: u64,
    /// The checksum in the header, and the sum of the bytes seen so far.
    sums: Option<(u32, u32)>,
}

impl Entries {
    /// Parses the next bytes and returns the number of them that belong to archives. These are all bytes,
    /// unless something else begins after an entry. An error says what is wrong with an entry.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut rest = bytes;
        loop {
            self.state = match std::mem::take(&mut self.state) {
                State::Between => {
                    let zeros = rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
                    self.skip(&mut rest, zeros as u64);
                    match rest.first() {
                        Some(b'0') if self.at % ALIGNMENT == 0 => State::Header(Vec::with_capacity(HEADER)),
                        Some(_) if self.at % ALIGNMENT != 0 => {
                            return Err("what stands behind an archive begins at no multiple of 4");
                        }
                        _ => return Ok(bytes.len() - rest.len()),
                    }
                }
                State::Header(mut header) => {
                    let part = rest.get(..(HEADER - header.len()).min(rest.len())).unwrap_or(rest);
                    header.extend_from_slice(part);
                    self.skip(&mut rest, part.len() as u64);
                    if header.len() == HEADER { entry(&header)? } else { State::Header(header) }
                }
                State::Name { left, filling, content } => {
                    // A NUL ends the name.
                    let last =
                        left.checked_sub(filling + 1).and_then(|last| rest.get(usize::try_from(last).ok()?));
                    if last.is_some_and(|last| *last != 0) {
                        return Err("the name of an entry does not end where its header says");
                    }
                    match left - self.skip(&mut rest, left) {
                        0 => State::Content(content),
                        left => State::Name { left, filling, content },
                    }
                }
                State::Content(mut content) => {
                    let before = rest;
                    let skipped = self.skip(&mut rest, content.left);
                    let seen = before.get(..before.len() - rest.len()).unwrap_or_default();
                    content.left -= skipped;
                    if let Some((_, sum)) = &mut content.sums {
                        *sum = seen.iter().fold(*sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
                    }
                    match content {
                        Content { left: 0, sums: Some((says, is)), .. } if says != is => {
                            return Err("the content of a file has another checksum than it says");
                        }
                        Content { left: 0, filling, .. } => State::Filling(filling),
                        content => State::Content(content),
                    }
                }
                State::Filling(left) => match left - self.skip(&mut rest, left) {
                    0 => State::Between,
                    left => State::Filling(left),
                },
            };
            if rest.is_empty() {
                return Ok(bytes.len());
            }
        }
    }

    /// Returns whether an archive could end here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Between | State::Filling(_) | State::Content(Content { left: 0, .. }))
    }

    /// Returns whether the archive ends here with all its padding, as a compressed one must.
    #[must_use]
    pub fn is_at_an_end(&self) -> bool {
        matches!(
            self.state,
            State::Between | State::Filling(0) | State::Content(Content { left: 0, filling: 0, .. })
        )
    }

    /// Skips up to `count` bytes and returns the number of skipped bytes.
    fn skip(&mut self, rest: &mut &[u8], count: u64) -> u64 {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(rest.len());
        *rest = rest.get(count..).unwrap_or_default();
        self.at += count as u64;
        count as u64
    }
}

/// Returns the state after a header.
fn entry(header: &[u8]) -> Result<State, &'static str> {
    let is_summed = header.starts_with(SUMMED);
    if !is_summed && !header.starts_with(PLAIN) {
        return Err("an entry begins with no magic of cpio (newc)");
    }
    let number = |index: usize| {
        let digits = header.get(6 + 8 * index..14 + 8 * index)?;
        let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(text, 16).ok()
    };
    let mut numbers = [0; NUMBERS];
    for (index, to) in numbers.iter_mut().enumerate() {
        *to = number(index).ok_or("the header of an entry holds something else than numbers")?;
    }
    let [_, mode, _, _, _, _, size, _, _, _, _, name, sum] = numbers;
    let filled = |size| padded(size) - size;
    let (size, name) = (u64::from(size), u64::from(name));
    // Of several hard links, only one entry has the content. The others state its checksum, too.
    let has_sum = is_summed && size > 0 && mode & libc::S_IFMT == libc::S_IFREG;
    let content = Content { left: size, filling: filled(size), sums: has_sum.then_some((sum, 0)) };
    let filling = filled(HEADER as u64 + name);
    Ok(State::Name { left: name + filling, filling, content })
}

/// Returns whether the kernel would take an initrd that begins with these bytes for a disk image, if it is no
/// archive (`identify_ramdisk_image`, `init/do_mounts_rd.c`). The file systems are romfs, cramfs, squashfs,
/// minix and ext2 to ext4.
#[must_use]
pub fn is_disk(head: &[u8]) -> bool {
    let at = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    let word = |at| little_endian::short(head, at);
    at(0, b"-rom1fs-")
        || [0, 0x200].iter().any(|offset| at(*offset, &0x28cd_3d45_u32.to_le_bytes()))
        || at(0, b"hsqs")
        || [0x137f, 0x138f, 0x2468, 0x2478].contains(&word(0x410))
        || word(0x438) == 0xef53
}

/// The number of bytes that [`is_disk`] needs.
pub const DISK_HEAD: usize = 0x43a;

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// Returns an entry, with a checksum if one is given.
    pub(crate) fn entry(name: &str, data: &[u8], sum: Option<u32>) -> Vec<u8> {
        let (magic, sum) = if sum.is_some() { ("070702", sum) } else { ("070701", Some(0)) };
        let (mode, size, length) = (libc::S_IFREG | 0o644, data.len(), name.len() + 1);
        let mut entry = format!(
            "{magic}{:08x}{mode:08x}{:032x}{size:08x}{:032x}{length:08x}{:08x}{name}\0",
            1,
            0,
            0,
            sum.unwrap()
        )
        .into_bytes();
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend(data);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    }

    /// Parses `bytes` in parts of `part` bytes. Returns the number of bytes taken, and whether the archive may
    /// end there.
    fn taken(bytes: &[u8], part: usize) -> Result<(usize, bool), &'static str> {
        let (mut entries, mut all) = (Entries::default(), 0);
        for part in bytes.chunks(part) {
            let took = entries.take(part)?;
            all += took;
            if took < part.len() {
                break;
            }
        }
        Ok((all, entries.may_end()))
    }

    #[test]
    fn an_archive_goes_past_in_parts_of_any_size_up_to_what_is_none() {
        let archive = [
            entry("a", b"abc", None),
            entry("folder/b", &[7; 900], Some(6300)),
            vec![0; 8],
            entry("empty", b"", Some(5)),
            entry("TRAILER!!!", b"", None),
            vec![0; 517],
        ]
        .concat();
        for part in [1, 2, 3, 7, 110, 4096] {
            assert_eq!(taken(&archive, part), Ok((archive.len(), true)), "{part}");
            assert!(taken(&[&archive[..], b"\x1f\x8b"].concat(), part).is_err(), "{part}");
            let archive = [&archive[..], &[0; 3]].concat();
            let more = [&archive[..], b"\x1f\x8b"].concat();
            assert_eq!(taken(&more, part), Ok((archive.len(), true)), "{part}");
        }
        // An archive that begins at no multiple of 4 is an error.
        assert!(taken(&[&archive[..], b"070701"].concat(), 64).is_err());
    }

    #[test]
    fn it_may_end_behind_any_entry_and_nowhere_else() {
        let (one, two) = (entry("a", b"abcde", None), entry("b", b"abcd", None));
        let both = [&one[..], &two].concat();
        for length in 0..=both.len() {
            let may_end =
                (one.len() - 3..=one.len()).contains(&length) || length == both.len() || length == 0;
            assert_eq!(taken(&both[..length], 16).map(|(_, may_end)| may_end), Ok(may_end), "{length}");
        }
    }

    #[test]
    fn a_checksum_is_compared_and_a_header_that_is_none_is_told() {
        assert!(taken(&entry("a", b"abc", Some(97 + 98 + 99)), 5).is_ok());
        assert!(taken(&entry("a", b"abc", Some(97 + 98 + 100)), 5).is_err());
        let whole = entry("a", b"abc", None);
        for at in [1, 5, 14, 60, 100, 70, 111] {
            let mut odd = whole.clone();
            *odd.get_mut(at).unwrap() = b'x';
            assert!(taken(&odd, 64).is_err(), "{at}");
        }
    }

    #[test]
    fn a_disk_is_told_by_its_file_system() {
        let disk = |at: usize, magic: &[u8]| [&vec![0; at][..], magic, &[0; 64]].concat();
        assert!(
            is_disk(&disk(0x438, b"\x53\xef"))
                && is_disk(&disk(0, b"hsqs"))
                && is_disk(&disk(0x200, b"\x45\x3d\xcd\x28"))
        );
        assert!(!is_disk(&disk(0, b"text")) && !is_disk(b""));
    }
}
