//! The data types of GRUB's menu.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::entries::grub::environment::Broken;
use crate::words::quoted::quoted;

/// More bytes than this are no configuration.
pub(crate) const SIZE_MAX: usize = 4 << 20;

/// How many characters of what somebody wrote an error shows.
pub(crate) const SHOWN_MAX: usize = 60;

/// GRUB's folder: /boot/grub, or /boot/grub2.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folder<'a> {
    /// grub.cfg
    pub config: &'a [u8],
    /// grubenv, where it is there.
    pub environment: Option<&'a [u8]>,
    /// custom.cfg, where it is there (`41_custom`).
    pub custom: Option<&'a [u8]>,
    /// user.cfg, where it is there (Fedora's `01_users`).
    pub user: Option<&'a [u8]>,
    /// `efi` or `pc`, as the variable `grub_platform` will say, where that is known.
    pub platform: Option<&'a str>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{file}, line {line}: {why}")]
pub struct Wrong {
    /// The file's name in GRUB's folder.
    pub file: &'static str,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Why {
    /// Bytes that are no text.
    #[error("it is not plain text")]
    NotText,
    /// No configuration at all.
    #[error("the file is larger than {SIZE_MAX} bytes")]
    TooLarge,
    /// Something that never ends.
    #[error("{0} is never closed")]
    Unclosed(&'static str),
    /// Something where it cannot stand.
    #[error("{0} cannot stand there")]
    Unexpected(String),
    /// A construct that grub-mkconfig does not write.
    #[error("'{0}' is not understood; grub-mkconfig writes none")]
    Construct(&'static str),
    /// Blocks in blocks in blocks.
    #[error("blocks lie too deep in each other")]
    TooDeep,
    /// A script that does too much.
    #[error("the script does more than a menu can need")]
    TooMuch,
    /// A command that nobody knows, or not there.
    #[error("the command {0} is not understood there; grub-mkconfig writes none")]
    Command(String),
    /// Arguments that the command does not take.
    #[error("the arguments of '{0}' are not understood")]
    Arguments(&'static str),
    /// A value that only GRUB knows.
    #[error("only GRUB can tell the value of ${0}")]
    Variable(String),
    /// A condition that only GRUB can judge.
    #[error("only GRUB can judge this condition")]
    Condition,
    /// Another file.
    #[error("what {0} adds to the menu is not read")]
    Unread(String),
    /// A folder's own grub.cfg that only leads to the real one.
    #[error("it leads on to {0}; read that one")]
    LeadsTo(String),
    /// An environment that is not in a file.
    #[error("the environment is read from {0}, which is not the grubenv beside grub.cfg")]
    Environment(String),
    /// grubenv is none.
    #[error("{0}")]
    Broken(Broken),
    /// GRUB would boot something, but no Linux kernel.
    #[error("the entry starts no Linux kernel, but '{0}'")]
    NotLinux(String),
    /// GRUB would boot nothing.
    #[error("the entry starts no kernel")]
    NoKernel,
    /// An initrd of nothing.
    #[error("an initrd stands before its kernel")]
    InitrdFirst,
    /// A file that is not named by its path.
    #[error("{0} is not a file's path")]
    NotPath(String),
    /// A parameter that GRUB's versions write differently.
    #[error("GRUB's versions differ in how they hand on {0} to the kernel")]
    Hexadecimal(String),
}

/// The file system that a path is on, as far as GRUB's own words tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    /// The one that GRUB's folder is on.
    Grub,
    /// The one with this UUID (`search --fs-uuid`).
    Uuid(String),
    /// The one with this label (`search --label`).
    Label(String),
    /// The one that holds this file (`search --file`).
    Holds(String),
    /// In GRUB's own words, as `hd0,gpt2`.
    Named(String),
}

/// A file that GRUB reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub device: Device,
    /// Its path there.
    pub path: String,
}

/// What an entry boots.
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
    /// Of btrfs, whether paths begin at the default subvolume (openSUSE's `btrfs_relative_path`), not at
    /// the top.
    pub in_default_subvolume: bool,
}

/// An entry of the menu or of a submenu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its numbers, from the top menu down.
    pub place: Vec<usize>,
    /// The ids of the submenus and its own. Where none is written it is the title.
    pub ids: Vec<String>,
    /// The titles of the submenus and its own.
    pub titles: Vec<String>,
    /// The condition that only GRUB can judge, if the entry hangs on one.
    pub maybe: Option<Wrong>,
    /// What it boots.
    pub boots: Boots,
}

/// What an entry boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boots {
    /// A kernel.
    Linux(Linux),
    /// What the file in loader/entries says: the number among those that were given.
    Bls(usize),
    /// Nothing that could be staged, and why.
    Refused(Wrong),
}

impl Entry {
    /// As `default` and grub-reboot take it, by numbers: `1>0`.
    #[must_use]
    pub fn numbers(&self) -> String {
        self.place.iter().map(usize::to_string).collect::<Vec<_>>().join(">")
    }

    /// As `default` and grub-reboot take it, by ids.
    #[must_use]
    pub fn id(&self) -> String {
        joined(&self.ids)
    }

    /// As `default` and grub-reboot take it, by titles.
    #[must_use]
    pub fn title(&self) -> String {
        joined(&self.titles)
    }
}

/// A '>' in a name is written twice (GRUB manual, "default").
pub(crate) fn joined(names: &[String]) -> String {
    names.iter().map(|name| name.replace('>', ">>")).collect::<Vec<_>>().join(">")
}

/// An entry of loader/entries as the menu shows it, in the order in which GRUB sorts them.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The file's name without `.conf`.
    pub id: &'a str,
    /// The title.
    pub title: &'a str,
}

/// `blscfg`: the menu's entries come from loader/entries (GRUB manual, "blscfg"; Fedora's grub-core/commands/blscfg.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blscfg {
    /// Where loader/entries and the files that its entries name are.
    pub device: Device,
    pub(crate) variables: BTreeMap<String, Result<String, Wrong>>,
    pub(crate) at: (&'static str, usize),
}

impl Blscfg {
    /// A variable as GRUB has it there. Its `blscfg` reads `blsdir` (where the entries are), `default_kernelopts`
    /// (the options of an entry without any), `early_initrd` and `devicetree`.
    pub fn variable(&self, name: &str) -> Result<Option<&str>, Wrong> {
        match self.variables.get(name) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(wrong)) => Err(wrong.clone()),
        }
    }
}

/// What GRUB's menu is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether entries come from loader/entries.
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
    /// Every entry in the menu's order, submenus opened, with those of loader/entries where `blscfg` stands. The
    /// numbers of what follows an entry that is there under a condition are the greatest it can have.
    #[must_use]
    pub fn entries(&self, bls: &[Named]) -> Vec<Entry> {
        let mut entries = Vec::new();
        collect(&self.items, bls, &Entry::above(), &mut entries);
        entries
    }
}

impl Entry {
    /// Above the top menu.
    pub(crate) fn above() -> Entry {
        let wrong = Wrong { file: "grub.cfg", line: 1, why: Why::NoKernel };
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

pub(crate) fn shown(text: &str) -> String {
    quoted(text, SHOWN_MAX)
}
