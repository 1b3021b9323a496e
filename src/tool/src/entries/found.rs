//! Entries found on a partition, in systemd-boot's order.

use std::cmp::{Ordering, Reverse};
use std::path::Path;
use std::{fs, io};

use crate::entries::entry::{Entry, Error};
use crate::entries::version;
use crate::machine::root::Root;

/// An entry, with the properties by which it is sorted and chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    /// Its file's name, with the counters.
    pub file: String,
    /// Whether the boot loader would offer it: it is for this machine, and its kernel exists.
    pub offered: bool,
    /// Whether it is for another machine, so that it is not shown ("Boot Loader Entries").
    pub foreign: bool,
    /// For a profile of an image other than the first, the image's own name.
    pub base: Option<String>,
    /// The number of the profile; an image boots number 0 by default.
    pub number: usize,
    /// Whether too little is known about it to tell its position in the order.
    pub unsure: bool,
    /// The key by which it is sorted first.
    pub sort_key: Option<String>,
    /// The installation's machine id.
    pub machine_id: Option<String>,
}

impl Found {
    /// Returns the boot loader's name for the entry, in lower case. `with_counters` says whether the counters
    /// are part of that name.
    #[must_use]
    pub fn id(&self, with_counters: bool) -> String {
        // Every version that knows profiles leaves the counters out of the names of an image's other profiles.
        let counted = with_counters && self.base.is_none();
        if counted { &self.file } else { &self.entry.id }.to_ascii_lowercase()
    }

    pub(crate) fn id_without_profile(&self, with_counters: bool) -> String {
        self.base.as_ref().map_or_else(|| self.id(with_counters), |base| base.to_ascii_lowercase())
    }

    /// Returns whether all of its attempts are used up.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.entry.tries.is_some_and(|tries| tries.left == 0)
    }

    /// Compares in the order of a boot menu ("Sorting"), as systemd-boot implements it: a file's name is
    /// compared with its ending, so that `arch.conf` comes before `arch-fallback.conf`.
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
        // An entry without counters comes first, so that this is a total order.
        let tries = |found: &Found| found.entry.tries.map(|tries| (Reverse(tries.left), tries.done));
        self.is_bad()
            .cmp(&other.is_bad())
            .then(keys)
            .then_with(ids)
            .then_with(|| tries(self).cmp(&tries(other)))
    }
}

/// Returns the names of the files in a directory that have an ending, sorted. Names that begin with `auto-` are
/// left out, because systemd-boot reserves them for entries that it finds itself.
pub fn names(
    root: &Root,
    directory: &Path,
    ending: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let files = match fs::read_dir(root.path(directory)) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::unreadable(directory, &error)),
    };
    let mut names = Vec::new();
    for file in files {
        let file = file.map_err(|error| Error::unreadable(directory, &error))?;
        let Ok(name) = file.file_name().into_string() else { continue };
        let lower = name.to_ascii_lowercase();
        let hidden = lower.starts_with('.') || lower.starts_with("auto-") || !lower.ends_with(ending);
        if hidden || !file.path().is_file() {
            continue;
        }
        // "The file names should have a length of at least one and at most 255 characters".
        if name.len() > 255 || name.contains(char::is_control) {
            notes.push(format!(
                "{:?} in {} is no name of an entry, and passed over",
                name,
                directory.display()
            ));
            continue;
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}
