//! A line of the kernel log. log's own macros keep for every line where in the source it stands, which nobody is
//! told here, and which would be a twentieth of the file.

use core::fmt;

use kmsg_logger::KmsgLogger;
use log::{Level, Log, Record};

use crate::sys::limits;

/// Where it goes, once the program has begun with it.
pub static LOG: KmsgLogger = KmsgLogger::new("nextkernel");

/// Says it.
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
/// One line of many of its kind, of which consoles show the first few: the kernel log has all.
macro_rules! one_of_many {
    ($before:expr, $($line:tt)*) => {
        $crate::sys::say::say($crate::sys::say::level_of($before), format_args!($($line)*))
    };
}
pub(crate) use {error, info, one_of_many, warning as warn};

/// The level of a line that so many of its kind came before.
#[must_use]
pub fn level_of(before: usize) -> Level {
    if before < limits::SHOWN { Level::Info } else { Level::Debug }
}
