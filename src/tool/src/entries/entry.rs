//! A boot entry, and the reasons why none is chosen.

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::entries::tries::Tries;
use crate::image::piece::Piece;
use crate::machine::root::Root;
use crate::machine::{attach, efi};

/// A kernel, what belongs to it, and what a person calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of entry it is.
    pub source: Source,
    /// What it is called: the name of its file without counters, its id in a menu, a version, or the kernel's path.
    pub id: String,
    /// What else it is called.
    pub also: Vec<String>,
    /// What a boot menu shows.
    pub title: Option<String>,
    /// The kernel's version, as the entry has it.
    pub version: Option<String>,
    /// The kernel.
    pub kernel: Piece,
    /// The initrds, in order.
    pub initrds: Vec<Piece>,
    /// Its own command line; none where the running one is meant.
    pub cmdline: Option<String>,
    /// The file that describes it.
    pub from: Option<PathBuf>,
    /// How often it was tried, where that is counted.
    pub tries: Option<Tries>,
    /// Whether its files are seen by this process alone, which has mounted what they lie on.
    pub aside: bool,
    /// What a person should know who stages it.
    pub notes: Vec<String>,
    /// Why it cannot be staged.
    pub hindrance: Option<Error>,
}

/// Where entries come from. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Boot Loader Specification, type 1.
    Bls,
    /// Boot Loader Specification, type 2.
    Uki,
    /// GRUB's menu.
    Grub,
    /// extlinux.conf or syslinux.cfg.
    Extlinux,
    /// A generation of NixOS.
    Nixos,
    /// `/boot/vmlinuz-VERSION`.
    Convention,
    /// Files that were named.
    Files,
}

impl Entry {
    /// One of which no more is known.
    #[must_use]
    pub fn new(source: Source, id: String, kernel: impl Into<Piece>) -> Entry {
        Entry {
            source,
            id,
            also: Vec::new(),
            title: None,
            version: None,
            kernel: kernel.into(),
            initrds: Vec::new(),
            cmdline: None,
            from: None,
            tries: None,
            aside: false,
            notes: Vec::new(),
            hindrance: None,
        }
    }

    pub(crate) fn is_first_profile_of(&self, others: &[&Entry]) -> bool {
        let is_other = |other: &&Entry| other.id.contains('@') && other.from == self.from;
        self.source == Source::Uki && !self.id.contains('@') && others.iter().all(is_other)
    }

    /// A name that fits no other.
    pub(crate) fn in_full(&self) -> String {
        match (&self.from, self.source) {
            (Some(from), Source::Bls) => from.display().to_string(),
            // An image's file is its first profile.
            (Some(from), Source::Uki) if !self.id.contains('@') => from.display().to_string(),
            (_, Source::Grub) => self.also.first().unwrap_or(&self.id).clone(),
            _ => self.id.clone(),
        }
    }

    /// It, or why it cannot be staged.
    pub fn stageable(self) -> Result<Entry, Error> {
        match self.hindrance {
            Some(hindrance) => Err(hindrance),
            None => Ok(self),
        }
    }
}

/// Why no entry was chosen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// There is none.
    #[error("no kernel is found as /vmlinuz or /boot/vmlinuz-VERSION; name one with --kernel and --initrd")]
    None,
    /// There are several, and nothing tells which is meant.
    #[error("several kernels are installed, and nothing tells which is meant: name one of {}", .0.join(", "))]
    Several(Vec<String>),
    /// None is called that.
    #[error("no entry and no kernel is called '{name}': there {}{}", are(.others), by_file(.name))]
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
    /// It fits several entries.
    #[error("'{name}' fits several entries: name one of {}", .fit.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their files, or their ids in one menu.
        fit: Vec<String>,
    },
    /// Its kernel is not there.
    #[error("{} names the kernel {}, which is not there; install it again, or remove the entry", .from.display(), .kernel.display())]
    NoKernel {
        /// The entry's file.
        from: PathBuf,
        /// The kernel.
        kernel: PathBuf,
    },
    /// A path leaves the partition.
    #[error("{} names {path:?}, and the files of an entry lie on its own partition, below its root; correct the entry", .from.display())]
    Outside {
        /// The entry's file.
        from: PathBuf,
        /// The path.
        path: String,
    },
    /// It is for another machine.
    #[error("{} is for {wants}, and this machine is {is}; name another entry", .from.display())]
    Foreign {
        /// The entry's file.
        from: PathBuf,
        /// What it is for.
        wants: String,
        /// What this is.
        is: &'static str,
    },
    /// Something in it is not understood yet.
    #[error(
        "{} {what}, which nextkernel cannot stage yet; name another entry, or the files with --kernel, --initrd \
         and --cmdline",
        .from.display()
    )]
    Unsupported {
        /// The entry's file.
        from: PathBuf,
        /// What it has.
        what: String,
    },
    /// A file or folder of entries cannot be read.
    #[error("{} cannot be read: {why}; without it nobody can tell which entries there are", .path.display())]
    Unreadable {
        /// It.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What the boot loader was told cannot be read.
    #[error(transparent)]
    Efi(#[from] efi::Error),
    /// The boot loader's partition is not mounted.
    #[error(
        "systemd-boot started this machine, and its partition {0} is not mounted at {points}; mount it, or name a \
         kernel",
        points = attach::POINTS.join(", ")
    )]
    EspNotMounted(String),
    /// What its files lie on cannot be looked at.
    #[error("{0}; mount it, or name an entry that lies elsewhere")]
    Attach(attach::Error),
    /// There are entries, and no boot loader that reads them.
    #[error(
        "{0} is a boot entry, and no boot loader is known here that reads it; name an entry, or say `boot-loader =` in \
         /etc/nextkernel.conf"
    )]
    Unread(String),
    /// A boot loader whose choice nobody knows here.
    #[error(
        "{0:?} started this machine, and what it would boot next is not known here; name an entry, or say \
         `boot-loader =` in /etc/nextkernel.conf"
    )]
    OtherLoader(String),
    /// Its menu is nowhere.
    #[error(
        "{0} started this machine, and its menu is not found below /boot; is that mounted? Or name an entry"
    )]
    NoMenu(&'static str),
    /// Two boot loaders could be in charge.
    #[error(
        "{} are here, and nothing tells which of them starts this machine; say `boot-loader =` in \
         /etc/nextkernel.conf if they are of two boot loaders, take one away if they are of one, or name a kernel",
        paths(.0)
    )]
    SeveralMenus(Vec<PathBuf>),
    /// The firmware's variables cannot be seen.
    #[error(
        "systemd-boot is installed, and what it was told cannot be seen without the firmware's variables; mount them \
         (mount -t efivarfs efivarfs /sys/firmware/efi/efivars), or name an entry"
    )]
    NoVariables,
    /// It lies in another snapshot than the boot loader reads.
    #[error(
        "{} is in the subvolume {current}, which runs now, and the next restart takes the default one, {default}, with a menu of \
         its own: `nextkernel reboot --full` goes there; or name the files with --kernel, --initrd and --cmdline",
        .path.display()
    )]
    OtherSnapshot {
        /// Its menu, or where its kernels are.
        path: PathBuf,
        /// The subvolume that runs.
        current: u64,
        /// The default one.
        default: u64,
    },
    /// A menu, or a line of it, that cannot be read.
    #[error("{}: {why}; name another entry, or the files with --kernel, --initrd and --cmdline", .path.display())]
    Menu {
        /// The menu's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A menu that does not tell which entry is next.
    #[error("{}: {why}", .path.display())]
    Undecided {
        /// The menu's file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file of an entry that cannot be seen.
    #[error("{} names {path}: {why}; mount it, or name another entry", .from.display())]
    Unseen {
        /// The menu's file.
        from: PathBuf,
        /// The entry's file.
        path: String,
        /// Why.
        why: String,
    },
    /// The boot loader would start something else.
    #[error("systemd-boot would start {pattern:?} ({told}), which is no Linux; name an entry")]
    NoLinux {
        /// Who says so.
        told: &'static str,
        /// What.
        pattern: String,
    },
    /// The boot loader has none.
    #[error(
        "systemd-boot started this machine, and no entry of it has a kernel; name one with --kernel and --initrd"
    )]
    NoEntry,
    /// A unified kernel image that cannot be staged.
    #[error("{}: {why}; name another entry, or the files with --kernel, --initrd and --cmdline", .path.display())]
    Image {
        /// It.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

fn are(names: &[String]) -> String {
    if names.is_empty() { "is none".to_owned() } else { format!("are {}", names.join(", ")) }
}

/// Whoever gives a path means what takes one.
fn by_file(name: &str) -> &'static str {
    if name.starts_with('/') { "; `nextkernel stage --kernel` takes a file" } else { "" }
}

fn paths(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(", ")
}

/// What is to be said of an entry's device tree: kexec hands on the running one
/// (`arch/arm64/kernel/machine_kexec_file.c`), and where there is none, nobody would have one.
pub(crate) fn devicetree(root: &Root, from: &Path, tree: &str) -> Result<String, Error> {
    if root.path("/sys/firmware/devicetree/base").is_dir() {
        return Ok(format!(
            "warning: {} names the device tree {tree}, and the next kernel gets the running one's instead",
            from.display()
        ));
    }
    Err(Error::Unsupported { from: from.to_path_buf(), what: format!("has a device tree ({tree})") })
}
