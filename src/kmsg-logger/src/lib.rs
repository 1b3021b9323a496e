//! A [`log::Log`] over `/dev/kmsg`, for programs that have nothing else: an init, a shutdown
//! executable, the first or the last process of a machine. `no_std`, no heap, one line of `unsafe`.
//!
//! ```no_run
//! use kmsg_logger::KmsgLogger;
//!
//! static LOG: KmsgLogger = KmsgLogger::new("lastwords");
//!
//! LOG.init(log::LevelFilter::Info).ok();
//! log::warn!("/dev/sda1 is still mounted"); // <4>lastwords: /dev/sda1 is still mounted
//! ```
//!
//! Each line of a message is one record of the kernel log, made by one `write(2)`, at most [`RECORD_MAX`]
//! bytes long. A longer line is cut between two characters and ends in `[cut]`; an empty line is skipped; a
//! control character other than the tab becomes `?`, so that a logged text cannot control a terminal.
//!
//! If `/dev/kmsg` is missing or refuses the record, the line goes to `/dev/console`; if that is missing, too,
//! the line is lost. Logging never panics, and opens and writes with `O_NONBLOCK`: a console whose buffer is
//! full loses the rest of the line. The crate cannot bound the work of the kernel inside the call: the kernel
//! may print the record on a slow console first, and a hung display driver can hold the call for ever. A
//! program that cannot afford to wait logs from a child.
//!
//! # No state, unless it is asked for
//!
//! The device is opened anew for each record: three system calls instead of one, and in return
//!
//! * no record is throttled. The kernel's limit of 10 lines in 5 seconds is counted for each
//!   *open file* (`devkmsg_open` in `kernel/printk/printk.c`): of 30 lines through one descriptor
//!   10 arrive, of 30 lines through 30 descriptors all do. So `printk.devkmsg=on` is not
//!   needed, and how much a program says is its own responsibility;
//! * a `/dev` that appears, or differs after a `chroot(2)` or `pivot_root(2)`, is simply used;
//! * there is no descriptor that `close_range(2)` could pull away, that a child could inherit, or
//!   that could keep `/dev` busy.
//!
//! A program that has written `on` to `/proc/sys/kernel/printk_devkmsg` has lifted the limit, and may ask for
//! one descriptor that is kept open ([`KmsgLogger::keep_open`]). For a record that this descriptor does not
//! take, the device is opened anew.
//!
//! A log call uses a little over 1 KiB of stack besides what the message's own `Display` needs, and is
//! safe in threads, in children and in a panic handler.

#![cfg_attr(not(test), no_std)]

mod device;
mod lines;

use device::{Devices, Kept};
pub use lines::RECORD_MAX;
use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

/// The logger: a prefix, and the descriptor of the kernel log if it is kept open.
///
/// | level | syslog level in the record |
/// |---|---|
/// | [`Error`](log::Level::Error) | 3, `KERN_ERR` |
/// | [`Warn`](log::Level::Warn) | 4, `KERN_WARNING` |
/// | [`Info`](log::Level::Info) | 6, `KERN_INFO` |
/// | [`Debug`](log::Level::Debug), [`Trace`](log::Level::Trace) | 7, `KERN_DEBUG` |
///
/// (`include/linux/kern_levels.h`.) The kernel sets the facility, which is `user`, because a program cannot
/// log as the kernel (`Documentation/ABI/testing/dev-kmsg`).
#[derive(Debug)]
pub struct KmsgLogger {
    prefix: &'static str,
    kept: Kept,
}

impl KmsgLogger {
    /// Returns a logger whose lines all begin with `prefix` and `: `, or with neither if `prefix` is empty.
    ///
    /// At most the first 48 characters of the prefix are used, so that there is always room for text.
    #[must_use]
    pub const fn new(prefix: &'static str) -> Self {
        Self { prefix, kept: Kept::none() }
    }

    /// Makes this the program's logger, for messages up to the level `max`.
    ///
    /// Opens nothing, so it does not matter whether `/dev` is there yet. Fails only if the program has a
    /// logger already, and then changes nothing.
    pub fn init(&'static self, max: LevelFilter) -> Result<(), SetLoggerError> {
        log::set_logger(self)?;
        log::set_max_level(max);
        Ok(())
    }

    /// Keeps `/dev/kmsg` open from now on, if it can be opened. Only for a program that has lifted the
    /// kernel's limit: otherwise lines are lost, because the limit counts for each open file, and children
    /// share this one.
    pub fn keep_open(&self) {
        Devices::of_the_system(&self.kept).keep_open();
    }
}

impl Log for KmsgLogger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            lines::send(record.level(), self.prefix, *record.args(), &Devices::of_the_system(&self.kept));
        }
    }

    fn flush(&self) {}
}
