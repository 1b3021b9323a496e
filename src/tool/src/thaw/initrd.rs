//! An initrd, which may be several joined.
//!
//! What the kernel makes of one (`unpack_to_rootfs`, init/initramfs.c): zeros are passed over; an archive that is not
//! compressed begins at a multiple of 4 and with `0`; anything else is compressed, and holds archives. So decompressing
//! each member where it stands changes nothing, as long as every one begins at a multiple of 4.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};

use super::{Why, read_at};
use crate::images::{BOOT_CONFIG, BOOT_CONFIG_PADDING};
use crate::unpack;

/// What an entry of an archive begins with, and how long its header is (Documentation/driver-api/early-userspace).
const NEWC: [&[u8]; 2] = [b"070701", b"070702"];
const HEADER: usize = 110;

/// What the kernel looks at to tell what is compressed, and how (`compressed_formats`, lib/decompress.c).
const COMPRESSED: [[u8; 2]; 8] =
    [*b"\x1f\x8b", *b"\x1f\x9e", *b"BZ", *b"\x5d\0", *b"\xfd7", *b"\x89L", *b"\x02!", *b"\x28\xb5"];

/// Every archive begins on a multiple of this, and every part of one.
const ALIGNMENT: u64 = 4;

/// What stands before the end of a bootconfig: its size and a sum (`get_boot_config_from_initrd`, init/main.c).
const BOOT_CONFIG_NUMBERS: u64 = 8;

/// What is copied at a time.
const PART: usize = 1 << 16;

/// An initrd that is thawed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// Its size in bytes.
    pub size: u64,
    /// How many of its members were decompressed; where it is none, the file is as the other.
    pub thawed: usize,
    /// What stays as it is, and why: a sentence each.
    pub left: Vec<String>,
}

/// Thaws a staged initrd into an empty file, which becomes no larger than `most`. Where that fails the file holds nothing
/// of use.
pub fn initrd(from: &File, to: &File, most: u64) -> Result<Initrd, Why> {
    let all = from.metadata().map_err(Why::Read)?.len();
    let end = boot_config(from, all).map_err(Why::Read)?.unwrap_or(all);
    let mut out = Out { to, at: 0, most };
    let mut is = Initrd::default();
    let mut at = 0;
    while at < end {
        let mut head = [0; 32];
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(head.len());
        let has = read_at(from, head.get_mut(..most).unwrap_or_default(), at).map_err(Why::Read)?;
        let head = head.get(..has).unwrap_or_default();
        match head {
            [] => break,
            [0, ..] => at = behind_zeros(from, at, end).map_err(Why::Read)?,
            [b'0', ..] if at % ALIGNMENT == 0 => {
                let stop = behind_archive(from, at, end).map_err(Why::Read)?;
                out.align(0)?;
                if stop == at {
                    is.left.push(format!(
                        "what begins at byte {at} of the initrd is no archive; it stays as it is"
                    ));
                    at = out.copy(from, at, end)?;
                } else {
                    at = out.copy(from, at, stop)?;
                }
            }
            _ => {
                out.align(0)?;
                let begin = out.at;
                match decompressed(from, at, end, head, &mut out) {
                    Ok(stop) => {
                        is.thawed += 1;
                        at = stop;
                    }
                    Err(Failed::Here(why)) => {
                        is.left.push(format!("what begins at byte {at} of the initrd stays as it is: {why}"));
                        out.cut(begin)?;
                        out.align(at % ALIGNMENT)?;
                        at = out.copy(from, at, end)?;
                    }
                    Err(Failed::All(why)) => return Err(why),
                }
            }
        }
    }
    if end < all {
        out.align(end % ALIGNMENT)?;
        out.copy(from, end, all)?;
    }
    is.size = out.at;
    Ok(is)
}

/// Whether the kernel would find something in this part of a file: behind zeros an archive, or what is compressed. Of zeros
/// alone it asks for nothing.
pub fn is_one(from: &File, begin: u64, end: u64) -> io::Result<bool> {
    let at = behind_zeros(from, begin, end)?;
    let is_aligned = at.saturating_sub(begin) % ALIGNMENT == 0;
    let mut head = [0; 6];
    let has = read_at(from, &mut head, at)?;
    let begins = |magic: &[u8]| head.get(..has).is_some_and(|head| head.starts_with(magic));
    let is_archive = is_aligned && NEWC.iter().any(|magic| begins(magic));
    Ok(at >= end || is_archive || COMPRESSED.iter().any(|two| begins(two)))
}

/// Whether nothing in an initrd is compressed.
pub fn is_thawed(from: &File) -> io::Result<bool> {
    let all = from.metadata()?.len();
    let end = boot_config(from, all)?.unwrap_or(all);
    let mut at = 0;
    while at < end {
        let mut first = [0];
        read_at(from, &mut first, at)?;
        let next = match first {
            [0] => behind_zeros(from, at, end)?,
            [b'0'] if at % ALIGNMENT == 0 => behind_archive(from, at, end)?,
            _ => at,
        };
        if next == at {
            return Ok(false);
        }
        at = next;
    }
    Ok(true)
}

/// Why a member is not decompressed.
enum Failed {
    /// Because of what it is.
    Here(String),
    /// Because of what happens to everything.
    All(Why),
}

/// Decompresses a member, and tells where the next begins.
fn decompressed(from: &File, at: u64, end: u64, head: &[u8], out: &mut Out<'_>) -> Result<u64, Failed> {
    let mut file = from;
    file.seek(SeekFrom::Start(at)).map_err(|error| Failed::All(Why::Read(error)))?;
    let mut counted = Counted { from: BufReader::with_capacity(PART, file.take(end - at)), count: 0 };
    let here = |error: io::Error| match error.raw_os_error() {
        Some(_) => Failed::All(Why::Read(error)),
        None => Failed::Here(format!("it is cut off or damaged ({error})")),
    };
    let Some((name, mut member)) = unpack::member(head, &mut counted).map_err(here)? else {
        return Err(Failed::Here("it is compressed in a way that is not known here".to_owned()));
    };
    let (mut part, mut is_first) = (vec![0; PART], true);
    loop {
        let read = match member.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(here(error)),
        };
        let part = part.get(..read).unwrap_or_default();
        if is_first && !matches!(part, [0 | b'0', ..]) {
            return Err(Failed::Here(format!("{name}, and no archive is in it")));
        }
        is_first = false;
        if part.is_empty() {
            break;
        }
        out.write(part).map_err(Failed::All)?;
    }
    drop(member);
    // What was looked at to tell the format is longer than a member can be that has an archive in it.
    if counted.count <= head.len() as u64 {
        return Err(Failed::Here("it ends before an archive could".to_owned()));
    }
    Ok(at + counted.count)
}

/// A stream, and how much was taken from it.
struct Counted<R> {
    from: R,
    count: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.count += count as u64;
        self.from.consume(count);
    }
}

/// What is written.
struct Out<'a> {
    to: &'a File,
    at: u64,
    most: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Why> {
        if self.at.saturating_add(bytes.len() as u64) > self.most {
            return Err(Why::NoRoom);
        }
        self.to.write_all(bytes).map_err(Why::Write)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros up to a place that is so much behind a multiple of 4.
    fn align(&mut self, to: u64) -> Result<(), Why> {
        while self.at % ALIGNMENT != to {
            self.write(&[0])?;
        }
        Ok(())
    }

    /// Copies, and tells up to where.
    fn copy(&mut self, from: &File, at: u64, end: u64) -> Result<u64, Why> {
        let size = end - at;
        if self.at.saturating_add(size) > self.most {
            return Err(Why::NoRoom);
        }
        let mut file = from;
        file.seek(SeekFrom::Start(at)).map_err(Why::Read)?;
        let copied = io::copy(&mut file.take(size), &mut &*self.to).map_err(Why::Write)?;
        self.at += copied;
        if copied == size { Ok(end) } else { Err(Why::Read(ErrorKind::UnexpectedEof.into())) }
    }

    /// Takes back what was written behind a place.
    fn cut(&mut self, at: u64) -> Result<(), Why> {
        self.to.set_len(at).map_err(Why::Write)?;
        let mut file = self.to;
        file.seek(SeekFrom::Start(at)).map_err(Why::Write)?;
        self.at = at;
        Ok(())
    }
}

/// Where something else than zeros begins.
fn behind_zeros(from: &File, mut at: u64, end: u64) -> io::Result<u64> {
    let mut part = vec![0; PART];
    while at < end {
        let has = read_at(from, &mut part, at)?;
        let part = part.get(..has).unwrap_or_default();
        match part.iter().position(|byte| *byte != 0) {
            Some(zeros) => return Ok((at + zeros as u64).min(end)),
            None if has == 0 => break,
            None => at += has as u64,
        }
    }
    Ok(end)
}

/// Where the entries end that begin at a place, one behind the other; at that place itself where none begins.
fn behind_archive(from: &File, mut at: u64, end: u64) -> io::Result<u64> {
    loop {
        let mut header = [0; HEADER];
        let has = read_at(from, &mut header, at)?;
        let number = |index: usize| {
            let digits = header.get(6 + 8 * index..14 + 8 * index)?;
            let plain = digits.iter().all(u8::is_ascii_hexdigit);
            u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|_| plain)
        };
        let is_one = has == HEADER && NEWC.iter().any(|magic| header.starts_with(magic));
        let (true, Some(size), Some(name)) = (is_one, number(6), number(11)) else { return Ok(at) };
        let data = (at + HEADER as u64 + name).next_multiple_of(ALIGNMENT);
        let stop = data + size;
        if stop > end {
            return Ok(at);
        }
        at = stop.next_multiple_of(ALIGNMENT).min(end);
    }
}

/// Where a bootconfig begins, where there is one at the end of an initrd of that size.
fn boot_config(from: &File, size: u64) -> io::Result<Option<u64>> {
    let length = BOOT_CONFIG.len() as u64;
    for padding in 0..=BOOT_CONFIG_PADDING as u64 {
        let Some(numbers) = size.checked_sub(padding + length + BOOT_CONFIG_NUMBERS) else { break };
        let mut bytes = [0; 20];
        let has = read_at(from, &mut bytes, numbers)?;
        if has < bytes.len() || !bytes.ends_with(BOOT_CONFIG) {
            continue;
        }
        let data = bytes.first_chunk().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
        return Ok(numbers.checked_sub(data));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// A file of bytes, and one for what comes out.
    fn thawed_to(bytes: &[u8], most: u64) -> (Result<Initrd, Why>, Vec<u8>) {
        let scratch = crate::scratch::Scratch::new();
        let path = scratch.root.path("/run/from");
        std::fs::write(&path, bytes).unwrap();
        let to = scratch.root.path("/run/to");
        let file = File::options().read(true).write(true).create_new(true).open(&to).unwrap();
        let is = initrd(&File::open(path).unwrap(), &file, most);
        let out = std::fs::read(to).unwrap();
        if let Ok(is) = &is {
            assert_eq!(is.size, out.len() as u64);
        }
        (is, out)
    }

    /// What comes out, which is known for what it is.
    fn thawed(bytes: &[u8]) -> (Initrd, Vec<u8>) {
        let (is, out) = thawed_to(bytes, u64::MAX);
        let is = is.unwrap();
        let scratch = crate::scratch::Scratch::new();
        let known = |bytes: &[u8]| {
            let path = scratch.root.path("/run/x");
            std::fs::write(&path, bytes).unwrap();
            is_thawed(&File::open(path).unwrap()).unwrap()
        };
        assert!(known(&out) == is.left.is_empty() && known(bytes) == (is.thawed == 0 && is.left.is_empty()));
        (is, out)
    }

    fn entry(name: &str, data: &[u8]) -> Vec<u8> {
        let mut entry =
            format!("070701{:048x}{:08x}{:032x}{:08x}{:08x}{name}\0", 0, data.len(), 0, name.len() + 1, 0)
                .into_bytes();
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend(data);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    }

    fn archive(name: &str, data: &[u8]) -> Vec<u8> {
        [entry(name, data), entry("TRAILER!!!", b"")].concat()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    fn packed_by(tool: &str, arguments: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
        use std::process::{Command, Stdio};
        let mut child = Command::new(tool);
        child.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().ok()?;
        child.stdin.take()?.write_all(bytes).ok()?;
        let output = child.wait_with_output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    #[test]
    fn every_member_that_is_compressed_comes_out_where_it_stood() {
        let (one, two, three) =
            (archive("kernel/x86/microcode", b"12345"), archive("a", b"abc"), archive("b", &[7; 900]));
        let joined = [&one[..], &[0; 512], &gzip(&two), &gzip(&three), &[0; 3], &gzip(&one)].concat();
        let (is, out) = thawed(&joined);
        assert_eq!((is.thawed, is.left.len()), (3, 0));
        assert_eq!(out, [&one[..], &two, &three, &one].concat());
        // Without one it is as it was, but for padding.
        assert_eq!(
            thawed(&[one.clone(), two.clone()].concat()),
            (Initrd { size: (one.len() + two.len()) as u64, ..Initrd::default() }, [one, two].concat())
        );
        assert_eq!(thawed(b"").0, Initrd::default());
    }

    #[test]
    fn what_comes_out_of_an_odd_length_is_padded() {
        let two = archive("a", b"abc");
        let odd = [&two[..], b"\0\0\0\0\0"].concat();
        let (is, out) = thawed(&[gzip(&odd), gzip(&two)].concat());
        assert_eq!((is.thawed, out), (2, [&odd[..], &[0; 3], &two].concat()));
    }

    #[test]
    fn each_format_that_a_kernel_finds_in_an_initrd_ends_where_it_ends() {
        let (two, three) = (archive("a", &[3; 5000]), archive("b", b"x"));
        let formats: [(&str, &[&str]); 5] = [
            ("zstd", &["-q", "-3"]),
            ("xz", &["--check=crc32"]),
            ("bzip2", &[]),
            ("gzip", &["-n"]),
            ("zstd", &["-q", "-19", "--ultra", "--no-check"]),
        ];
        for (tool, arguments) in formats {
            let Some(packed) = packed_by(tool, arguments, &two) else { continue };
            for padding in 0..5 {
                let joined = [&packed[..], &vec![0; padding], &gzip(&three), &packed].concat();
                let (is, out) = thawed(&joined);
                assert_eq!((is.thawed, &is.left[..]), (3, &[][..]), "{tool} {padding}");
                assert_eq!(out, [&two[..], &three, &two].concat(), "{tool} {padding}");
            }
        }
        // The kernel's lz4 takes all there is.
        if let Some(packed) = packed_by("lz4", &["-l", "-q"], &two) {
            assert_eq!(thawed(&[&three[..], &packed].concat()).1, [&three[..], &two].concat());
        }
    }

    #[test]
    fn what_cannot_be_decompressed_stays_with_all_behind_it_and_is_told() {
        let (one, two) = (archive("a", b"abc"), archive("b", b"xyz"));
        let packed = gzip(&two);
        let damaged = packed.get(..packed.len() - 5).unwrap();
        for rest in [&b"\x5d\0\0\x80unknown"[..], damaged, &gzip(b"text"), b"\x02\x21\x4c\x18garbage"] {
            let joined = [&gzip(&one)[..], rest, &one].concat();
            let (is, out) = thawed(&joined);
            assert_eq!((is.thawed, is.left.len()), (1, 1), "{:?}", is.left);
            assert!(out.starts_with(&one), "{rest:?}");
            // Whatever follows is as far from a multiple of 4 as it was.
            let behind = joined.len() - one.len();
            assert!(out.ends_with(&[rest, &one].concat()), "{rest:?}");
            assert_eq!((out.len() - one.len()) % 4, behind % 4, "{rest:?}");
        }
        let (is, out) = thawed(&[&one[..], b"070701cut off"].concat());
        assert_eq!((is.left.len(), out), (1, [&one[..], b"070701cut off"].concat()));
    }

    #[test]
    fn a_bootconfig_stays_at_the_end() {
        let one = archive("a", b"abc");
        let config = b"kernel.x = 1\n";
        let sum: u32 = config.iter().map(|byte| u32::from(*byte)).sum();
        let numbers = [u32::try_from(config.len()).unwrap(), sum];
        let numbers: Vec<_> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
        let tail = [&config[..], &numbers, BOOT_CONFIG].concat();
        for padding in 0..4 {
            let tail = [&tail[..], &vec![0; padding]].concat();
            let (is, out) = thawed(&[&gzip(&one)[..], &tail].concat());
            assert_eq!(is.thawed, 1);
            assert!(out.starts_with(&one) && out.ends_with(&tail), "{padding}");
            assert!(out.len() < one.len() + tail.len() + 4, "{padding}");
        }
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for() {
        let bomb = gzip(&archive("a", &vec![0; 1 << 20]));
        for bytes in [&bomb[..], &archive("a", &vec![1; 1 << 17])] {
            let (is, out) = thawed_to(bytes, 1 << 16);
            assert!(matches!(is, Err(Why::NoRoom)) && out.len() <= 1 << 16);
        }
    }
}
