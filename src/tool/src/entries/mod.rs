//! Which kernel is meant. Each way of finding one is a file here: boot loader entries, and the plain
//! convention of the distributions.

pub mod bls;
mod convention;
pub mod extlinux;
pub mod grub;
pub mod list;
pub mod partition;
pub mod systemd_boot;
pub mod version;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::efi;
use crate::images::Piece;
use crate::root::Root;
use bls::Tries;
use partition::Kind;
use systemd_boot::{Conf, Loader};

/// A kernel, what belongs to it, and what a person calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of entry it is.
    pub source: Source,
    /// What it is called: the name of its file without counters, a version, or the kernel's path.
    pub id: String,
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
            title: None,
            version: None,
            kernel: kernel.into(),
            initrds: Vec::new(),
            cmdline: None,
            from: None,
            tries: None,
            hindrance: None,
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
    #[error("no entry and no kernel is called '{name}': there {}", are(.others))]
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
    #[error("'{name}' fits several entries: name one of {}", paths(.fit))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their files.
        fit: Vec<PathBuf>,
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
        points = partition::POINTS.join(", ")
    )]
    EspNotMounted(String),
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
    /// Which comes first cannot be told yet.
    #[error(
        "systemd-boot boots the first entry in its order, and where {} stands in it cannot be told yet; name an entry",
        .0.display()
    )]
    Unsure(PathBuf),
}

fn are(names: &[String]) -> String {
    if names.is_empty() { "is none".to_owned() } else { format!("are {}", names.join(", ")) }
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
    /// Whether that counts once.
    pub once: bool,
}

impl Survey {
    /// Finds them.
    pub fn of(root: &Root) -> Result<Survey, Error> {
        let loader = Loader::find(root)?;
        let (partitions, mut notes) = partition::find(root);
        let (mut found, mut images) = (Vec::new(), Vec::new());
        for partition in &partitions {
            // systemd-boot looks at no other partitions than these two.
            let is_its = partition.kind != Kind::Other;
            if loader.is_none() || is_its {
                found.extend(bls::read(root, partition, &mut notes)?);
                images.extend(bls::images(root, partition, &mut notes)?);
            }
        }
        let with_counters = loader.as_ref().is_some_and(|loader| loader.with_counters);
        // Of what is the same that of the ESP stays first, as systemd-boot has it.
        found.sort_by(|a, b| a.compare(b, with_counters));
        let installed = convention::all(root);
        let default = if let Some(loader) = &loader {
            loader.esp(&partitions).and_then(|esp| Conf::read(root, esp)).and_then(|conf| {
                let chosen = loader.choose(&conf, &found, &images, &mut notes)?;
                Ok(ByDefault { entry: chosen.entry.clone(), why: chosen.why, once: chosen.once })
            })
        } else {
            let why = "by the distribution's convention";
            convention::default(root, &installed).map(|entry| ByDefault {
                entry: entry.clone(),
                why,
                once: false,
            })
        };
        let (foreign, shown): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.foreign);
        let shown = shown.into_iter().map(|found| found.entry);
        Ok(Survey {
            loader: loader.map(|loader| loader.info),
            entries: shown.chain(images).chain(installed).collect(),
            foreign: foreign.into_iter().map(|found| found.entry).collect(),
            default,
            notes,
        })
    }

    /// The entry that a name means: the path or the name of its file, with or without ending and counters,
    /// or else the version of a kernel by convention.
    pub fn named(&self, name: &str) -> Result<Entry, Error> {
        let all = || self.entries.iter().chain(&self.foreign);
        let stem = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let stem = [".conf", ".efi"].iter().find_map(|ending| lower.strip_suffix(ending));
            stem.unwrap_or(&lower).to_owned()
        };
        let file =
            |entry: &Entry| entry.from.as_ref().and_then(|from| Some(from.file_name()?.to_str()?.to_owned()));
        let asked = stem(name);
        let (bare, _) = Tries::parse(&asked);
        let is_version = |entry: &Entry| entry.source == Source::Convention;
        // The closer a name fits, the earlier.
        let ways: [&dyn Fn(&Entry) -> bool; 6] = [
            &|entry| entry.from.as_deref() == Some(Path::new(name)),
            &|entry| file(entry).is_some_and(|file| file.eq_ignore_ascii_case(name)),
            &|entry| !is_version(entry) && entry.id.eq_ignore_ascii_case(name),
            &|entry| file(entry).is_some_and(|file| stem(&file) == asked),
            &|entry| !is_version(entry) && stem(&entry.id) == bare,
            &|entry| is_version(entry) && entry.id == name,
        ];
        for way in ways {
            let fit: Vec<_> = all().filter(|entry| way(entry)).collect();
            match fit.as_slice() {
                [] => {}
                [one] => return (*one).clone().stageable(),
                several => {
                    let fit = several.iter().map(|entry| entry.from.clone().unwrap_or_default()).collect();
                    return Err(Error::Ambiguous { name: name.to_owned(), fit });
                }
            }
        }
        let others = self.entries.iter().map(|entry| entry.id.clone()).collect();
        Err(Error::Unknown { name: name.to_owned(), others })
    }
}

/// The entry of that name, or the one that would be booted, and what is to be said of the choice.
pub fn choose(root: &Root, name: Option<&str>) -> Result<(Entry, Vec<String>), Error> {
    let survey = Survey::of(root)?;
    if let Some(name) = name {
        return Ok((survey.named(name)?, Vec::new()));
    }
    let (default, mut notes) = (survey.default?, survey.notes);
    let entry = default.entry.stageable()?;
    if survey.loader.is_some() {
        notes.push(format!("{} is what systemd-boot would boot: {}", entry.id, default.why));
    }
    if default.once {
        notes.push(
            "warning: that counts once, and this handoff does not use it up: the next restart through firmware \
             boots it again"
                .to_owned(),
        );
    }
    Ok((entry, notes))
}

/// The entry that explicit files make.
#[must_use]
pub fn explicit(kernel: &Path, initrds: &[PathBuf]) -> Entry {
    let entry = Entry::new(Source::Files, kernel.display().to_string(), kernel);
    Entry { initrds: initrds.iter().map(|path| path.as_path().into()).collect(), ..entry }
}

#[cfg(test)]
mod tests;
