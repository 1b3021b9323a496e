//! Decompressing and verifying an initrd, which may consist of several members.
//!
//! The kernel reads an initrd like this (`unpack_to_rootfs`, init/initramfs.c): it skips zeros; an uncompressed
//! archive begins at a multiple of 4 and with `0`; everything else is compressed, and contains archives. So
//! decompressing each member in its place changes nothing, as long as every member begins at a multiple of 4.
//!
//! One pass over an initrd decompresses it, verifies that it is whole, or both. It is whole if the kernel
//! unpacks it without a complaint and the file ends where it should: every checksum present is right, every
//! member and every entry is complete, and there is nothing else between them. An initrd that is a disk counts
//! as whole, too, but nothing in it can be verified.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};

use crate::image::archive::{self, Entries};
use crate::image::cpio::ALIGNMENT;
use crate::image::initrd::{BOOT_CONFIG, BOOT_CONFIG_PADDING};
use crate::image::unpack;
use crate::loading::decompress::failure::Failure;
use crate::machine::sys::read_at;
use crate::words::little_endian::long;

/// The bytes before the end mark of a bootconfig: its size and a checksum (`get_boot_config_from_initrd`,
/// init/main.c).
const BOOT_CONFIG_NUMBERS: u64 = 8;

/// Bytes read or copied at a time.
const PART: usize = 1 << 16;

/// Bytes of a member from which its compression is recognized.
const HEAD: usize = 32;

/// The complaint about bytes that are no part of an initrd.
const NOTHING: &str = "neither an archive nor anything compressed begins there";

/// The result of decompressing an initrd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// The size of the decompressed file in bytes.
    pub size: u64,
    /// How many members were decompressed. If none, the file has the same content as the original, except for
    /// padding.
    pub decompressed: usize,
    /// Whether the initrd is a disk, which stays as it is.
    pub is_disk: bool,
}

/// Decompresses a staged initrd into an empty file that grows to `most` bytes at most, and verifies that it is
/// whole. After an error the file's content is useless.
pub fn initrd(from: &File, to: &File, most: u64) -> Result<Initrd, Failure> {
    let all = from.metadata().map_err(Failure::Read)?.len();
    walk(from, 0, all, Out { to: Some(to), at: 0, most })
}

/// Verifies that the bytes of a file from `begin` to `end` are a whole initrd.
pub fn is_whole(from: &File, begin: u64, end: u64) -> Result<(), Failure> {
    walk(from, begin, end, Out { to: None, at: begin, most: u64::MAX }).map(drop).map_err(|why| match why {
        Failure::Damaged { at, why } => Failure::Damaged { at: at - begin, why },
        why => why,
    })
}

fn walk(from: &File, begin: u64, all: u64, mut out: Out<'_>) -> Result<Initrd, Failure> {
    let end = boot_config(from, begin, all)?.unwrap_or(all);
    let mut is = Initrd::default();
    let mut at = behind_zeros(from, begin, end).map_err(Failure::Read)?;
    let first = at;
    while at < end {
        let mut head = [0; HEAD];
        let head = part_at(from, &mut head, at, end).map_err(Failure::Read)?;
        match head {
            [] => return Err(Failure::Read(ErrorKind::UnexpectedEof.into())),
            [0, ..] => at = behind_zeros(from, at, end).map_err(Failure::Read)?,
            [b'0', ..] if (at - begin) % ALIGNMENT == 0 => {
                out.align(0)?;
                let (begins, stop) = match behind_archive(from, at, end) {
                    // A disk may begin with `0`, too.
                    Err(Failure::Damaged { .. })
                        if at == first && is_disk(from, begin, end).map_err(Failure::Read)? =>
                    {
                        is.is_disk = true;
                        (begin, end)
                    }
                    stop => (at, stop?),
                };
                at = out.copy(from, begins, stop)?;
            }
            _ => {
                out.align(0)?;
                let written = out.at;
                match decompressed(from, [begin, at, end], head, &mut out)? {
                    Member::Archives { stop } => {
                        is.decompressed += 1;
                        at = stop;
                    }
                    Member::Disk if at == first => {
                        is.is_disk = true;
                        out.cut(written)?;
                        at = out.copy(from, begin, end)?;
                    }
                    Member::Disk => return Err(Failure::Damaged { at, why: NOTHING.to_owned() }),
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

/// Returns whether nothing in an initrd is compressed.
pub fn is_decompressed(from: &File) -> io::Result<bool> {
    let all = from.metadata()?.len();
    let why = |why| match why {
        Failure::Read(error) => Err(error),
        _ => Ok(None),
    };
    let end = boot_config(from, 0, all).or_else(why)?.unwrap_or(all);
    let mut at = 0;
    while at < end {
        let mut first = [0];
        read_at(from, &mut first, at)?;
        at = match first {
            [0] => behind_zeros(from, at, end)?,
            [b'0'] if at % ALIGNMENT == 0 => match behind_archive(from, at, end) {
                Ok(stop) => stop,
                Err(Failure::Read(error)) => return Err(error),
                Err(_) => return Ok(false),
            },
            _ => return Ok(false),
        };
    }
    Ok(true)
}

/// The kind of a compressed member.
enum Member {
    /// Archives.
    Archives {
        /// The offset behind the member.
        stop: u64,
    },
    /// A disk, compressed or not, which extends to the end.
    Disk,
}

/// Decompresses the member at `at` of an initrd that begins at `begin` and ends at `end`.
fn decompressed(
    from: &File,
    [begin, at, end]: [u64; 3],
    head: &[u8],
    out: &mut Out<'_>,
) -> Result<Member, Failure> {
    let mut file = from;
    file.seek(SeekFrom::Start(at)).map_err(Failure::Read)?;
    let mut counted = Counted { from: BufReader::with_capacity(PART, file.take(end - at)), count: 0 };
    let damaged = |why: String| Failure::Damaged { at, why };
    let broken = |error: io::Error| match error.raw_os_error() {
        Some(_) => Failure::Read(error),
        None => damaged(format!("it is cut off or damaged ({error})")),
    };
    let Some((name, mut member)) = unpack::member(head, &mut counted).map_err(broken)? else {
        return if is_disk(from, begin, end).map_err(Failure::Read)? {
            Ok(Member::Disk)
        } else {
            Err(damaged(NOTHING.to_owned()))
        };
    };
    let broken = |error| match broken(error) {
        Failure::Damaged { why, .. } => damaged(format!("as {name} {why}")),
        why => why,
    };
    let (mut part, mut first, mut entries, mut is_archive) =
        (vec![0; PART], Vec::new(), Entries::default(), true);
    loop {
        let read = match member.read(&mut part) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        let part = part.get(..read).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let missing = archive::DISK_HEAD.saturating_sub(first.len()).min(part.len());
        first.extend_from_slice(part.get(..missing).unwrap_or_default());
        // Data that is not an archive is read to its end, too, because its checksum shows whether it is
        // damaged.
        is_archive = is_archive && entries.take(part).is_ok_and(|took| took == part.len());
        if is_archive {
            out.write(part)?;
        }
    }
    drop(member);
    match first.as_slice() {
        [] => Err(damaged(format!("as {name} it holds nothing"))),
        _ if is_archive && entries.is_at_an_end() => Ok(Member::Archives { stop: at + counted.count }),
        _ if is_archive => Err(damaged(format!(
            "the archive in it, as {name}, ends in the midst of a file or of what fills it up"
        ))),
        first if archive::is_disk(first) => Ok(Member::Disk),
        [0 | b'0', ..] => Err(damaged(format!("as {name} it holds something else than archives"))),
        _ => Err(damaged(format!("as {name} it holds no archive"))),
    }
}

/// Returns whether a part of a file is a disk with a file system that the kernel looks for.
fn is_disk(from: &File, begin: u64, end: u64) -> io::Result<bool> {
    let mut head = [0; archive::DISK_HEAD];
    Ok(archive::is_disk(part_at(from, &mut head, begin, end)?))
}

/// A stream that counts the bytes taken from it.
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

/// The output file, if anything is written at all.
struct Out<'a> {
    to: Option<&'a File>,
    at: u64,
    most: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let Some(mut to) = self.to else { return Ok(()) };
        if self.at.saturating_add(bytes.len() as u64) > self.most {
            return Err(Failure::NoRoom);
        }
        to.write_all(bytes).map_err(Failure::Write)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes zeros until the position is `to` bytes behind a multiple of 4.
    fn align(&mut self, to: u64) -> Result<(), Failure> {
        while self.to.is_some() && self.at % ALIGNMENT != to {
            self.write(&[0])?;
        }
        Ok(())
    }

    /// Copies the bytes from `at` to `end`, and returns `end`.
    fn copy(&mut self, from: &File, at: u64, end: u64) -> Result<u64, Failure> {
        let (Some(mut to), size) = (self.to, end - at) else { return Ok(end) };
        if self.at.saturating_add(size) > self.most {
            return Err(Failure::NoRoom);
        }
        let mut file = from;
        file.seek(SeekFrom::Start(at)).map_err(Failure::Read)?;
        let copied = io::copy(&mut file.take(size), &mut to).map_err(Failure::Write)?;
        self.at += copied;
        if copied == size { Ok(end) } else { Err(Failure::Read(ErrorKind::UnexpectedEof.into())) }
    }

    /// Discards everything written behind an offset.
    fn cut(&mut self, at: u64) -> Result<(), Failure> {
        let Some(mut to) = self.to else { return Ok(()) };
        to.set_len(at).map_err(Failure::Write)?;
        to.seek(SeekFrom::Start(at)).map_err(Failure::Write)?;
        self.at = at;
        Ok(())
    }
}

/// Reads the bytes at an offset: as many as fit into `part`, and none behind `end`.
fn part_at<'p>(from: &File, part: &'p mut [u8], at: u64, end: u64) -> io::Result<&'p [u8]> {
    let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(part.len());
    let part = part.get_mut(..most).unwrap_or_default();
    let has = read_at(from, part, at)?;
    Ok(part.get(..has).unwrap_or_default())
}

/// Returns the offset of the first byte that is not zero.
fn behind_zeros(from: &File, mut at: u64, end: u64) -> io::Result<u64> {
    let mut part = vec![0; PART];
    while at < end {
        let part = part_at(from, &mut part, at, end)?;
        match part.iter().position(|byte| *byte != 0) {
            Some(zeros) => return Ok(at + zeros as u64),
            None if part.is_empty() => break,
            None => at += part.len() as u64,
        }
    }
    Ok(end)
}

/// Returns where the archives that begin at an offset end.
fn behind_archive(from: &File, begin: u64, end: u64) -> Result<u64, Failure> {
    let (mut entries, mut part, mut at) = (Entries::default(), vec![0; PART], begin);
    let damaged = |why: &str| Failure::Damaged { at: begin, why: why.to_owned() };
    while at < end {
        let part = part_at(from, &mut part, at, end).map_err(Failure::Read)?;
        let took = entries.take(part).map_err(damaged)?;
        at += took as u64;
        if part.is_empty() || took < part.len() {
            break;
        }
    }
    if entries.may_end() { Ok(at) } else { Err(damaged("its archive ends in the midst of a file")) }
}

/// Returns where a bootconfig begins, if there is one at the end of this part of a file.
fn boot_config(from: &File, begin: u64, end: u64) -> Result<Option<u64>, Failure> {
    let length = BOOT_CONFIG.len() as u64;
    for padding in 0..=BOOT_CONFIG_PADDING as u64 {
        let numbers =
            end.checked_sub(padding + length + BOOT_CONFIG_NUMBERS).filter(|numbers| *numbers >= begin);
        let Some(numbers) = numbers else { break };
        let mut bytes = [0; 20];
        let has = read_at(from, &mut bytes, numbers).map_err(Failure::Read)?;
        if has < bytes.len() || !bytes.ends_with(BOOT_CONFIG) {
            continue;
        }
        let damaged = |why: &str| Failure::Damaged { at: numbers, why: why.to_owned() };
        let size = u64::from(long(&bytes, 0));
        let config = numbers.checked_sub(size).filter(|config| *config >= begin);
        let config = config.ok_or_else(|| damaged("its bootconfig says that it is longer than the file"))?;
        let mut sum = 0_u32;
        let (mut part, mut at) = (vec![0; PART], config);
        while at < numbers {
            let part = part_at(from, &mut part, at, numbers).map_err(Failure::Read)?;
            if part.is_empty() {
                return Err(Failure::Read(ErrorKind::UnexpectedEof.into()));
            }
            sum = part.iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
            at += part.len() as u64;
        }
        if sum != long(&bytes, 4) {
            return Err(damaged("its bootconfig has another checksum than it says"));
        }
        return Ok(Some(config));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::path::Path;

    /// Decompresses these bytes, and returns the result and the output.
    fn decompressed_to(bytes: &[u8], most: u64) -> (Result<Initrd, Failure>, Vec<u8>) {
        let scratch = crate::machine::scratch::Scratch::new();
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

    /// Returns the result and the output, and checks that [`is_decompressed`] recognizes both files.
    fn decompressed(bytes: &[u8]) -> (Initrd, Vec<u8>) {
        let (is, out) = decompressed_to(bytes, u64::MAX);
        let is = is.unwrap();
        let scratch = crate::machine::scratch::Scratch::new();
        let known = |bytes: &[u8]| {
            let path = scratch.root.path("/run/x");
            std::fs::write(&path, bytes).unwrap();
            is_decompressed(&File::open(path).unwrap()).unwrap()
        };
        assert!(known(&out) && known(bytes) == (is.decompressed == 0));
        (is, out)
    }

    fn entry(name: &str, data: &[u8]) -> Vec<u8> {
        crate::image::archive::tests::entry(name, data, None)
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
        let (is, out) = decompressed(&joined);
        assert_eq!((is.decompressed, is.is_disk), (3, false));
        assert!(out == [&one[..], &[0; 512], &two, &three, &one].concat());
        // Without a compressed member the output equals the input, except for padding.
        assert_eq!(
            decompressed(&[one.clone(), two.clone()].concat()),
            (Initrd { size: (one.len() + two.len()) as u64, ..Initrd::default() }, [one, two].concat())
        );
        assert_eq!(decompressed(b"").0, Initrd::default());
    }

    #[test]
    fn what_comes_out_of_an_odd_length_is_padded() {
        let two = archive("a", b"abc");
        let odd = [&two[..], b"\0\0\0\0\0"].concat();
        let (is, out) = decompressed(&[gzip(&odd), gzip(&two)].concat());
        assert_eq!((is.decompressed, out), (2, [&odd[..], &[0; 3], &two].concat()));
    }

    #[test]
    fn each_format_that_a_kernel_finds_in_an_initrd_ends_where_it_ends() {
        let (two, three) = (archive("a", &[3; 5000]), archive("b", b"x"));
        let formats: [(&str, &[&str]); 7] = [
            ("zstd", &["-q", "-3"]),
            ("xz", &["--check=crc32"]),
            ("bzip2", &[]),
            ("lzop", &["-9"]),
            ("xz", &["--format=lzma"]),
            ("gzip", &["-n"]),
            ("zstd", &["-q", "-19", "--ultra", "--no-check"]),
        ];
        for (tool, arguments) in formats {
            let Some(packed) = packed_by(tool, arguments, &two) else { continue };
            for padding in 0..5 {
                let joined = [&packed[..], &vec![0; padding], &gzip(&three), &packed].concat();
                let (is, out) = decompressed(&joined);
                assert_eq!(is.decompressed, 3, "{tool} {padding}");
                assert_eq!(out, [&two[..], &three, &two].concat(), "{tool} {padding}");
            }
        }
        // The kernel's lz4 decompressor consumes all the bytes it is given, so only padding follows here.
        if let Some(packed) = packed_by("lz4", &["-l", "-q"], &two) {
            for padding in 0..8 {
                let joined = [&three[..], &packed, &vec![0; padding]].concat();
                assert_eq!(decompressed(&joined).1, [&three[..], &two].concat(), "{padding}");
            }
        }
    }

    /// Returns the complaint about a damaged initrd; decompressing and verifying give the same one.
    fn wrong(bytes: &[u8]) -> Option<String> {
        let (is, _) = decompressed_to(bytes, u64::MAX);
        let decompressed = is.err().map(|why| why.to_string());
        assert_eq!(proved(bytes), decompressed);
        decompressed
    }

    /// Returns the complaint when the same bytes are verified as a part of a file.
    fn proved(bytes: &[u8]) -> Option<String> {
        let scratch = crate::machine::scratch::Scratch::new();
        proved_in(&scratch.root.path("/run/part"), bytes)
    }

    fn proved_in(path: &Path, bytes: &[u8]) -> Option<String> {
        std::fs::write(path, [b"....", bytes, b"...."].concat()).unwrap();
        let file = File::open(path).unwrap();
        is_whole(&file, 4, 4 + bytes.len() as u64).err().map(|why| why.to_string())
    }

    #[test]
    fn what_is_damaged_anywhere_is_told_with_its_place() {
        let (one, two) = (archive("a", b"abc"), archive("b", b"xyz"));
        let packed = gzip(&two);
        let cut = packed.get(..packed.len() - 5).unwrap();
        for (rest, why) in [
            (&b"\x5d\0\0\x80unknown"[..], "it is cut off or damaged"),
            (cut, "as gzip it is cut off or damaged"),
            (&gzip(b"text"), "as gzip it holds no archive"),
            (&gzip(b""), "as gzip it holds nothing"),
            (b"\x02\x21\x4c\x18garbage", "as lz4 it is cut off or damaged"),
            (b"\x04\x22\x4d\x18garbage", NOTHING),
            (&gzip(two.get(..two.len() - 130).unwrap()), "the archive in it, as gzip, ends in the midst"),
            (&gzip(&[&two[..], b"more"].concat()), "as gzip it holds something else than archives"),
            (b"garbage", NOTHING),
        ] {
            let begun = gzip(&one);
            let told = wrong(&[&begun[..], rest].concat()).unwrap();
            assert!(told.starts_with(&format!("at byte {}: {why}", begun.len())), "{told}");
        }
        let told = wrong(&[&one[..], two.get(..two.len() - 130).unwrap()].concat()).unwrap();
        assert!(told.contains("ends in the midst of a file"), "{told}");
    }

    #[test]
    fn what_the_kernel_accepts_is_whole() {
        let (one, open) = (archive("a", b"abc"), entry("b", b"abcd"));
        let disk = [&[0; 0x438][..], b"\x53\xef", &[1; 3000]].concat();
        let behind_zeros = [&[0; 9000][..], &one].concat();
        for bytes in [
            &one[..],
            &open,
            &gzip(&open),
            &[0; 512],
            &gzip(&[0; 512]),
            &disk,
            &[b"0", disk.get(1..).unwrap()].concat(),
            &gzip(&disk),
            b"hsqs",
            &behind_zeros,
        ] {
            assert_eq!(wrong(bytes), None, "{:?}", bytes.get(..8));
        }
        assert!(decompressed_to(&gzip(&disk), u64::MAX).0.unwrap().is_disk);
        let unaligned = [&[0; 9001][..], &one].concat();
        if let Some(lz4) = packed_by("lz4", &["-l", "-c"], &one) {
            let fill = vec![0; lz4.len().next_multiple_of(4) - lz4.len() + 4];
            assert_eq!(wrong(&[&lz4[..], &fill, &one].concat()), None, "lz4, and another behind zeros");
        }
        // In `odd` the last entry's padding is missing, which the kernel refuses only in a compressed archive.
        // In `behind` a member begins at an unaligned offset, so the kernel takes it for padding of the archive
        // before it.
        let odd = [entry("x", b"abc"), entry("y", b"abcde")].concat();
        let odd = odd.get(..odd.len() - 3).unwrap();
        assert_eq!(wrong(odd), None);
        let behind = [&one[..], &[0], &gzip(&one)].concat();
        for bytes in
            [&b"debian\n"[..], b"0", &unaligned, &gzip(odd), &behind, &[&[0; 9000][..], b"debian"].concat()]
        {
            assert!(wrong(bytes).is_some(), "{:?}", bytes.get(..4));
        }
    }

    /// Returns pseudo-random numbers, the same in each run.
    fn numbers() -> impl Iterator<Item = usize> {
        let mut state = 1_u32;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize
        })
    }

    #[test]
    fn wherever_an_initrd_is_cut_or_changed_a_checksum_that_covers_it_tells() {
        let content = |number: usize| (number % 19 * (number % 19) * 7 + number % 19 * 13) as u8;
        let content: Vec<u8> = numbers().map(content).take(3_000).collect();
        let archive = [archive("a", &content), archive("b", b"b")].concat();
        let formats: [(&str, &[&str], bool); 7] = [
            ("gzip", &["-n"], true),
            ("zstd", &["-q", "-3"], true),
            ("xz", &["-0", "--check=crc32"], true),
            ("bzip2", &["-1"], true),
            ("lzop", &["-9"], true),
            ("xz", &["-0", "--format=lzma"], false),
            ("lz4", &["-l", "-q"], false),
        ];
        let scratch = crate::machine::scratch::Scratch::new();
        let proved = |bytes: &[u8]| proved_in(&scratch.root.path("/run/part"), bytes);
        for (tool, arguments, has_checksum) in formats {
            let Some(packed) = packed_by(tool, arguments, &archive) else { continue };
            assert_eq!(proved(&packed), None, "{tool}");
            for number in numbers().take(1000) {
                let length = 1 + number % (packed.len() - 1);
                assert!(proved(&packed[..length]).is_some(), "{tool}, cut to {length}");
            }
            for number in numbers().skip(1000).take(1000) {
                let mut other = packed.clone();
                other[number % packed.len()] ^= 1 << (number % 8);
                // Bytes outside the content, such as a time or a name, may change unnoticed.
                let same = || decompressed_to(&other, u64::MAX).1 == archive;
                assert!(!has_checksum || proved(&other).is_some() || same(), "{tool}, {number}");
            }
        }
    }

    #[test]
    fn a_bootconfig_that_is_damaged_is_told() {
        let tail = |size: u32, sum: u32| {
            [&b"a = 1\n"[..], &size.to_le_bytes(), &sum.to_le_bytes(), BOOT_CONFIG].concat()
        };
        let sum: u32 = b"a = 1\n".iter().map(|byte| u32::from(*byte)).sum();
        let one = archive("a", b"abc");
        assert_eq!(wrong(&[&one[..], &tail(6, sum)].concat()), None);
        assert_eq!(wrong(&tail(6, sum)), None);
        assert!(wrong(&[&one[..], &tail(6, sum + 1)].concat()).unwrap().contains("another checksum"));
        assert!(wrong(&tail(100, sum)).unwrap().contains("longer than the file"));
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
            let (is, out) = decompressed(&[&gzip(&one)[..], &tail].concat());
            assert_eq!(is.decompressed, 1);
            assert!(out.starts_with(&one) && out.ends_with(&tail), "{padding}");
            assert!(out.len() < one.len() + tail.len() + 4, "{padding}");
        }
    }

    #[test]
    fn no_more_is_written_than_there_is_room_for() {
        let bomb = gzip(&archive("a", &vec![0; 1 << 20]));
        for bytes in [&bomb[..], &archive("a", &vec![1; 1 << 17])] {
            let (is, out) = decompressed_to(bytes, 1 << 16);
            assert!(matches!(is, Err(Failure::NoRoom)) && out.len() <= 1 << 16);
        }
    }
}
