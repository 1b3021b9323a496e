//! The entries command: prints the entries as text or as JSON.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use crate::entries::entry::{Entry, EntryKind};
use crate::entries::survey::Survey;
use crate::machine::root::Root;
use crate::request::conf::{self, Conf};
use crate::words::errno::InWords;
use crate::words::say;

/// List the entries that can be staged, or show one whole
///
/// In the boot loader's order, then the kernels in /boot. The star marks what `nextkernel stage` takes without
/// ENTRY.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Show this one alone, with its files and its command line
    entry: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// A line for each that can be staged: what it is called, a tab, its title. A shell's completion asks so
    #[arg(long, conflicts_with_all = ["entry", "json"])]
    names: bool,
}

/// A reason why the entries cannot be listed.
#[derive(Debug, Error)]
pub enum Error {
    /// The named entry cannot be found.
    #[error(transparent)]
    Entries(#[from] crate::entries::entry::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Conf(#[from] conf::Error),
    /// Standard output cannot be written.
    #[error("the entries cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// All entries, and the default. The field names are stable in the JSON, and new ones may be added.
#[derive(Debug, Serialize)]
struct List {
    /// The boot loader in charge, if it is known.
    loader: Option<String>,
    /// The reason for the default.
    default_by: Option<&'static str>,
    /// Whether the default counts only once.
    default_once: bool,
    /// The reason why there is no default.
    no_default: Option<String>,
    entries: Vec<Row>,
    notes: Vec<String>,
}

/// An entry.
#[derive(Debug, Serialize)]
struct Row {
    default: bool,
    id: String,
    /// Other names of the entry.
    also: Vec<String>,
    title: Option<String>,
    version: Option<String>,
    source: EntryKind,
    /// The file that describes the entry.
    from: Option<PathBuf>,
    /// The path of the kernel. For a section of a unified kernel image, the section's name follows. None if the
    /// entry names no kernel.
    kernel: Option<String>,
    initrds: Vec<String>,
    /// The entry's command line. None if the command line of the running kernel applies.
    options: Option<String>,
    /// The boot counter. None if tries are not counted.
    tries_left: Option<u32>,
    tries_done: Option<u32>,
    /// Notes about the entry.
    notes: Vec<String>,
    /// The reason why the entry cannot be staged.
    hindrance: Option<String>,
}

/// Prints all entries, one entry, or the names.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    let survey = Survey::of(root, &Conf::read(root)?);
    if let Some(name) = &arguments.entry {
        let entry = survey.find(name)?.clone();
        let is_default = survey.default.is_ok_and(|default| default.entry == entry);
        let row = Row::of(entry, is_default);
        return say::print(&row, arguments.json, || in_words(|out| row.write_whole(out)))
            .map_err(Error::Output);
    }
    if arguments.names {
        return say::print(&(), false, || names(&survey)).map_err(Error::Output);
    }
    let list = List::of(survey);
    say::print(&list, arguments.json, || in_words(|out| list.write_words(out))).map_err(Error::Output)
}

/// Returns a line for each entry that can be staged: the shortest name that is unique, a tab, and the title.
fn names(survey: &Survey) -> String {
    let line = |entry: &Entry| {
        let [short, title, _] = Row::of(entry.clone(), false).cells();
        let means = |name: &String| survey.find(name).is_ok_and(|found| found == entry);
        let name = [short, entry.in_full()].into_iter().find(means)?;
        Some(format!("{name}\t{title}\n"))
    };
    survey.entries.iter().filter(|entry| entry.reason.is_none()).filter_map(line).collect()
}

/// Returns the text that `write` writes.
fn in_words(write: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut words = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut words);
    words
}

impl List {
    fn of(survey: Survey) -> List {
        let (default, no_default) = match survey.default {
            Ok(default) => (Some(default), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let is_default = |entry: &Entry| default.as_ref().is_some_and(|default| default.entry == *entry);
        let rows = survey.entries.into_iter().map(|entry| {
            let is_default = is_default(&entry);
            Row::of(entry, is_default)
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

    /// Writes a table, and below it the entries that cannot be staged, with the reasons.
    fn write_words(&self, out: &mut String) -> std::fmt::Result {
        let cells: Vec<_> = self.entries.iter().map(Row::cells).collect();
        let wide = |column: usize, least: usize| {
            let widths = cells.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count());
            widths.max().unwrap_or(0).max(least)
        };
        let (entry, title) = (wide(0, "ENTRY".len()), wide(1, "TITLE".len()));
        if !cells.is_empty() {
            writeln!(out, "  {:<entry$}  {:<title$}  FROM", "ENTRY", "TITLE")?;
        }
        for (row, [name, shown, from]) in self.entries.iter().zip(&cells) {
            let star = if row.default { '*' } else { ' ' };
            writeln!(out, "{star} {name:<entry$}  {shown:<title$}  {from}")?;
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
        for (row, [name, ..]) in self.entries.iter().zip(&cells) {
            if let Some(hindrance) = &row.hindrance {
                writeln!(out, "cannot be staged: {name}: {}", plain(hindrance))?;
            }
        }
        for note in &self.notes {
            writeln!(out, "note         {}", plain(note))?;
        }
        Ok(())
    }
}

impl Row {
    fn of(entry: Entry, default: bool) -> Row {
        let is_named = !entry.kernel.path.as_os_str().is_empty();
        Row {
            default,
            kernel: is_named.then(|| entry.kernel.to_string()),
            initrds: entry.initrds.iter().map(ToString::to_string).collect(),
            id: entry.id,
            also: entry.aliases,
            title: entry.title,
            version: entry.version,
            source: entry.kind,
            from: entry.from,
            options: entry.cmdline,
            tries_left: entry.tries.map(|tries| tries.left),
            tries_done: entry.tries.map(|tries| tries.done),
            notes: entry.notes,
            hindrance: entry.reason.map(|hindrance| hindrance.to_string()),
        }
    }

    /// Returns the cells of the table: name, title and origin. For GRUB the name is the entry's number, because
    /// GRUB's ids are longer than a line.
    fn cells(&self) -> [String; 3] {
        let short = if self.source == EntryKind::Grub { self.also.first() } else { None };
        let title = match (&self.title, &self.version) {
            (Some(title), Some(version)) if !title.contains(version.as_str()) => {
                format!("{title}, {version}")
            }
            (Some(title), _) => title.clone(),
            (None, version) => version.clone().unwrap_or_default(),
        };
        let from = self.from.as_ref().map(|from| from.display().to_string());
        let from = from.or_else(|| self.kernel.clone()).unwrap_or_default();
        let tries = match (self.tries_left, self.tries_done) {
            (Some(0), Some(done)) => format!(" (bad: {done} tries)"),
            (Some(left), Some(done)) => format!(" (tries: {left} left, {done} done)"),
            _ => String::new(),
        };
        [plain(short.unwrap_or(&self.id)), plain(&title), plain(&from) + &tries]
    }

    /// Writes the entry with its files and its command line.
    fn write_whole(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{} {}", if self.default { '*' } else { ' ' }, plain(&self.id))?;
        let mut fact = |name: &str, fact: &str| writeln!(out, "    {name:<9}{}", plain(fact));
        for (name, text) in [("title", &self.title), ("version", &self.version)] {
            if let Some(text) = text.as_ref().filter(|text| **text != self.id) {
                fact(name, text)?;
            }
        }
        for also in &self.also {
            fact("also", also)?;
        }
        if let Some(from) = &self.from {
            fact("from", &from.display().to_string())?;
        }
        if let Some(kernel) = &self.kernel {
            fact("kernel", kernel)?;
        }
        for initrd in &self.initrds {
            fact("initrd", initrd)?;
        }
        // The command line of an entry that cannot be staged is unknown.
        let running = self.hindrance.is_none().then_some("those of the running kernel");
        if let Some(options) = self.options.as_deref().or(running) {
            fact("options", options)?;
        }
        if let (Some(left), Some(done)) = (self.tries_left, self.tries_done) {
            fact("tries", &format!("{left} left, {done} done{}", if left == 0 { ": bad" } else { "" }))?;
        }
        for note in &self.notes {
            fact("note", note)?;
        }
        match &self.hindrance {
            Some(hindrance) => fact("cannot be staged:", &format!(" {hindrance}")),
            None => Ok(()),
        }
    }
}

/// Replaces control characters, which could steer the terminal. Entries are files on a partition that other
/// systems share.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::entries::tests::{entry, machine};

    fn list(machine: &crate::machine::scratch::Scratch) -> List {
        List::of(Survey::of(&machine.root, &Conf::default()))
    }

    #[test]
    fn the_default_is_marked_and_a_terminal_is_not_steered() {
        let machine = machine();
        machine.put("/efi/loader/entries/a.conf", &entry("title \u{1b}[2JA\nversion 6.1", "/k1"));
        machine.put("/efi/loader/entries/longer+0-3.conf", "linux /gone\n");
        let words = in_words(|out| list(&machine).write_words(out));
        let expected = "  ENTRY        TITLE       FROM\n\
                        * a.conf       \u{fffd}[2JA, 6.1  /efi/loader/entries/a.conf\n";
        assert!(words.starts_with(expected), "{words}");
        assert!(words.contains("longer.conf") && words.contains("(bad: 3 tries)"), "{words}");
        assert!(words.contains("\nthe default  the first in systemd-boot's order\n"), "{words}");
        assert!(words.ends_with("install it again, or remove the entry\n"), "{words}");
    }

    #[test]
    fn the_names_are_of_what_can_be_staged_and_stage_takes_them() {
        let machine = machine();
        machine.put("/efi/loader/entries/a.conf", &entry("title A\tB\nversion 6.1", "/k1"));
        machine.put("/efi/loader/entries/gone.conf", "linux /gone\n");
        machine.put("/boot/vmlinuz-6.12", "");
        machine.put("/boot/initrd.img-6.12", "");
        // An entry hides this kernel.
        machine.put("/boot/vmlinuz-a", "");
        machine.put("/boot/initrd.img-a", "");
        let survey = Survey::of(&machine.root, &Conf::default());
        let names = names(&survey);
        assert_eq!(names, "a.conf\tA\u{fffd}B, 6.1\n6.12\t6.12\n");
        for name in names.lines().filter_map(|line| line.split('\t').next()) {
            assert!(survey.named(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn one_entry_is_shown_whole() {
        let machine = machine();
        machine.put("/efi/loader/entries/a.conf", &entry("title A", "/k1"));
        let survey = Survey::of(&machine.root, &Conf::default());
        let row = Row::of(survey.find("a").unwrap().clone(), true);
        let words = in_words(|out| row.write_whole(out));
        let files =
            "    kernel   /efi/k1\n    initrd   /efi/i1\n    initrd   /efi/i2\n    options  root=a quiet\n";
        assert!(words.starts_with("* a.conf\n    title    A\n") && words.ends_with(files), "{words}");
    }

    #[test]
    fn the_field_names_of_the_json_are_stable() {
        let machine = machine();
        machine.put("/efi/loader/entries/a+2-1.conf", &entry("", "/k1"));
        let json = serde_json::to_value(list(&machine)).unwrap();
        let names = |value: &serde_json::Value| {
            let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
            names.join(" ")
        };
        assert_eq!(names(&json), "default_by default_once entries loader no_default notes");
        let row = &json["entries"][0];
        assert_eq!(
            names(row),
            "also default from hindrance id initrds kernel notes options source title tries_done tries_left version"
        );
        assert_eq!(
            (&row["source"], &row["default"], &row["tries_left"]),
            (&"bls".into(), &true.into(), &2.into())
        );
    }
}
