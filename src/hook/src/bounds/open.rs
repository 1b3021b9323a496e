//! Storage below the old root that could not be closed.

use core::fmt;

use rustix::io::Errno;

use crate::sys::errno::Named;
use crate::sys::name::Name;

/// The kind of storage that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file system.
    Mounted,
    /// A file or a device that is used as swap.
    Swap,
    /// A loop device.
    Loop,
    /// A device-mapper device.
    Mapped,
    /// An md array.
    Array,
}

impl Kind {
    /// Returns the words for closing it.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Kind::Mounted => "unmount",
            Kind::Swap => "turn off swap on",
            Kind::Loop => "detach loop device",
            Kind::Mapped => "remove mapped device",
            Kind::Array => "stop array",
        }
    }
}

/// A piece of storage that could not be closed.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Its kind.
    pub kind: Kind,
    /// Its mount point or its name, cut if it is long.
    pub name: Name<64>,
    /// The kernel's error.
    pub why: Errno,
}

impl fmt::Display for Open {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "the old root's storage is not closed: {} {}: {}",
            self.kind.verb(),
            self.name,
            Named(self.why)
        )
    }
}
