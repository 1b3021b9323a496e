//! What the old root lies on and could not be closed.

use core::fmt;

use rustix::io::Errno;

use crate::sys::errno::Named;
use crate::sys::name::Name;

/// What kind of thing is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file system.
    Mounted,
    /// A file or a device in use as swap.
    Swap,
    /// A loop device.
    Loop,
    /// A device of the device mapper.
    Mapped,
    /// An array of md.
    Array,
}

impl Kind {
    /// The word for closing it.
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

/// Something that could not be closed.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What it is.
    pub kind: Kind,
    /// Its mount point or its name; long ones are cut.
    pub name: Name<64>,
    /// What the kernel answered.
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
