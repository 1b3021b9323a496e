//! Lines for the kernel log. The macros of the `log` crate store the source location of every line, which is
//! never shown here and would take up a twentieth of the binary.

use core::fmt;

use kmsg_logger::KmsgLogger;
use log::{Level, Log, Record};

use crate::sys::limits;

/// The logger of all of the hook's lines.
pub static LOG: KmsgLogger = KmsgLogger::new("nextkernel");

/// Logs a line.
pub fn say(level: Level, line: fmt::Arguments<'_>) {
    LOG.log(&Record::builder().level(level).target("nextkernel").args(line).build());
}

macro_rules! info {
    ($($line:tt)*) => { $crate::sys::say::say(log::Level::Info, format_args!($($line)*)) };
}
macro_rules! warning {
    ($($line:tt)*) => { $crate::sys::say::say(log::Level::Warn, format_args!($($line)*)) };
}
macro_rules! error {
    ($($line:tt)*) => { $crate::sys::say::say(log::Level::Error, format_args!($($line)*)) };
}
/// Logs one line of many of its kind. Consoles show the first few; the kernel log has all.
macro_rules! one_of_many {
    ($before:expr, $($line:tt)*) => {
        $crate::sys::say::say($crate::sys::say::level_of($before), format_args!($($line)*))
    };
}
pub(crate) use {error, info, one_of_many, warning as warn};

/// Returns the level of a line, given how many of its kind came before.
#[must_use]
pub fn level_of(before: usize) -> Level {
    if before < limits::SHOWN { Level::Info } else { Level::Debug }
}
