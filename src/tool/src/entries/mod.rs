//! Finds the kernel that is meant. Each way of finding one is a file here: the entries of boot loaders, the
//! generations of NixOS, and the distributions' plain naming convention.

pub mod bls;
mod convention;
mod default;
pub mod entry;
pub mod extlinux;
mod found;
pub mod grub;
mod in_charge;
mod nixos;
mod of_version;
mod partition;
pub mod subvolume;
pub mod survey;
pub mod systemd_boot;
pub mod tries;
pub mod uki;
pub mod version;

use std::path::{Path, PathBuf};

use crate::entries::default::ByDefault;
use crate::entries::entry::{Entry, EntryKind, Error};
use crate::entries::survey::Survey;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::request::once::Once;

/// An entry that was chosen.
#[derive(Debug)]
pub struct Choice {
    /// The chosen entry.
    pub entry: Entry,
    /// The boot loader's one-shot choice, if it names this entry.
    pub once: Option<Once>,
    /// Remarks on the choice, for the user.
    pub notes: Vec<String>,
}

/// Returns the entry called `name`, or without a name the entry that would be booted.
pub fn choose(root: &Root, conf: &Conf, name: Option<&str>) -> Result<Choice, Error> {
    let mut survey = Survey::of(root, conf);
    if let Some(name) = name {
        let named = survey.named(name)?;
        let (entry, said) = match named.kind {
            EntryKind::Convention => of_version::meant(root, &survey, named),
            _ => (named, Vec::new()),
        };
        let notes = entry.notes.iter().cloned().chain(said).collect();
        // Naming the entry of the boot loader's one-shot choice means that choice, so it is consumed.
        let is_that = |default: &ByDefault| default.entry.kind == entry.kind && default.entry.id == entry.id;
        let once = survey.default.ok().filter(is_that).and_then(|default| default.once);
        return Ok(Choice { entry, once, notes });
    }
    let default = survey.default.clone()?;
    let entry = default.entry.stageable()?;
    let mut notes = std::mem::take(&mut survey.notes);
    notes.extend(entry.notes.iter().cloned());
    if entry.kind == EntryKind::Convention {
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

/// Returns the entry that explicit files make. Of a unified kernel image the default profile is taken, and the
/// named files follow the image's own initrds.
pub fn explicit(root: &Root, kernel: &Path, initrds: &[PathBuf]) -> Result<Entry, Error> {
    let entry = Entry::new(EntryKind::Files, kernel.display().to_string(), kernel);
    let initrds = initrds.iter().map(|path| path.as_path().into());
    // A path that is not a file, or cannot be read, is reported when it is copied.
    let Some(absolute) = std::path::absolute(kernel).ok().filter(|path| uki::found::is_one(root, path))
    else {
        return Ok(Entry { initrds: initrds.collect(), ..entry });
    };
    let mut entry =
        uki::found::named(root, &absolute, 0, &uki::found::point(root, &absolute), entry).stageable()?;
    entry.initrds.extend(initrds);
    // An image without a command line does not set one, and nothing else does here.
    entry.cmdline = entry.cmdline.filter(|line| !line.is_empty());
    Ok(entry)
}

#[cfg(test)]
pub(crate) mod tests;
