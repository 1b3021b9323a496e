//! Thawing: what is compressed is decompressed by day, so that the next kernel spends nothing on it.

use std::fs::File;
use std::io;

use thiserror::Error;

use crate::errno::InWords;
use crate::root::Root;

/// A kernel that is thawed: its bytes lie in a file as they lie in memory. What else has to be known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thawed {
    /// The first bytes of the image it came in, with the setup header.
    pub head: Vec<u8>,
    /// How many bytes of memory it takes from its beginning on, more than its file.
    pub takes: u64,
    /// Where in it the first instruction is.
    pub entry: u64,
    /// The physical address it was linked for.
    pub linked: u64,
    /// The virtual address it was moved to, less that of all kernels; it is `linked` where it was not moved.
    pub moved: u64,
    /// Whether its place in memory is to be random, too, and it is told so.
    pub random: bool,
}

/// What to do with one.
pub struct Asked<'a> {
    /// The system that runs.
    pub root: &'a Root,
    /// The staged command line.
    pub cmdline: &'a str,
    /// How large it may become, in bytes.
    pub most: u64,
}

/// Why a kernel is not thawed. It is staged as it is then.
#[derive(Debug, Error)]
pub enum Why {
    /// It cannot be, or would lose something.
    #[error("{0}")]
    Unfit(String),
    /// It becomes too large.
    #[error("it becomes larger than there is room for")]
    NoRoom,
    /// It cannot be read.
    #[error("it cannot be read: {}", InWords(.0))]
    Read(io::Error),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {}", InWords(.0))]
    Write(io::Error),
}

/// Thaws a staged kernel into an empty file. Where that fails the file holds nothing of use.
pub fn kernel(_from: &File, _to: &File, _asked: &Asked<'_>) -> Result<Thawed, Why> {
    Err(Why::Unfit("it is no bzImage".to_owned()))
}

/// An initrd that is thawed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initrd {
    /// Its size in bytes.
    pub size: u64,
    /// How many of its members were decompressed; where it is none, the file is as the other.
    pub thawed: usize,
    /// What stays as it is, and why: a sentence each.
    pub left: Vec<String>,
}

/// Thaws a staged initrd, which may be several joined, into an empty file.
pub fn initrd(from: &File, to: &File, most: u64) -> Result<Initrd, Why> {
    let size = from.metadata().map_err(Why::Read)?.len();
    if size > most {
        return Err(Why::NoRoom);
    }
    io::copy(&mut &*from, &mut &*to).map_err(Why::Write)?;
    Ok(Initrd { size, ..Initrd::default() })
}
