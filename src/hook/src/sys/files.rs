//! Reading the kernel's files through buffers of a known size.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, RawDir, accessat, openat, readlinkat_raw};
use rustix::io::{self, Errno, retry_on_intr};

use crate::sys::limits;
use crate::sys::name::Name;

/// Returns whether a file exists at this path.
#[must_use]
pub fn exists(path: &CStr) -> bool {
    may(path, Access::EXISTS)
}

/// Returns whether a file can be executed. On a file system mounted noexec it cannot.
#[must_use]
pub fn is_executable(path: &CStr) -> bool {
    may(path, Access::EXEC_OK)
}

fn may(path: &CStr, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::empty()).is_ok()
}

/// Opens a file for reading.
pub fn open(directory: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    openat(directory, name, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file of the kernel for reading and writing.
pub fn open_both(path: &CStr) -> io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a file once, up to the size of the buffer. One read is enough for the files that are read this way:
/// files in memory, and lines of the kernel that are shorter than a page.
pub fn up_to(file: impl AsFd, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let length = retry_on_intr(|| io::read(&file, &mut *buffer))?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// Calls `each` with every entry of a directory, until it returns something.
pub fn find_entry<T>(
    directory: impl AsFd,
    mut each: impl FnMut(&CStr) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut found = None;
    entries_until(directory.as_fd(), &mut |name| {
        found = each(name);
        found.is_some()
    })?;
    Ok(found)
}

/// Not generic, so the compiler emits only one copy.
fn entries_until(directory: BorrowedFd<'_>, is_it: &mut dyn FnMut(&CStr) -> bool) -> io::Result<()> {
    let mut buffer = [const { MaybeUninit::uninit() }; limits::DIRECTORY_MAX];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." && is_it(name) {
            break;
        }
    }
    Ok(())
}

/// Opens a directory.
pub fn directory(at: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Returns the last component of a symbolic link's target.
#[must_use]
pub fn link<const N: usize>(at: impl AsFd, path: &CStr) -> Option<Name<N>> {
    let mut buffer = [const { MaybeUninit::uninit() }; limits::LINK_MAX];
    last_part(at.as_fd(), path, &mut buffer).map(Name::cut)
}

fn last_part<'b>(
    at: BorrowedFd<'_>,
    path: &CStr,
    buffer: &'b mut [MaybeUninit<u8>; limits::LINK_MAX],
) -> Option<&'b [u8]> {
    let (target, room) = readlinkat_raw(at, path, buffer).ok()?;
    // A target that fills the buffer may be cut.
    let whole = !room.is_empty();
    whole.then(|| target.rsplit(|byte| *byte == b'/').next())?
}

/// Writes a word to a file of the kernel.
pub fn write(at: impl AsFd, path: &CStr, word: &[u8]) -> io::Result<()> {
    let file = openat(at, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    io::write(&file, word).map(|_| ())
}

/// Calls `each` with every line of a file, until it returns something. Of a line that is longer than the
/// buffer, `each` gets the beginning, once.
pub fn find_line<T>(
    at: impl AsFd,
    path: &CStr,
    mut each: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let file = open(at, path)?;
    let mut found = None;
    lines_until(&file, &mut |line| {
        found = each(line);
        found.is_some()
    })?;
    Ok(found)
}

fn lines_until(file: &OwnedFd, is_it: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = [0; limits::LINE_MAX];
    let mut held = 0;
    // The beginning of this line was passed on, and the rest is skipped.
    let mut skips = false;
    loop {
        let count = match io::read(file, buffer.get_mut(held..).unwrap_or_default()) {
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        held += count;
        let is_full = held == buffer.len();
        let mut used = 0;
        let full = buffer.get(..held).unwrap_or_default();
        for line in full.split_inclusive(|byte| *byte == b'\n') {
            let whole = line.strip_suffix(b"\n");
            let fills_it = is_full && used == 0;
            if whole.is_none() && count > 0 && !fills_it {
                break;
            }
            if !skips && is_it(whole.unwrap_or(line)) {
                return Ok(());
            }
            skips = whole.is_none();
            used += line.len();
        }
        if count == 0 {
            return Ok(());
        }
        buffer.copy_within(used..held, 0);
        held -= used;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fs::CWD;
    use std::ffi::CString;
    use std::string::String;
    use std::vec::Vec;

    fn lines_of(text: &[u8]) -> io::Result<Vec<String>> {
        let name = format!("nextkernel-lines-{}-{}", std::process::id(), text.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let mut lines = Vec::new();
        let c = CString::new(path.to_str().unwrap()).unwrap();
        let read = find_line(CWD, &c, |line| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            None::<()>
        });
        std::fs::remove_file(path).unwrap();
        read.map(|_| lines)
    }

    #[test]
    fn every_line_is_seen_once_wherever_the_reads_end() {
        let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
        assert_eq!(lines_of(lines.join("\n").as_bytes()).unwrap(), lines);
        assert_eq!(lines_of((lines.join("\n") + "\n").as_bytes()).unwrap(), lines);
    }

    #[test]
    fn of_a_line_longer_than_its_place_the_begin_is_seen_once_and_those_around_it_whole() {
        for more in [0, 1, 2, limits::LINE_MAX, 3 * limits::LINE_MAX + 7] {
            let long = "x".repeat(limits::LINE_MAX + more);
            let lines = lines_of(format!("before\n{long}\nafter\n\nlast").as_bytes()).unwrap();
            let begin = lines.get(1).cloned().unwrap_or_default();
            assert_eq!(lines, ["before", &begin, "after", "", "last"], "{more}");
            assert!(begin.len() > limits::LINE_MAX / 2 && long.starts_with(&begin), "{more}");
            let alone = lines_of(long.as_bytes()).unwrap();
            assert!(matches!(&*alone, [begin] if long.starts_with(begin)), "{more}");
        }
    }
}
