//! Entries that lie on a partition, in the order of systemd-boot.

use std::cmp::{Ordering, Reverse};
use std::path::Path;
use std::{fs, io};

use crate::entries::entry::{Entry, Error};
use crate::entries::version;
use crate::machine::root::Root;

/// An entry, with what it is sorted and chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// It.
    pub entry: Entry,
    /// Its file's name, with the counters.
    pub file: String,
    /// Whether the boot loader would offer it: it is for this machine, and its kernel is there.
    pub offered: bool,
    /// Whether it is for another machine, and so not to be shown ("Boot Loader Entries").
    pub foreign: bool,
    /// Of another profile of an image than the first, the image's own name.
    pub base: Option<String>,
    /// The number of the profile: 0 is what an image boots by default.
    pub number: usize,
    /// Whether too little of it is known to tell where it stands in the order.
    pub unsure: bool,
    /// What it is sorted by first.
    pub sort_key: Option<String>,
    /// The installation's identity.
    pub machine_id: Option<String>,
}

impl Found {
    /// What the boot loader calls it, which says whether counters belong to that. Its names are in lower case.
    #[must_use]
    pub fn id(&self, with_counters: bool) -> String {
        // The counters of an image's other profiles are left out by every version that knows profiles.
        let counted = with_counters && self.base.is_none();
        if counted { &self.file } else { &self.entry.id }.to_ascii_lowercase()
    }

    pub(crate) fn id_without_profile(&self, with_counters: bool) -> String {
        self.base.as_ref().map_or_else(|| self.id(with_counters), |base| base.to_ascii_lowercase())
    }

    /// Whether it was tried as often as it may.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.entry.tries.is_some_and(|tries| tries.left == 0)
    }

    /// The order of a boot menu ("Sorting"), as systemd-boot has it: its file's name counts with the ending,
    /// so that `arch.conf` comes before `arch-fallback.conf`.
    #[must_use]
    pub fn compare(&self, other: &Found, with_counters: bool) -> Ordering {
        let by_keys = |a: &str, b: &str| {
            let version = |found: &Found| found.entry.version.clone().unwrap_or_default();
            let machines = self
                .machine_id
                .as_deref()
                .unwrap_or_default()
                .cmp(other.machine_id.as_deref().unwrap_or_default());
            let versions = || version::compare(&version(other), &version(self));
            a.cmp(b).then(machines).then_with(versions).then(self.number.cmp(&other.number))
        };
        let keys = match (&self.sort_key, &other.sort_key) {
            (Some(a), Some(b)) => by_keys(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        let id = |found: &Found| found.id_without_profile(with_counters);
        let profiles = match (&self.base, &other.base) {
            (None, None) => Ordering::Equal,
            _ => self.number.cmp(&other.number),
        };
        let ids = || version::compare(&id(other), &id(self)).then(profiles);
        // One that is not counted comes first, so that this is an order of all, whatever there is.
        let tries = |found: &Found| found.entry.tries.map(|tries| (Reverse(tries.left), tries.done));
        self.is_bad()
            .cmp(&other.is_bad())
            .then(keys)
            .then_with(ids)
            .then_with(|| tries(self).cmp(&tries(other)))
    }
}

/// The names of the files in a folder that have an ending, sorted. systemd-boot keeps `auto-` for what it
/// finds itself.
pub fn names(
    root: &Root,
    folder: &Path,
    ending: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let files = match fs::read_dir(root.path(folder)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::unreadable(folder, &error)),
    };
    let mut names = Vec::new();
    for file in files {
        let file = file.map_err(|error| Error::unreadable(folder, &error))?;
        let Ok(name) = file.file_name().into_string() else { continue };
        let lower = name.to_ascii_lowercase();
        let hidden = lower.starts_with('.') || lower.starts_with("auto-") || !lower.ends_with(ending);
        if hidden || !file.path().is_file() {
            continue;
        }
        // "The file names should have a length of at least one and at most 255 characters".
        if name.len() > 255 || name.contains(char::is_control) {
            notes.push(format!("{:?} in {} is no name of an entry, and passed over", name, folder.display()));
            continue;
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}
