//! The two devices, and a bounded write to each of them.

use crate::lines::Sink;
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, Result, write};

/// The greatest number of writes for one line. A signal may interrupt a write, and a console may take a line
/// in parts. More is not worth waiting for, and the bound keeps a program alive if its devices misbehave.
const TRIES: usize = 8;

/// The paths of the kernel log and the console.
pub(crate) struct Devices<'a> {
    kmsg: &'a CStr,
    console: &'a CStr,
    kept: &'a Kept,
}

/// The descriptor of the kernel log if it is kept open, else -1.
#[derive(Debug)]
pub(crate) struct Kept(AtomicI32);

impl Kept {
    /// Returns the value for a log that is not kept open.
    pub(crate) const fn none() -> Self {
        Self(AtomicI32::new(-1))
    }

    #[allow(unsafe_code)]
    fn get(&self) -> Option<BorrowedFd<'_>> {
        let number = self.0.load(Ordering::Relaxed);
        // SAFETY: it is -1, or a descriptor that `keep_open` has opened and that nothing here closes. If the
        // program closes descriptors by their numbers, writing to it gives EBADF, or goes to the file that
        // the program has opened under that number.
        (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }
}

impl<'a> Devices<'a> {
    /// Returns the paths that are the same on every Linux.
    pub(crate) const fn of_the_system(kept: &'a Kept) -> Self {
        Devices { kmsg: c"/dev/kmsg", console: c"/dev/console", kept }
    }

    /// Keeps the kernel log open from now on.
    pub(crate) fn keep_open(&self) {
        if self.kept.get().is_none() {
            let opened = open_device(self.kmsg).map_or(-1, IntoRawFd::into_raw_fd);
            self.kept.0.store(opened, Ordering::Relaxed);
        }
    }
}

impl Sink for Devices<'_> {
    fn kmsg(&self, record: &[u8]) -> bool {
        let kept = self.kept.get().is_some_and(|kmsg| write_all(kmsg, record).is_ok());
        kept || write_to(self.kmsg, record).is_ok()
    }

    fn console(&self, line: &[u8]) {
        // The console is the last resort: if this fails, nothing is left to take the line.
        let _ = write_to(self.console, line);
    }
}

fn write_to(device: &CStr, bytes: &[u8]) -> Result<()> {
    write_all(open_device(device)?, bytes)
}

fn open_device(device: &CStr) -> Result<OwnedFd> {
    // NONBLOCK: a serial console without carrier, or a FIFO without reader, would block the open.
    // NOCTTY: PID 1 leads a session, and must not get a terminal that could send it SIGHUP.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(device, flags, Mode::empty())
}

fn write_all(device: impl AsFd, bytes: &[u8]) -> Result<()> {
    write_all_by(bytes, |rest| write(&device, rest))
}

fn write_all_by(mut bytes: &[u8], mut write: impl FnMut(&[u8]) -> Result<usize>) -> Result<()> {
    for _ in 0..TRIES {
        match write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if bytes.is_empty() {
            return Ok(());
        }
    }
    Err(Errno::INTR)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::lines::send;
    use log::Level;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::ffi::CString;
    use std::fs::{File, OpenOptions, create_dir, remove_dir_all};
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;

    /// A private /dev. A FIFO takes the place of a device: it takes the bytes, and the test reads them back.
    struct Dev(PathBuf);

    impl Dev {
        fn new(test: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("kmsg-logger-{}-{test}", std::process::id()));
            create_dir(&dir).unwrap();
            Self(dir)
        }

        fn path(&self, name: &str) -> CString {
            CString::new(self.0.join(name).to_str().unwrap()).unwrap()
        }

        /// Makes a device and opens it for reading.
        fn device(&self, name: &str) -> File {
            mknodat(CWD, self.path(name).as_c_str(), FileType::Fifo, Mode::RWXU, 0).unwrap();
            let nonblock = OFlags::NONBLOCK.bits().try_into().unwrap();
            OpenOptions::new().read(true).custom_flags(nonblock).open(self.0.join(name)).unwrap()
        }

        fn say(&self, message: &str) {
            self.say_to(&self.path("kmsg"), message);
        }

        fn say_to(&self, kmsg: &CStr, message: &str) {
            let devices = Devices { kmsg, console: &self.path("console"), kept: &Kept::none() };
            send(Level::Warn, "test", format_args!("{message}"), &devices);
        }
    }

    impl Drop for Dev {
        fn drop(&mut self) {
            remove_dir_all(&self.0).unwrap();
        }
    }

    fn said(mut device: &File) -> String {
        let mut said = String::new();
        device.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn kmsg_gets_the_records() {
        let dev = Dev::new("kmsg");
        let (kmsg, console) = (dev.device("kmsg"), dev.device("console"));
        dev.say("a\nb");
        assert_eq!(said(&kmsg), "<4>test: a\n<4>test: b\n");
        assert_eq!(said(&console), "");
    }

    #[test]
    fn without_kmsg_the_console_gets_the_line() {
        let dev = Dev::new("console");
        let console = dev.device("console");
        dev.say("a\nb");
        assert_eq!(said(&console), "test: a\r\ntest: b\r\n");
    }

    #[test]
    fn a_kmsg_that_refuses_leaves_the_line_to_the_console() {
        let dev = Dev::new("full");
        let console = dev.device("console");
        dev.say_to(c"/dev/full", "a");
        assert_eq!(said(&console), "test: a\r\n");
    }

    #[test]
    fn without_both_nothing_happens() {
        let dev = Dev::new("nothing");
        dev.say("a");
        assert_eq!(dev.0.read_dir().unwrap().count(), 0, "no file is made in place of a device");
    }

    #[test]
    fn a_kmsg_that_appears_is_used() {
        let dev = Dev::new("appears");
        dev.say("too early");
        let kmsg = dev.device("kmsg");
        dev.say("a");
        assert_eq!(said(&kmsg), "<4>test: a\n");
    }

    #[test]
    fn a_device_that_nobody_reads_does_not_block() {
        let dev = Dev::new("unread");
        drop(dev.device("kmsg"));
        let console = dev.device("console");
        dev.say("a");
        assert_eq!(said(&console), "test: a\r\n");
    }

    #[test]
    fn what_is_kept_open_gets_the_records_and_is_passed_by_when_it_refuses() {
        let dev = Dev::new("kept");
        let (kmsg, console) = (dev.device("kmsg"), dev.device("console"));
        let (path, console_path, kept) = (dev.path("kmsg"), dev.path("console"), Kept::none());
        let devices = Devices { kmsg: &path, console: &console_path, kept: &kept };
        let say = |message: &str| send(Level::Warn, "test", format_args!("{message}"), &devices);
        devices.keep_open();
        std::fs::rename(dev.0.join("kmsg"), dev.0.join("elsewhere")).unwrap();
        say("a");
        // The FIFO has a writer, and so no end of file.
        let mut first = [0; 64];
        let length = (&kmsg).read(&mut first).unwrap();
        assert_eq!(first.get(..length).unwrap(), b"<4>test: a\n");
        drop(kmsg);
        let kmsg = dev.device("kmsg");
        say("b");
        assert_eq!((said(&kmsg).as_str(), said(&console).as_str()), ("<4>test: b\n", ""));
    }

    #[test]
    fn what_cannot_be_opened_is_not_kept() {
        let dev = Dev::new("unkept");
        let (path, console_path, kept) = (dev.path("kmsg"), dev.path("console"), Kept::none());
        Devices { kmsg: &path, console: &console_path, kept: &kept }.keep_open();
        assert!(kept.get().is_none());
    }

    #[test]
    fn an_interrupted_write_is_tried_again() {
        let mut tries = 0;
        let done = write_all_by(b"abc", |rest| {
            tries += 1;
            if tries < 3 { Err(Errno::INTR) } else { Ok(rest.len()) }
        });
        assert_eq!((done, tries), (Ok(()), 3));
    }

    #[test]
    fn a_write_in_parts_is_completed() {
        let mut got = Vec::new();
        let done = write_all_by(b"abcd", |rest| {
            got.push(rest.to_vec());
            Ok(2)
        });
        assert_eq!((done, got), (Ok(()), vec![b"abcd".to_vec(), b"cd".to_vec()]));
    }

    #[test]
    fn tries_are_bounded() {
        for answer in [Err(Errno::INTR), Ok(0)] {
            let mut tries = 0;
            let done = write_all_by(b"a", |_| {
                tries += 1;
                answer
            });
            assert_eq!((done, tries), (Err(Errno::INTR), TRIES));
        }
    }

    #[test]
    fn any_other_error_ends_it_at_once() {
        let mut tries = 0;
        let done = write_all_by(b"a", |_| {
            tries += 1;
            Err(Errno::INVAL)
        });
        assert_eq!((done, tries), (Err(Errno::INVAL), 1));
    }
}
