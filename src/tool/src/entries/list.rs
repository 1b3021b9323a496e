//! The entries, for a person and as JSON.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use super::{Entry, Source, Survey};
use crate::conf::{self, Conf};
use crate::errno::InWords;
use crate::facts;
use crate::root::Root;

/// List the entries that can be staged
///
/// In the boot loader's order, then the kernels in /boot. The star marks what `nextkernel stage` takes without
/// ENTRY.
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Why they cannot be listed.
#[derive(Debug, Error)]
pub enum Error {
    /// They cannot be found.
    #[error(transparent)]
    Entries(#[from] super::Error),
    /// The configuration.
    #[error(transparent)]
    Conf(#[from] conf::Error),
    /// The output.
    #[error("the entries cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// Everything that is known. Field names are stable; new ones may be added.
#[derive(Debug, Serialize)]
struct List {
    /// The boot loader in charge, where it is one that is known.
    loader: Option<String>,
    /// What decided about the default.
    default_by: Option<&'static str>,
    /// Whether that counts once.
    default_once: bool,
    /// Why there is no default.
    no_default: Option<String>,
    entries: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    default: bool,
    id: String,
    title: Option<String>,
    version: Option<String>,
    source: Source,
    /// The file that describes it.
    from: Option<PathBuf>,
    kernel: PathBuf,
    initrds: Vec<PathBuf>,
    /// Its own command line; null where the running one is meant.
    options: Option<String>,
    /// Null where tries are not counted.
    tries_left: Option<u32>,
    tries_done: Option<u32>,
    /// Why it cannot be staged.
    hindrance: Option<String>,
}

/// Prints them.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    let list = List::of(Survey::of(root, &Conf::read(root)?)?);
    facts::print(&list, wish.json, || list.in_words()).map_err(Error::Output)
}

impl List {
    fn of(survey: Survey) -> List {
        let (default, no_default) = match survey.default {
            Ok(default) => (Some(default), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_default = |entry: &Entry| default.as_ref().is_some_and(|default| default.entry == *entry);
        let rows = survey.entries.into_iter().map(|entry| Row {
            default: is_default(&entry),
            id: entry.id,
            title: entry.title,
            version: entry.version,
            source: entry.source,
            from: entry.from,
            kernel: entry.kernel.path,
            initrds: entry.initrds.into_iter().map(|initrd| initrd.path).collect(),
            options: entry.cmdline,
            tries_left: entry.tries.map(|tries| tries.left),
            tries_done: entry.tries.map(|tries| tries.done),
            hindrance: entry.hindrance.map(|hindrance| hindrance.to_string()),
        });
        List {
            entries: rows.collect(),
            loader: survey.loader,
            default_by: default.as_ref().map(|default| default.why),
            default_once: default.as_ref().is_some_and(|default| default.once.is_some()),
            no_default,
            notes: survey.notes,
        }
    }

    fn in_words(&self) -> String {
        let mut words = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_words(&mut words);
        words
    }

    fn write_words(&self, out: &mut String) -> std::fmt::Result {
        for row in &self.entries {
            row.write_words(out)?;
        }
        if let Some(loader) = &self.loader {
            writeln!(out, "boot loader  {}", plain(loader))?;
        }
        match (self.default_by, &self.no_default) {
            (Some(why), _) if self.default_once => writeln!(out, "the default  {why}, which counts once")?,
            (Some(why), _) => writeln!(out, "the default  {why}")?,
            (None, Some(why)) => writeln!(out, "no default   {}", plain(why))?,
            (None, None) => {}
        }
        for note in &self.notes {
            writeln!(out, "note         {}", plain(note))?;
        }
        Ok(())
    }
}

impl Row {
    fn write_words(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{} {}", if self.default { '*' } else { ' ' }, plain(&self.id))?;
        let mut fact = |name: &str, fact: &str| writeln!(out, "    {name:<9}{}", plain(fact));
        let path = |path: &Path| path.display().to_string();
        for (name, text) in [("title", &self.title), ("version", &self.version)] {
            if let Some(text) = text.as_ref().filter(|text| **text != self.id) {
                fact(name, text)?;
            }
        }
        if let Some(from) = &self.from {
            fact("from", &path(from))?;
        }
        fact("kernel", &path(&self.kernel))?;
        for initrd in &self.initrds {
            fact("initrd", &path(initrd))?;
        }
        fact("options", self.options.as_deref().unwrap_or("those of the running kernel"))?;
        if let (Some(left), Some(done)) = (self.tries_left, self.tries_done) {
            fact("tries", &format!("{left} left, {done} done{}", if left == 0 { ": bad" } else { "" }))?;
        }
        if let Some(hindrance) = &self.hindrance {
            fact("cannot be staged:", &format!(" {hindrance}"))?;
        }
        Ok(())
    }
}

/// A text that cannot steer the terminal it is shown on: entries are files on a partition that others share.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::entries::tests::{entry, machine};

    #[test]
    fn the_default_is_marked_and_a_terminal_is_not_steered() {
        let machine = machine();
        machine.put("/efi/loader/entries/a.conf", &entry("title \u{1b}[2JA", "/k1"));
        let list = List::of(Survey::of(&machine.root, &Conf::default()).unwrap());
        let words = list.in_words();
        assert!(words.starts_with("* a.conf\n    title    \u{fffd}[2JA\n"), "{words}");
        assert!(
            words.contains("    kernel   /efi/k1\n    initrd   /efi/i1\n    initrd   /efi/i2\n"),
            "{words}"
        );
        assert!(words.contains("    options  root=a quiet\n"), "{words}");
        assert!(words.ends_with("the default  the first in systemd-boot's order\n"), "{words}");
    }

    #[test]
    fn the_field_names_of_the_json_are_stable() {
        let machine = machine();
        machine.put("/efi/loader/entries/a+2-1.conf", &entry("", "/k1"));
        let list = List::of(Survey::of(&machine.root, &Conf::default()).unwrap());
        let json = serde_json::to_value(list).unwrap();
        let names = |value: &serde_json::Value| {
            let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
            names.join(" ")
        };
        assert_eq!(names(&json), "default_by default_once entries loader no_default notes");
        let row = &json["entries"][0];
        assert_eq!(
            names(row),
            "default from hindrance id initrds kernel options source title tries_done tries_left version"
        );
        assert_eq!(
            (&row["source"], &row["default"], &row["tries_left"]),
            (&"bls".into(), &true.into(), &2.into())
        );
    }
}
