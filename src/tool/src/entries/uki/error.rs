//! The reasons why a unified kernel image cannot be read or staged.

use std::io;

use thiserror::Error;

use crate::words::errno::InWords;

/// Limit in bytes for a text in an image; no kernel takes a longer command line.
pub(super) const TEXT_MAX: u64 = 16 << 10;

/// Limit for the profiles of an image (`UNIFIED_PROFILES_MAX`, src/fundamental/uki.h of systemd).
pub(super) const PROFILES_MAX: usize = 256;

/// The reason why an image cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The file is not an EFI program.
    #[error("it is no EFI program ({0})")]
    NoPe(&'static str),
    /// It is an EFI program without a kernel.
    #[error("it is an EFI program without a kernel in it (.linux)")]
    NoKernel,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// A text is too long.
    #[error("its section {0} is longer than {TEXT_MAX} bytes")]
    TooLong(&'static str),
    /// A text is not UTF-8.
    #[error("its section {0} is not UTF-8")]
    NotText(&'static str),
    /// There are too many profiles.
    #[error("it has more than {PROFILES_MAX} profiles")]
    TooManyProfiles,
    /// There is no such profile.
    #[error("it has {has} profiles, and no profile @{number}")]
    NoProfile {
        /// The number asked for.
        number: usize,
        /// The number of profiles.
        has: usize,
    },
    /// A section names a file by an invalid path, or one that does not exist.
    #[error("its section {section} names {path:?}, {why}")]
    Elsewhere {
        /// The section.
        section: &'static str,
        /// The path.
        path: String,
        /// The reason why it leads to no file.
        why: &'static str,
    },
    /// The image has a device tree.
    #[error("it has a device tree ({0}), and a kernel that is loaded with kexec gets the running one's")]
    DeviceTree(&'static str),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Unreadable(InWords(&error).to_string())
    }
}
