//! The data types of GRUB's menu.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::entries::grub::environment::Broken;

/// Limit in bytes; a larger file is not a configuration.
pub(crate) const SIZE_MAX: usize = 4 << 20;

/// The files in GRUB's directory, /boot/grub or /boot/grub2.
#[derive(Clone, Copy, Debug, Default)]
pub struct MenuFiles<'a> {
    /// The contents of grub.cfg.
    pub config: &'a [u8],
    /// grubenv, if it exists.
    pub environment: Option<&'a [u8]>,
    /// custom.cfg, if it exists (`41_custom`).
    pub custom: Option<&'a [u8]>,
    /// user.cfg, if it exists (Fedora's `01_users`).
    pub user: Option<&'a [u8]>,
    /// The value that the variable `grub_platform` will have (`efi` or `pc`), if it is known.
    pub platform: Option<&'a str>,
}

/// An error, with its file and line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{file}, line {line}: {why}")]
pub struct Wrong {
    /// The file's name in GRUB's directory.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: usize,
    /// The error.
    pub why: ScriptError,
}

/// An error in a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ScriptError {
    /// The bytes are not text.
    #[error("it is not plain text")]
    NotText,
    /// The file is too large to be a configuration.
    #[error("the file is larger than {SIZE_MAX} bytes")]
    TooLarge,
    /// A quote, a block or a condition is not closed.
    #[error("{0} is never closed")]
    Unclosed(&'static str),
    /// A token cannot be in this place.
    #[error("{0} cannot stand there")]
    Unexpected(String),
    /// grub-mkconfig does not write this construct.
    #[error("'{0}' is not understood; grub-mkconfig writes none")]
    Construct(&'static str),
    /// Blocks are nested too deep.
    #[error("blocks lie too deep in each other")]
    TooDeep,
    /// The script does too much.
    #[error("the script does more than a menu can need")]
    TooMuch,
    /// The command is unknown, or cannot be in this place.
    #[error("the command {0} is not understood there; grub-mkconfig writes none")]
    Command(String),
    /// The command does not take these arguments.
    #[error("the arguments of '{0}' are not understood")]
    Arguments(&'static str),
    /// Only GRUB knows the value.
    #[error("only GRUB can tell the value of ${0}")]
    Variable(String),
    /// Only GRUB can judge the condition.
    #[error("only GRUB can judge this condition")]
    Condition,
    /// A file that adds to the menu is not read.
    #[error("what {0} adds to the menu is not read")]
    Unread(String),
    /// This grub.cfg only leads to the real one.
    #[error("it leads on to {0}; read that one")]
    LeadsTo(String),
    /// The environment is not read from grubenv.
    #[error("the environment is read from {0}, which is not the grubenv beside grub.cfg")]
    Environment(String),
    /// grubenv is not a valid block.
    #[error("{0}")]
    Broken(Broken),
    /// The entry starts something other than a Linux kernel.
    #[error("the entry starts no Linux kernel, but '{0}'")]
    NotLinux(String),
    /// The entry starts nothing.
    #[error("the entry starts no kernel")]
    NoKernel,
    /// An initrd comes before its kernel.
    #[error("an initrd stands before its kernel")]
    InitrdFirst,
    /// A file is not named by its path.
    #[error("{0} is not a file's path")]
    NotPath(String),
    /// GRUB's versions write the parameter in different ways.
    #[error("GRUB's versions differ in how they hand on {0} to the kernel")]
    Hexadecimal(String),
}

/// The file system that a path is on, as far as GRUB's script says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The file system of GRUB's directory.
    Grub,
    /// The one with this UUID (`search --fs-uuid`).
    Uuid(String),
    /// The one with this label (`search --label`).
    Label(String),
    /// The one that holds this file (`search --file`).
    Holds(String),
    /// A name of GRUB's own, for example `hd0,gpt2`.
    Named(String),
}

/// A file that GRUB reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The file system that it is on.
    pub device: Device,
    /// Its path there.
    pub path: String,
}

/// The kernel of an entry, and everything that it boots with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The kernel.
    pub kernel: File,
    /// The initrds, in order.
    pub initrds: Vec<File>,
    /// The command line as the kernel gets it, without GRUB's `BOOT_IMAGE=`.
    pub options: String,
    /// The device tree.
    pub devicetree: Option<File>,
    /// For btrfs: whether paths begin at the default subvolume (openSUSE's `btrfs_relative_path`) instead of
    /// the top.
    pub in_default_subvolume: bool,
}

/// An entry of the menu or of a submenu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its numbers, from the top menu down.
    pub place: Vec<usize>,
    /// The ids of the submenus and its own. If no id is written, it is the title.
    pub ids: Vec<String>,
    /// The titles of the submenus and its own.
    pub titles: Vec<String>,
    /// The condition that only GRUB can judge, if the entry depends on one.
    pub maybe: Option<Wrong>,
    /// The kernel that it boots, if any.
    pub boots: Boots,
}

/// The result of an entry's commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boots {
    /// A kernel.
    Linux(Linux),
    /// The kernel of a file in loader/entries, by its number among the files given.
    Bls(usize),
    /// Nothing that can be staged, and the reason.
    Refused(Wrong),
}

impl Entry {
    /// Returns the name by numbers, as `default` and grub-reboot take it: `1>0`.
    #[must_use]
    pub fn numbers(&self) -> String {
        self.place.iter().map(usize::to_string).collect::<Vec<_>>().join(">")
    }

    /// Returns the name by ids, as `default` and grub-reboot take it.
    #[must_use]
    pub fn id(&self) -> String {
        joined(&self.ids)
    }

    /// Returns the name by titles, as `default` and grub-reboot take it.
    #[must_use]
    pub fn title(&self) -> String {
        joined(&self.titles)
    }
}

/// Joins names. A '>' in a name is written twice (GRUB manual, "default").
pub(crate) fn joined(names: &[String]) -> String {
    names.iter().map(|name| name.replace('>', ">>")).collect::<Vec<_>>().join(">")
}

/// An entry of loader/entries as the menu shows it. A list of them is in the order in which GRUB sorts them.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The file's name without `.conf`.
    pub id: &'a str,
    /// The title.
    pub title: &'a str,
}

/// The command `blscfg`, by which the menu's entries come from loader/entries (GRUB manual, "blscfg"; Fedora's
/// grub-core/commands/blscfg.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blscfg {
    /// The file system with loader/entries, and with the files that its entries name.
    pub device: Device,
    pub(crate) variables: BTreeMap<String, Result<String, Wrong>>,
    pub(crate) at: (&'static str, usize),
}

impl Blscfg {
    /// Returns a variable as GRUB has it at that command. GRUB's `blscfg` reads `blsdir` (the directory of the
    /// entries), `default_kernelopts` (the options of an entry without any), `early_initrd` and `devicetree`.
    pub fn variable(&self, name: &str) -> Result<Option<&str>, Wrong> {
        match self.variables.get(name) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(wrong)) => Err(wrong.clone()),
        }
    }
}

/// GRUB's menu, and the settings that choose an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The command by which entries come from loader/entries, if the script runs it.
    pub blscfg: Option<Blscfg>,
    pub(crate) items: Vec<Item>,
    pub(crate) default: Option<Setting>,
    pub(crate) fallback: Option<Setting>,
    /// Whether it is Fedora's GRUB, which looks for `default` among ids and titles first.
    pub(crate) fedora: bool,
}

/// A variable's value, and the variable that it was copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) value: Result<String, Wrong>,
    pub(crate) from: Option<String>,
}

/// A place in a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) title: String,
    pub(crate) id: String,
    pub(crate) maybe: Option<Wrong>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry(Result<Linux, Wrong>),
    Submenu(Vec<Item>),
    Bls,
    /// Any number of entries, from a file that is not read.
    Unread(Wrong),
}

impl Config {
    /// Returns every entry in the menu's order, with submenus opened, and the entries of loader/entries in the
    /// place of `blscfg`. Behind an entry that depends on a condition, the numbers are the greatest that an
    /// entry can have.
    #[must_use]
    pub fn entries(&self, bls: &[Named]) -> Vec<Entry> {
        let mut entries = Vec::new();
        collect(&self.items, bls, &Entry::above(), &mut entries);
        entries
    }
}

impl Entry {
    /// Returns the parent of the top menu's entries.
    pub(crate) fn above() -> Entry {
        let wrong = Wrong { file: "grub.cfg", line: 1, why: ScriptError::NoKernel };
        let boots = Boots::Refused(wrong);
        Entry { place: Vec::new(), ids: Vec::new(), titles: Vec::new(), maybe: None, boots }
    }

    pub(crate) fn below(
        &self,
        place: usize,
        id: &str,
        title: &str,
        maybe: Option<&Wrong>,
        boots: Boots,
    ) -> Entry {
        let with =
            |names: &[String], name: &str| names.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
        Entry {
            place: self.place.iter().copied().chain([place]).collect(),
            ids: with(&self.ids, id),
            titles: with(&self.titles, title),
            maybe: self.maybe.as_ref().or(maybe).cloned(),
            boots,
        }
    }
}

pub(crate) fn collect(items: &[Item], bls: &[Named], above: &Entry, entries: &mut Vec<Entry>) {
    let mut place = 0;
    for item in items {
        let maybe = item.maybe.as_ref();
        let below = |boots| above.below(place, &item.id, &item.title, maybe, boots);
        match &item.kind {
            Kind::Entry(Ok(linux)) => entries.push(below(Boots::Linux(linux.clone()))),
            Kind::Entry(Err(wrong)) => entries.push(below(Boots::Refused(wrong.clone()))),
            Kind::Submenu(items) => collect(items, bls, &below(above.boots.clone()), entries),
            Kind::Bls => {
                for (number, named) in bls.iter().enumerate() {
                    let boots = Boots::Bls(number);
                    entries.push(above.below(place + number, named.id, named.title, maybe, boots));
                }
                place += bls.len();
                continue;
            }
            Kind::Unread(_) => continue,
        }
        place += 1;
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Grub => out.write_str("the file system of GRUB's folder"),
            Device::Uuid(uuid) => write!(out, "UUID={uuid}"),
            Device::Label(label) => write!(out, "LABEL={label}"),
            Device::Holds(path) => write!(out, "the file system that holds {path}"),
            Device::Named(name) => write!(out, "({name})"),
        }
    }
}
