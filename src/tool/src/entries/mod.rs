//! Which kernel is meant. Each way of finding one is a file here: what boot loaders read, the generations of
//! NixOS, and the plain convention of the distributions.

pub mod bls;
mod convention;
pub mod default;
pub mod entry;
pub mod extlinux;
pub mod found;
pub mod grub;
pub mod in_charge;
mod nixos;
mod of_version;
pub mod partition;
pub mod subvolume;
pub mod survey;
pub mod systemd_boot;
pub mod tries;
pub mod uki;
pub mod version;

use std::path::{Path, PathBuf};

use crate::entries::default::ByDefault;
use crate::entries::entry::{Entry, Error, Source};
use crate::entries::survey::Survey;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::request::once::Once;

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
