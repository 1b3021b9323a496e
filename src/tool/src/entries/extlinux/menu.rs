//! The data types of a menu in extlinux.conf or syslinux.cfg.

use thiserror::Error;

/// Limit in bytes; a larger file is not a configuration.
pub(super) const SIZE_MAX: usize = 1 << 20;

/// Limit for the labels. A file with more is not a menu, and each search goes through all of them.
pub(super) const LABELS_MAX: usize = 1000;

/// An error, and its line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct Wrong {
    /// The line, counted from 1.
    pub line: usize,
    /// The error.
    pub why: LineError,
}

/// An error in a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// The bytes are not text.
    #[error("it is not plain text")]
    NotText,
    /// The file is too large to be a configuration.
    #[error("the file is larger than {SIZE_MAX} bytes")]
    TooLarge,
    /// There are too many labels for a menu.
    #[error("there are more than {LABELS_MAX} labels")]
    TooMany,
    /// The keyword is unknown.
    #[error("{0} is no keyword that is understood")]
    Unknown(String),
    /// The keyword lacks its value.
    #[error("{0} says nothing")]
    Empty(&'static str),
    /// The file refers to another file.
    #[error("what {0} holds is not read: put it into this file")]
    Include(String),
    /// The keyword occurs twice.
    #[error("{0} stands there a second time, and U-Boot and syslinux differ in which they take")]
    Twice(&'static str),
    /// The initrd is named in two ways.
    #[error("INITRD and APPEND both name an initrd, and U-Boot and syslinux differ in which they take")]
    TwoInitrds,
    /// The label does not start a Linux kernel.
    #[error("the label starts no Linux kernel, but {0}")]
    NotLinux(String),
    /// The label starts nothing.
    #[error("the label names no kernel")]
    NoKernel,
    /// The kernel is in a FIT.
    #[error("{0} names a configuration of a FIT image, which is not read")]
    Fit(String),
    /// The boot loader adds parameters of its own.
    #[error("the boot loader adds the network's settings to the command line (IPAPPEND, SYSAPPEND)")]
    Network,
    /// U-Boot interprets the character, and syslinux does not.
    #[error("U-Boot takes {0:?} in APPEND for its own, and syslinux does not")]
    Macro(char),
    /// U-Boot ends the label earlier, at the line given here.
    #[error("U-Boot ends the label at line {0} and passes over this, and syslinux does not")]
    Ended(usize),
    /// The only APPEND comes before all labels.
    #[error("the label has no APPEND; syslinux takes the one before all labels, and U-Boot does not")]
    Common,
    /// There is no APPEND.
    #[error("the label has no APPEND, and U-Boot then takes what its environment holds (bootargs)")]
    NoAppend,
    /// A block is not closed.
    #[error("TEXT is never closed by ENDTEXT")]
    Unclosed,
}

/// The location of the device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fdt {
    /// This file.
    File(String),
    /// A file in this directory, whose name the board knows.
    Directory(String),
}

/// The kernel of a label, and everything that it boots with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The kernel's path.
    pub kernel: String,
    /// The initrds' paths, in order. U-Boot takes only one.
    pub initrds: Vec<String>,
    /// The command line as it is written, with `initrd=` if that is in it.
    pub options: String,
    /// The device tree.
    pub fdt: Option<Fdt>,
    /// Overlays for the device tree, in order.
    pub overlays: Vec<String>,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The title in the menu.
    pub title: String,
    /// The line in which it begins.
    pub line: usize,
    /// The kernel that it boots, or the reason why it cannot be staged.
    pub boots: Result<Linux, Wrong>,
}

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The labels, in order.
    pub labels: Vec<Label>,
    /// `TIMEOUT`, in tenths of a second.
    pub timeout: Option<u32>,
    /// The label for U-Boot to take after too many failed boots (`FALLBACK`).
    pub fallback: Option<String>,
    pub(super) default: Option<String>,
    pub(super) on_timeout: Option<String>,
    pub(super) menu_defaults: Vec<String>,
    pub(super) syslinux: Option<MenuProgram>,
    /// The line by which syslinux begins with the label that was chosen last.
    pub(super) saves: Option<usize>,
}

/// The keyword that names the program with which syslinux shows its menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MenuProgram {
    /// `DEFAULT`, instead of a label.
    Default,
    /// `UI`.
    Ui,
}

/// Returns the path on its file system of a name in a file in `directory`. A name with a leading '/' begins at
/// the top of the file system, any other in that directory. `..` stays for the reader of the file.
#[must_use]
pub fn path(directory: &str, named: &str) -> String {
    if named.starts_with('/') {
        return named.to_owned();
    }
    format!("{}/{named}", directory.trim_end_matches('/'))
}
