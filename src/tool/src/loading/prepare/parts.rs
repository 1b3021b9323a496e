//! The input and the result of a preparation.

use std::fs::File;
use std::io::{self, Read};

use nextkernel_plan::{Area, Segment};
use thiserror::Error;

use crate::loading::decompress::Decompressed;
use crate::loading::prepare::memory::Memory;
use crate::loading::prepare::memory_map;
use crate::loading::prepare::range::Range;
use crate::machine::root::Root;
use crate::machine::sys::read_at;
use crate::words::errno::InWords;

/// The input of a preparation.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The running system.
    pub root: &'a Root,
    /// The staged kernel.
    pub kernel: &'a File,
    /// The facts about the decompressed kernel; `None` if it is staged as it was built.
    pub decompressed: Option<&'a Decompressed>,
    /// The staged initrd.
    pub initrd: Option<&'a File>,
    /// The staged command line, for options that restrict where a kernel may lie.
    pub cmdline: &'a str,
    /// Bytes reserved for the command line: the line itself, the longest record, and a NUL.
    pub cmdline_room: u64,
    /// Memory to leave alone if possible, the worst first.
    pub avoided: &'a [Range],
}

/// A prepared load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The contents of the image set's third file: parameters for the next kernel, and its first instructions.
    pub parameters: Vec<u8>,
    /// The physical address of the first instruction.
    pub start: u64,
    /// The segments, in the order in which they are loaded.
    pub segments: Vec<Segment>,
    /// The area for the command line in `parameters`.
    pub cmdline: Area,
    /// The areas for random seeds in `parameters`.
    pub seeds: Vec<Area>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Why a load cannot be prepared: what is missing in the kernel or the machine, and what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// The layout of this machine's memory cannot be determined.
    #[error(transparent)]
    Memory(#[from] memory_map::Error),
    /// A file cannot be read.
    #[error("{what} cannot be read: {}", InWords(.error))]
    Unreadable {
        /// The name of the file.
        what: String,
        /// The reason.
        error: io::Error,
    },
    /// The kernel, the initrd or the machine does not allow this kind of load.
    #[error("{0}")]
    Unfit(String),
    /// The image takes more memory than the kernel accepts.
    #[error("{0}")]
    TooLarge(String),
}

impl Error {
    /// Returns the error for a kernel that cannot be loaded by segments.
    pub(super) fn kernel(why: impl Into<String>) -> Error {
        Error::Unfit(format!("the kernel cannot be loaded by segments: {}", why.into()))
    }
}

/// Finds places while leaving alone as much of the `avoided` memory as possible: first all of it, then the
/// worse half, and so on.
pub(crate) fn with_least_in_the_way<T>(
    memory: &Memory,
    avoided: &[Range],
    places: impl Fn(Memory) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut left_alone = avoided;
    loop {
        let found = places(memory.clone().avoiding(left_alone));
        if found.is_ok() || left_alone.is_empty() {
            return found;
        }
        left_alone = left_alone.get(..left_alone.len() / 2).unwrap_or_default();
    }
}

/// Returns the length of a staged file; an empty file is an error.
pub(crate) fn length(file: &File, what: &str) -> Result<u64, Error> {
    let unreadable = |error| Error::Unreadable { what: what.to_owned(), error };
    match file.metadata().map_err(unreadable)?.len() {
        0 => Err(Error::Unfit(format!("{what} is empty"))),
        length => Ok(length),
    }
}

/// Returns the first bytes of a staged file, at most `most`.
pub(crate) fn head(file: &File, what: &str, most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; most];
    let has = read_at(file, &mut bytes, 0);
    bytes.truncate(has.map_err(|error| Error::Unreadable { what: what.to_owned(), error })?);
    Ok(bytes)
}

/// A source of unpredictable random numbers.
pub struct Random(pub(crate) File);

impl Random {
    /// Opens the kernel's random numbers (`random(4)`).
    pub fn open(root: &Root) -> Result<Random, Error> {
        let what = "/dev/urandom";
        let unreadable = |error| Error::Unreadable { what: what.to_owned(), error };
        let mut file = root.open(what).map_err(unreadable)?;
        // A first read, so that any error shows now.
        file.read_exact(&mut [0; 8]).map_err(unreadable)?;
        Ok(Random(file))
    }

    /// Returns a random number.
    pub fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
