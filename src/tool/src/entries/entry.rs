//! A boot entry, and the reasons why none can be chosen.

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::entries::tries::Tries;
use crate::image::piece::Piece;
use crate::machine::root::Root;
use crate::machine::{attach, efi};

/// A kernel with its initrds and command line, and the names that people use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kind of the entry.
    pub kind: EntryKind,
    /// Its name: the name of its file without counters, its id in a menu, a version, or the kernel's path.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// The title in a boot menu.
    pub title: Option<String>,
    /// The kernel's version, as the entry states it.
    pub version: Option<String>,
    /// The kernel.
    pub kernel: Piece,
    /// The initrds, in order.
    pub initrds: Vec<Piece>,
    /// Its own command line; `None` means the running one.
    pub cmdline: Option<String>,
    /// The file that describes it.
    pub from: Option<PathBuf>,
    /// Its boot counters, if it has any.
    pub tries: Option<Tries>,
    /// Whether only this process sees its files, because it has mounted their file system.
    pub aside: bool,
    /// Remarks for the user who stages it.
    pub notes: Vec<String>,
    /// The reason why it cannot be staged.
    pub reason: Option<Error>,
}

/// The kind of an entry: the loader, system or convention that it is made for. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A Boot Loader Specification Type #1 entry.
    Bls,
    /// A Boot Loader Specification Type #2 entry.
    Uki,
    /// An entry of GRUB's menu.
    Grub,
    /// A label in extlinux.conf or syslinux.cfg.
    Extlinux,
    /// A generation of NixOS.
    Nixos,
    /// A kernel found as `/boot/vmlinuz-VERSION`.
    Convention,
    /// Files that were named explicitly, instead of an entry.
    Files,
}

impl Entry {
    /// Returns an entry with nothing but a kind, an id and a kernel.
    #[must_use]
    pub fn new(kind: EntryKind, id: String, kernel: impl Into<Piece>) -> Entry {
        Entry {
            kind,
            id,
            aliases: Vec::new(),
            title: None,
            version: None,
            kernel: kernel.into(),
            initrds: Vec::new(),
            cmdline: None,
            from: None,
            tries: None,
            aside: false,
            notes: Vec::new(),
            reason: None,
        }
    }

    /// Returns an entry of a menu that names no kernel which can be staged, with the reason.
    pub(crate) fn refused(kind: EntryKind, id: String, reason: Error) -> Entry {
        Entry { reason: Some(reason), ..Entry::new(kind, id, Path::new("")) }
    }

    pub(crate) fn is_first_profile_of(&self, others: &[&Entry]) -> bool {
        let is_other = |other: &&Entry| other.id.contains('@') && other.from == self.from;
        self.kind == EntryKind::Uki && !self.id.contains('@') && others.iter().all(is_other)
    }

    /// Returns a name that fits no other entry.
    pub(crate) fn in_full(&self) -> String {
        match (&self.from, self.kind) {
            (Some(from), EntryKind::Bls) => from.display().to_string(),
            // The file of an image also names its first profile.
            (Some(from), EntryKind::Uki) if !self.id.contains('@') => from.display().to_string(),
            (_, EntryKind::Grub) => self.aliases.first().unwrap_or(&self.id).clone(),
            _ => self.id.clone(),
        }
    }

    /// Returns the entry, or the reason why it cannot be staged.
    pub fn stageable(self) -> Result<Entry, Error> {
        match self.reason {
            Some(reason) => Err(reason),
            None => Ok(self),
        }
    }
}

/// The reason why no entry was chosen.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// There is no kernel.
    #[error("no kernel is found as /vmlinuz or /boot/vmlinuz-VERSION; name one with --kernel and --initrd")]
    None,
    /// There are several kernels, and nothing says which one is meant.
    #[error("several kernels are installed, and nothing tells which is meant: name one of {}", .0.join(", "))]
    Several(Vec<String>),
    /// No entry has that name.
    #[error("no entry and no kernel is called '{name}': there {}{}", are(.others), by_file(.name))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names that exist.
        others: Vec<String>,
    },
    /// The kernel has no initrd by the convention.
    #[error(
        "{} has no initrd beside it ({}); name one with --kernel and --initrd, or give --kernel alone \
         if it needs none",
        .kernel.display(), .looked.join(", ")
    )]
    NoInitrd {
        /// The kernel.
        kernel: PathBuf,
        /// The paths where an initrd was looked for.
        looked: Vec<String>,
    },
    /// The kernel has several initrds, and nothing says which one is meant.
    #[error("{} has several initrds beside it: choose with --kernel and --initrd from {}", .kernel.display(), .initrds.join(", "))]
    SeveralInitrds {
        /// The kernel.
        kernel: PathBuf,
        /// The initrds.
        initrds: Vec<String>,
    },
    /// The name fits several entries.
    #[error("'{name}' fits several entries: name one of {}", .fit.join(", "))]
    Ambiguous {
        /// The name asked for.
        name: String,
        /// The files of those entries, or their ids in one menu.
        fit: Vec<String>,
    },
    /// The entry's kernel does not exist.
    #[error("{} names the kernel {}, which is not there; install it again, or remove the entry", .from.display(), .kernel.display())]
    NoKernel {
        /// The entry's file.
        from: PathBuf,
        /// The kernel.
        kernel: PathBuf,
    },
    /// A path leaves the entry's partition.
    #[error("{} names {path:?}, and the files of an entry lie on its own partition, below its root; correct the entry", .from.display())]
    Outside {
        /// The entry's file.
        from: PathBuf,
        /// The path.
        path: String,
    },
    /// The entry is for another architecture.
    #[error("{} is for {wants}, and this machine is {is}; name another entry", .from.display())]
    Foreign {
        /// The entry's file.
        from: PathBuf,
        /// The architecture that the entry names.
        wants: String,
        /// This machine's architecture.
        is: &'static str,
    },
    /// The entry has a feature that cannot be staged yet.
    #[error(
        "{} {what}, which nextkernel cannot stage yet; name another entry, or the files with --kernel, --initrd \
         and --cmdline",
        .from.display()
    )]
    Unsupported {
        /// The entry's file.
        from: PathBuf,
        /// The feature, as a phrase that follows the file's name.
        what: String,
    },
    /// A file or directory of entries cannot be read.
    #[error("{} cannot be read: {why}; without it nobody can tell which entries there are", .path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The boot loader's settings in the firmware's variables cannot be read.
    #[error(transparent)]
    Efi(#[from] efi::Error),
    /// The boot loader's partition is not mounted.
    #[error(
        "systemd-boot started this machine, and its partition {0} is not mounted at {points}; mount it, or name a \
         kernel",
        points = attach::POINTS.join(", ")
    )]
    EspNotMounted(String),
    /// The file system that the entry's files are on cannot be looked at.
    #[error("{0}; mount it, or name an entry that lies elsewhere")]
    Attach(attach::Error),
    /// There are entries, but no known boot loader that reads them.
    #[error(
        "{0} is a boot entry, and no boot loader is known here that reads it; name an entry, or say `boot-loader =` in \
         /etc/nextkernel.conf"
    )]
    Unread(String),
    /// The boot loader's choice is not known to nextkernel.
    #[error(
        "{0:?} started this machine, and what it would boot next is not known here; name an entry, or say \
         `boot-loader =` in /etc/nextkernel.conf"
    )]
    OtherLoader(String),
    /// The boot loader's menu was not found.
    #[error(
        "{0} started this machine, and its menu is not found below /boot; is that mounted? Or name an entry"
    )]
    NoMenu(&'static str),
    /// Several menus were found, of two boot loaders or of one.
    #[error(
        "{} are here, and nothing tells which of them starts this machine; say `boot-loader =` in \
         /etc/nextkernel.conf if they are of two boot loaders, take one away if they are of one, or name a kernel",
        paths(.0)
    )]
    SeveralMenus(Vec<PathBuf>),
    /// The firmware's variables are not visible.
    #[error(
        "systemd-boot is installed, and what it was told cannot be seen without the firmware's variables; mount them \
         (mount -t efivarfs efivarfs /sys/firmware/efi/efivars), or name an entry"
    )]
    NoVariables,
    /// The file is in another btrfs subvolume than the one the boot loader reads.
    #[error(
        "{} is in the subvolume {current}, which runs now, and the next restart takes the default one, {default}, with a menu of \
         its own: `nextkernel reboot --full` goes there; or name the files with --kernel, --initrd and --cmdline",
        .path.display()
    )]
    OtherSnapshot {
        /// The menu, or the directory of the kernels.
        path: PathBuf,
        /// The running subvolume.
        current: u64,
        /// The default subvolume.
        default: u64,
    },
    /// A menu, or a line of it, cannot be read.
    #[error("{}: {why}; name another entry, or the files with --kernel, --initrd and --cmdline", .path.display())]
    Menu {
        /// The menu's file.
        path: PathBuf,
        /// The problem.
        why: String,
    },
    /// A menu does not decide which entry is next.
    #[error("{}: {why}", .path.display())]
    Undecided {
        /// The menu's file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A file of an entry cannot be seen.
    #[error("{} names {path}: {why}; mount it, or name another entry", .from.display())]
    Unseen {
        /// The menu's file.
        from: PathBuf,
        /// The entry's file.
        path: String,
        /// The reason.
        why: String,
    },
    /// The boot loader would start something other than Linux.
    #[error("systemd-boot would start {pattern:?} ({told}), which is no Linux; name an entry")]
    NoLinux {
        /// The setting that says so.
        told: &'static str,
        /// The pattern in that setting.
        pattern: String,
    },
    /// The boot loader has no entry with a kernel.
    #[error(
        "systemd-boot started this machine, and no entry of it has a kernel; name one with --kernel and --initrd"
    )]
    NoEntry,
    /// A unified kernel image cannot be staged.
    #[error("{}: {why}; name another entry, or the files with --kernel, --initrd and --cmdline", .path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

/// Returns the reason not to stage a kernel that `from` names, if there is no such file.
pub(crate) fn missing(root: &Root, from: &Path, kernel: &Path) -> Option<Error> {
    let is_there = root.path(kernel).is_file();
    (!is_there).then(|| Error::NoKernel { from: from.to_path_buf(), kernel: kernel.to_path_buf() })
}

fn are(names: &[String]) -> String {
    if names.is_empty() { "is none".to_owned() } else { format!("are {}", names.join(", ")) }
}

/// Returns a hint for a name that is a path: another option takes files.
fn by_file(name: &str) -> &'static str {
    if name.starts_with('/') { "; `nextkernel stage --kernel` takes a file" } else { "" }
}

fn paths(paths: &[PathBuf]) -> String {
    let paths = paths.iter().map(|path| path.display().to_string());
    paths.collect::<Vec<_>>().join(", ")
}

/// Returns the note about an entry's device tree: kexec passes on the running one
/// (`arch/arm64/kernel/machine_kexec_file.c`). If none is running, the next kernel would have none, and the
/// entry is refused.
pub(crate) fn devicetree(root: &Root, from: &Path, tree: &str) -> Result<String, Error> {
    if root.path("/sys/firmware/devicetree/base").is_dir() {
        return Ok(format!(
            "warning: {} names the device tree {tree}, and the next kernel gets the running one's instead",
            from.display()
        ));
    }
    Err(Error::Unsupported { from: from.to_path_buf(), what: format!("has a device tree ({tree})") })
}
