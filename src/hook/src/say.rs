//! A line of the kernel log. log's own macros keep for every line where in the source it stands, which nobody is
//! told here, and which would be a twentieth of the file.

use core::fmt;

use log::{Level, Record};

/// Says it.
pub fn say(level: Level, line: fmt::Arguments<'_>) {
    log::logger().log(&Record::builder().level(level).target("nextkernel").args(line).build());
}

macro_rules! info {
    ($($line:tt)*) => { $crate::say::say(log::Level::Info, format_args!($($line)*)) };
}
macro_rules! warning {
    ($($line:tt)*) => { $crate::say::say(log::Level::Warn, format_args!($($line)*)) };
}
macro_rules! error {
    ($($line:tt)*) => { $crate::say::say(log::Level::Error, format_args!($($line)*)) };
}
pub(crate) use {error, info, warning as warn};
