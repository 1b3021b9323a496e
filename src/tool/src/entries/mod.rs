//! Which kernel is meant. Each way of finding one is a file here: now the plain convention of the
//! distributions; boot-loader entries will stand beside it.

mod convention;

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::root::Root;

/// A kernel, what belongs to it, and what a person calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A version, or the kernel's path.
    pub name: String,
    /// The kernel's path.
    pub kernel: PathBuf,
    /// The initrds' paths, in order.
    pub initrds: Vec<PathBuf>,
}

/// Why no entry was chosen.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// There is none.
    #[error("no kernel is found as /vmlinuz or /boot/vmlinuz-VERSION; name one with --kernel and --initrd")]
    None,
    /// There are several, and nothing tells which is meant.
    #[error("several kernels are installed, and nothing tells which is meant: name one of {}", .0.join(", "))]
    Several(Vec<String>),
    /// None is called that.
    #[error("no kernel '{name}' is installed: there {}", are(.others))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        others: Vec<String>,
    },
    /// It has no initrd by the convention.
    #[error(
        "{} has no initrd beside it ({}); name one with --kernel and --initrd, or give --kernel alone \
         if it needs none",
        .kernel.display(), .looked.join(", ")
    )]
    NoInitrd {
        /// The kernel.
        kernel: PathBuf,
        /// Where one was looked for.
        looked: Vec<String>,
    },
    /// It has several initrds, and nothing tells which is meant.
    #[error("{} has several initrds beside it: choose with --kernel and --initrd from {}", .kernel.display(), .initrds.join(", "))]
    SeveralInitrds {
        /// The kernel.
        kernel: PathBuf,
        /// The initrds.
        initrds: Vec<String>,
    },
}

fn are(names: &[String]) -> String {
    if names.is_empty() { "is none".to_owned() } else { format!("are {}", names.join(", ")) }
}

/// The entry of that name, or the one that the distribution would boot.
pub fn choose(root: &Root, name: Option<&str>) -> Result<Entry, Error> {
    convention::choose(root, name)
}

/// The entry that explicit files make.
#[must_use]
pub fn explicit(kernel: &Path, initrds: &[PathBuf]) -> Entry {
    Entry { name: kernel.display().to_string(), kernel: kernel.to_path_buf(), initrds: initrds.to_vec() }
}
