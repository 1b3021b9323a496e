//! Which kernel is meant. Each way of finding one is a file here: what boot loaders read, the generations of
//! NixOS, and the plain convention of the distributions.

pub mod bls;
mod convention;
pub mod extlinux;
pub mod grub;
pub mod in_charge;
mod nixos;
mod of_version;
pub mod partition;
pub mod subvolume;
pub mod systemd_boot;
pub mod uki;
pub mod version;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::commands::consume::Once;
use crate::image::cmdline;
use crate::machine::attach::{self, Attached};
use crate::machine::efi;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::staging::images::Piece;
use crate::words::errno::InWords;
use bls::{Found, Tries};
use in_charge::InCharge;
use systemd_boot::Loader;

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

    fn is_first_profile_of(&self, others: &[&Entry]) -> bool {
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

/// All entries there are, and the one that would be booted.
#[derive(Debug)]
pub struct Survey {
    /// The boot loader in charge, where it is one that is known.
    pub loader: Option<String>,
    /// The entries: the boot loader's in its order, then kernels by convention.
    pub entries: Vec<Entry>,
    /// Those for other machines, which are not shown.
    foreign: Vec<Entry>,
    /// The one that would be booted.
    pub default: Result<ByDefault, Error>,
    /// What is to be said of them.
    pub notes: Vec<String>,
}

/// The entry that would be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByDefault {
    /// It.
    pub entry: Entry,
    /// What decided.
    pub why: &'static str,
    /// Whether that counts once, and who keeps it.
    pub once: Option<Once>,
}

impl ByDefault {
    fn always(entry: &Entry, why: &'static str) -> ByDefault {
        ByDefault { entry: entry.clone(), why, once: None }
    }

    /// Whether its command line says which subvolume the root is in.
    fn names_its_root(&self, root: &Root) -> bool {
        let running = || cmdline::running(root).unwrap_or_default();
        subvolume::is_named(&self.entry.cmdline.clone().unwrap_or_else(running))
    }
}

/// What a boot loader in charge says.
struct Told {
    loader: Option<String>,
    entries: Vec<Entry>,
    default: Result<ByDefault, Error>,
    /// Whether its menu holds the entries of loader/entries, too.
    has_bls: bool,
}

/// Why what a menu says is not what the next restart leads to, unless the entry itself names the root's subvolume. Who may not
/// ask is told nothing of it: a look at the entries is nobody's harm, and staging is root's.
fn other_snapshot(
    root: &Root,
    in_charge: &Result<InCharge, Error>,
    notes: &mut Vec<String>,
) -> Option<Error> {
    let path = match in_charge {
        Ok(InCharge::SystemdBoot) | Err(_) => return None,
        Ok(InCharge::Grub(menu) | InCharge::Extlinux(menu)) => menu.as_path(),
        Ok(InCharge::Nobody) => Path::new("/boot"),
    };
    let asked = subvolume::other_than_default(root, path);
    if let Some(error) = asked.as_ref().err().filter(|_| nix::unistd::geteuid().is_root()) {
        let why = InWords(error);
        notes.push(format!("warning: whether / is in btrfs's default subvolume cannot be told: {why}"));
    }
    let (current, default) = asked.ok()??;
    Some(Error::OtherSnapshot { path: path.to_path_buf(), current, default })
}

impl Survey {
    /// Finds them. What they lie on and nobody has mounted is mounted for this process.
    #[must_use]
    pub fn of(root: &Root, conf: &Conf) -> Survey {
        let (mut attached, mut notes) = (Attached::new(root), Vec::new());
        // Why nobody can tell what is next, whatever the boot loader says.
        let mut blind: Option<Error> = None;
        let loader = Loader::find(root).unwrap_or_else(|error| {
            blind = Some(error.into());
            None
        });
        attached.of_fstab();
        let extended = loader.as_ref().map_or(Ok(()), |loader| loader.attach(root, &mut attached));
        let in_charge = in_charge::find(root, conf.boot_loader);
        let by_systemd_boot = in_charge == Ok(InCharge::SystemdBoot);
        let hidden = attached.hidden.clone().map(Error::Attach);
        blind = blind.or(if by_systemd_boot { extended.err().map(Error::Attach) } else { hidden.clone() });
        let partitions = partition::find(root, &mut notes);
        let mut found = Vec::new();
        for partition in &partitions {
            let is_its = |loader: &Loader| loader.reads(root, &partitions, partition);
            if by_systemd_boot && !loader.as_ref().is_none_or(is_its) {
                continue;
            }
            let with_profiles = loader.as_ref().is_none_or(|loader| loader.with_profiles);
            let images = |notes: &mut Vec<String>| uki::found::read(root, partition, with_profiles, notes);
            for read in [bls::read(root, partition, by_systemd_boot, &mut notes), images(&mut notes)] {
                match read {
                    Ok(read) => found.extend(read),
                    Err(error) if by_systemd_boot => blind = blind.or(Some(error)),
                    Err(error) => notes.push(error.to_string()),
                }
            }
        }
        let with_counters = loader.as_ref().is_some_and(|loader| loader.with_counters);
        // Of what is the same that of the ESP stays first, as systemd-boot has it.
        found.sort_by(|a, b| a.compare(b, with_counters));
        let generations = nixos::all(root);
        let mut installed = convention::all(root);
        if hidden.is_some() {
            // They lie below what is to be mounted there.
            for entry in &mut installed {
                entry.hindrance.clone_from(&hidden);
            }
        }
        let other = other_snapshot(root, &in_charge, &mut notes);
        let told = match in_charge {
            Ok(InCharge::SystemdBoot) => {
                let default = loader.as_ref().ok_or(Error::NoVariables).and_then(|loader| {
                    let conf = systemd_boot::Conf::read(root, loader.esp(&partitions)?)?;
                    loader.choose(&conf, &found, &mut notes)
                });
                Told {
                    loader: loader.map(|loader| loader.info),
                    entries: Vec::new(),
                    default,
                    has_bls: false,
                }
            }
            Ok(InCharge::Grub(menu)) => grub(root, &mut attached, &menu),
            Ok(InCharge::Extlinux(menu)) => extlinux(root, &mut attached, &menu),
            Ok(InCharge::Nobody) => {
                notes.extend(in_charge::others(root).iter().map(|path| {
                    let path = path.display();
                    format!(
                        "warning: {path} is a boot loader's, and what that would boot is not read from it"
                    )
                }));
                let unread = found.iter().find(|found| found.offered && conf.boot_loader.is_none());
                let default = match (unread, nixos::default(root, &generations)) {
                    (Some(unread), _) => Err(Error::Unread(unread.entry.in_full())),
                    (None, Some(system)) => Ok(ByDefault::always(system, "the system profile of NixOS")),
                    (None, None) => convention::default(root, &installed)
                        .map(|entry| ByDefault::always(entry, "by the distribution's convention")),
                };
                Told { loader: None, entries: Vec::new(), default, has_bls: false }
            }
            Err(error) => Told { loader: None, entries: Vec::new(), default: Err(error), has_bls: false },
        };
        if told.has_bls {
            found.retain(|found| found.entry.source != Source::Bls);
        }
        notes.append(&mut attached.notes);
        let marked = |entry: Entry| Entry { aside: attached.covers(&entry.kernel.path), ..entry };
        let default = match (blind.map_or(told.default, Err), other) {
            (Ok(default), Some(other)) if !default.names_its_root(root) => Err(other),
            (default, _) => default,
        };
        let default = default.map(|default| ByDefault { entry: marked(default.entry), ..default });
        let (foreign, shown): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.foreign);
        let shown = shown.into_iter().map(|found| found.entry);
        let entries = told.entries.into_iter().chain(shown).chain(generations).chain(installed);
        Survey {
            loader: told.loader,
            entries: entries.map(marked).collect(),
            foreign: foreign.into_iter().map(|found: Found| marked(found.entry)).collect(),
            default,
            notes,
        }
    }

    /// The entry that a name means: the path or the name of its file, with or without ending and counters,
    /// or else the version of a kernel by convention.
    pub fn named(&self, name: &str) -> Result<Entry, Error> {
        self.find(name)?.clone().stageable()
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Entry, Error> {
        let all = || self.entries.iter().chain(&self.foreign);
        let stem = |name: &str| bls::stem(&name.to_ascii_lowercase()).to_owned();
        let file =
            |entry: &Entry| entry.from.as_ref().and_then(|from| Some(from.file_name()?.to_str()?.to_owned()));
        let asked = stem(name);
        let (bare, _) = Tries::parse(&asked);
        let is_version = |entry: &Entry| entry.source == Source::Convention;
        // The closer a name fits, the earlier.
        let ways: [&dyn Fn(&Entry) -> bool; 8] = [
            &|entry| entry.from.as_deref() == Some(Path::new(name)),
            &|entry| file(entry).is_some_and(|file| file.eq_ignore_ascii_case(name)),
            &|entry| !is_version(entry) && entry.id == name,
            &|entry| !is_version(entry) && entry.id.eq_ignore_ascii_case(name),
            &|entry| file(entry).is_some_and(|file| stem(&file) == asked),
            &|entry| !is_version(entry) && stem(&entry.id) == bare,
            &|entry| !is_version(entry) && entry.also.iter().any(|also| also == name),
            &|entry| is_version(entry) && entry.id == name,
        ];
        for way in ways {
            let fit: Vec<_> = all().filter(|entry| way(entry)).collect();
            match fit.as_slice() {
                [] => {}
                [one] => return Ok(one),
                // A file's name means an image's first profile.
                [first, others @ ..] if first.is_first_profile_of(others) => return Ok(first),
                several => {
                    let fit = several.iter().map(|entry| entry.in_full()).collect();
                    return Err(Error::Ambiguous { name: name.to_owned(), fit });
                }
            }
        }
        let others = self.entries.iter().map(|entry| entry.id.clone()).collect();
        Err(Error::Unknown { name: name.to_owned(), others })
    }
}

/// GRUB's menu, and what it boots next.
fn grub(root: &Root, attached: &mut Attached, config: &Path) -> Told {
    let loader = Some(format!("GRUB, with {}", config.display()));
    let menu = match grub::found::Menu::read(root, attached, config) {
        Ok(menu) => menu,
        Err(error) => return Told { loader, entries: Vec::new(), default: Err(error), has_bls: false },
    };
    let default = menu.next().map(|(entry, why, once)| ByDefault {
        entry: entry.clone(),
        why,
        once: once.then(|| Once::Grub(menu.one_shot.clone().unwrap_or_default())),
    });
    let entries = menu.entries.into_iter().map(|(_, entry)| entry).collect();
    Told { loader, entries, default, has_bls: menu.has_bls }
}

/// The menu of U-Boot or syslinux, and what they boot next.
fn extlinux(root: &Root, attached: &mut Attached, config: &Path) -> Told {
    let loader = Some(format!("U-Boot or syslinux, with {}", config.display()));
    match extlinux::found::Menu::read(root, attached, config) {
        Ok(menu) => {
            let default = menu.next().map(|(entry, why)| ByDefault::always(entry, why));
            Told { loader, entries: menu.entries, default, has_bls: false }
        }
        Err(error) => Told { loader, entries: Vec::new(), default: Err(error), has_bls: false },
    }
}

/// What is to be said of an entry's device tree: kexec hands on the running one
/// (`arch/arm64/kernel/machine_kexec_file.c`), and where there is none, nobody would have one.
fn devicetree(root: &Root, from: &Path, tree: &str) -> Result<String, Error> {
    if root.path("/sys/firmware/devicetree/base").is_dir() {
        return Ok(format!(
            "warning: {} names the device tree {tree}, and the next kernel gets the running one's instead",
            from.display()
        ));
    }
    Err(Error::Unsupported { from: from.to_path_buf(), what: format!("has a device tree ({tree})") })
}

/// An entry that was chosen.
#[derive(Debug)]
pub struct Choice {
    /// It.
    pub entry: Entry,
    /// The one-shot entry that it is, where nobody named it.
    pub once: Option<Once>,
    /// What is to be said of the choice.
    pub notes: Vec<String>,
}

/// The entry of that name, or the one that would be booted.
pub fn choose(root: &Root, conf: &Conf, name: Option<&str>) -> Result<Choice, Error> {
    let mut survey = Survey::of(root, conf);
    if let Some(name) = name {
        let named = survey.named(name)?;
        let (entry, said) = match named.source {
            Source::Convention => of_version::meant(root, &survey, named),
            _ => (named, Vec::new()),
        };
        let notes = entry.notes.iter().cloned().chain(said).collect();
        // Whoever names what the boot loader is to start once means that, and it is used up.
        let is_that =
            |default: &ByDefault| default.entry.source == entry.source && default.entry.id == entry.id;
        let once = survey.default.ok().filter(is_that).and_then(|default| default.once);
        return Ok(Choice { entry, once, notes });
    }
    let default = survey.default.clone()?;
    let entry = default.entry.stageable()?;
    let mut notes = std::mem::take(&mut survey.notes);
    notes.extend(entry.notes.iter().cloned());
    if entry.source == Source::Convention {
        notes.extend(of_version::strays(root, &survey));
    }
    if let Some(loader) = &survey.loader {
        notes.push(format!("{} is what {loader} would boot: {}", entry.id, default.why));
    }
    if default.once.is_some() {
        notes.push(
            "that counts once: the kernel that is started from it uses it up (nextkernel-arrived.service)"
                .to_owned(),
        );
    }
    Ok(Choice { entry, once: default.once, notes })
}

/// The entry that explicit files make. Of a unified kernel image it is the default profile; the files that are
/// named then stand behind its own initrds.
pub fn explicit(root: &Root, kernel: &Path, initrds: &[PathBuf]) -> Result<Entry, Error> {
    let entry = Entry::new(Source::Files, kernel.display().to_string(), kernel);
    let initrds = initrds.iter().map(|path| path.as_path().into());
    // What is no file, or cannot be read, is told where it is copied.
    let Some(absolute) = std::path::absolute(kernel).ok().filter(|path| uki::found::is_one(root, path))
    else {
        return Ok(Entry { initrds: initrds.collect(), ..entry });
    };
    let mut entry =
        uki::found::named(root, &absolute, 0, &uki::found::point(root, &absolute), entry).stageable()?;
    entry.initrds.extend(initrds);
    // One without a line of its own says nothing, and nobody else does.
    entry.cmdline = entry.cmdline.filter(|line| !line.is_empty());
    Ok(entry)
}

#[cfg(test)]
pub(crate) mod tests;
