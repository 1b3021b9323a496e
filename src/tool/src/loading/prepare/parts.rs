//! The input and the result of a preparation.

use std::fs::File;
use std::io::{self, Read};

use nextkernel_plan::{Area, Segment};
use thiserror::Error;

use crate::loading::decompress::Thawed;
use crate::loading::prepare::memory_map::{self, Memory, Range};
use crate::machine::root::Root;
use crate::machine::sys::read_at;
use crate::words::errno::InWords;

/// What a load is prepared for.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The system that runs.
    pub root: &'a Root,
    /// The staged kernel.
    pub kernel: &'a File,
    /// What it was before it was thawed; none where it is staged as it was built.
    pub thawed: Option<&'a Thawed>,
    /// The staged initrd.
    pub initrd: Option<&'a File>,
    /// The staged command line, for what it says of where a kernel may lie.
    pub cmdline: &'a str,
    /// How many bytes are kept for the command line: it, the longest record, and a NUL.
    pub cmdline_room: u64,
    /// Memory that had better be left alone, the worst first.
    pub avoided: &'a [Range],
}

/// A load, prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What the next kernel is told, and its first instructions: the bytes of the set's third file.
    pub parameters: Vec<u8>,
    /// The physical address of the first instruction.
    pub start: u64,
    /// What goes where, in the order of their addresses.
    pub segments: Vec<Segment>,
    /// Where in the parameters the command line goes.
    pub cmdline: Area,
    /// What in them is random.
    pub seeds: Vec<Area>,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

/// Why a load cannot be prepared: what the kernel or the machine lacks, and what to do.
#[derive(Debug, Error)]
pub enum Error {
    /// Where memory is.
    #[error(transparent)]
    Memory(#[from] memory_map::Error),
    /// A file cannot be read.
    #[error("{what} cannot be read: {}", InWords(.error))]
    Unreadable {
        /// It.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// It cannot be loaded so.
    #[error("{0}")]
    Unfit(String),
    /// It takes more memory than a kernel may.
    #[error("{0}")]
    TooLarge(String),
}

/// Finds places with as much of that memory left alone as leaves places for all: all of it, else the worse half, and so on.
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

/// The length of a staged file, never 0.
pub(crate) fn length(file: &File, what: &str) -> Result<u64, Error> {
    let unreadable = |error| Error::Unreadable { what: what.to_owned(), error };
    match file.metadata().map_err(unreadable)?.len() {
        0 => Err(Error::Unfit(format!("{what} is empty"))),
        length => Ok(length),
    }
}

/// The first bytes of a staged file, as many as there are of those asked for.
pub(crate) fn head(file: &File, what: &str, most: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; most];
    let has = read_at(file, &mut bytes, 0);
    bytes.truncate(has.map_err(|error| Error::Unreadable { what: what.to_owned(), error })?);
    Ok(bytes)
}

/// Random numbers that nobody can guess.
pub struct Random(pub(crate) File);

impl Random {
    /// The kernel's (`random(4)`).
    pub fn open(root: &Root) -> Result<Random, Error> {
        let what = "/dev/urandom";
        let unreadable = |error| Error::Unreadable { what: what.to_owned(), error };
        let mut file = root.open(what).map_err(unreadable)?;
        // Whatever can be wrong with it is wrong now.
        file.read_exact(&mut [0; 8]).map_err(unreadable)?;
        Ok(Random(file))
    }

    /// A number.
    pub fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
