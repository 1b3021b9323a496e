//! The next kernel's command line: the entry's own, the running kernel's or a given one, with what the request and
//! the configuration remove and add.

use std::path::PathBuf;

use thiserror::Error;

use crate::entries::entry::Entry;
use crate::freeing::gpus::Gpu;
use crate::image::cmdline::{self, Line};
use crate::machine::efi;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::request::once::Once;
use crate::request::stage::{LineFrom, StageRequest, Target};
use crate::words::quoted::quoted;

/// Maximum number of characters of user input that a note shows.
const SHOWN_MAX: usize = 40;

/// The reason why there is no command line.
#[derive(Debug, Error)]
pub enum Error {
    /// Explicit files were given without a command line.
    #[error("{} says nothing about its command line; add --reuse-cmdline, or --cmdline TEXT", .0.display())]
    NotGiven(PathBuf),
    /// The command line is invalid or unknown.
    #[error(transparent)]
    Invalid(#[from] cmdline::Error),
}

/// The reasons to add to a command line, besides the request and the configuration.
#[derive(Clone, Copy, Default)]
pub struct Additions<'a> {
    /// A GPU whose driver leaves a stale framebuffer.
    pub stale: Option<&'a Gpu>,
    /// The one-shot entry that the image is.
    pub once: Option<&'a Once>,
}

/// Returns the command line, with notes about it.
pub fn resolve(
    root: &Root,
    request: &StageRequest,
    conf: &Conf,
    entry: &Entry,
    Additions { stale, once }: Additions<'_>,
) -> Result<(Line, Vec<String>), Error> {
    let base = base(root, request, conf, entry)?;
    let (base, mut notes) = reduced(base, &request.remove);
    let line = Line::joined(&base, &request.append)?;
    let mut line = with_panic(line.as_str(), request, conf);
    if let Some(Gpu { module, .. }) = stale.filter(|_| !cmdline::is_without_sysfb(&line)) {
        let add = cmdline::NO_SYSFB;
        // A command line that the user gave is left unchanged.
        if let LineFrom::Given(_) = request.line {
            notes.push(format!(
                "warning: the framebuffer that {module} leaves is stale, and the next kernel may draw over its own \
                 memory there; add {add} to --cmdline"
            ));
        } else {
            line = cmdline::without_sysfb(&line);
            notes
                .push(format!("{add} is on the command line: the framebuffer that {module} leaves is stale"));
        }
    }
    if conf.acpi_rsdp && cmdline::value(&line, "acpi_rsdp").is_none() {
        match efi::acpi_root(root) {
            Some(address) => line = cmdline::with(&line, &format!("acpi_rsdp={address}")),
            None => notes.push(
                "acpi-rsdp: this machine's firmware tells no address (/sys/firmware/efi/systab); nothing is added".into(),
            ),
        }
    }
    if let Some(once) = once {
        line = cmdline::with(&line, &once.parameter());
    }
    Ok((Line::new(&line)?, notes))
}

/// Returns the line to begin with.
fn base(root: &Root, request: &StageRequest, conf: &Conf, entry: &Entry) -> Result<String, Error> {
    let line = match (&request.line, &entry.cmdline, &request.target) {
        (LineFrom::Given(line), ..) | (LineFrom::Entry, Some(line), _) => return Ok(line.clone()),
        (LineFrom::Entry, None, Target::Files { kernel, .. }) => return Err(Error::NotGiven(kernel.clone())),
        _ => cmdline::reused(root)?,
    };
    // The running kernel's parameter may come from the configuration at the time when that kernel was staged.
    Ok(if conf.panic.is_some() { cmdline::without(&line, "panic") } else { line })
}

/// Removes the named parameters. Returns a note for each that is not there.
fn reduced(mut line: String, remove: &[String]) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    for named in remove {
        match cmdline::removed(&line, named) {
            Some(fewer) => line = fewer,
            None => notes.push(format!("--remove: {} is not on the command line", quoted(named, SHOWN_MAX))),
        }
    }
    (line, notes)
}

/// Returns a line with the seconds after which the next kernel restarts when it panics, if they were asked for.
fn with_panic(line: &str, request: &StageRequest, conf: &Conf) -> String {
    let by_default = conf.panic.filter(|_| cmdline::value(line, "panic").is_none());
    match request.panic.or(by_default) {
        Some(seconds) => cmdline::with(&cmdline::without(line, "panic"), &format!("panic={seconds}")),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entries;
    use crate::freeing::gpus::{self, Said};
    use crate::machine::scratch::Scratch;

    const NO_SYSFB: &str = "initcall_blacklist=sysfb_init";

    /// Returns the command line and the notes of a machine that was started with `running`, with i915 or
    /// without.
    fn staged(
        running: &str,
        request: &StageRequest,
        panic: Option<u16>,
        i915: bool,
    ) -> (String, Vec<String>) {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", running);
        if i915 {
            gpus::tests::add(&scratch, "i915", "0000:00:02.0", "live");
        }
        let conf = Conf { panic, ..Conf::default() };
        let gpus = gpus::find(&scratch.root, Said::Conf(&conf));
        let entry = entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap();
        let stale = gpus::stale_framebuffer(&gpus);
        resolved(&scratch, request, &conf, &entry, Additions { stale, once: None })
    }

    fn resolved(
        scratch: &Scratch,
        request: &StageRequest,
        conf: &Conf,
        entry: &Entry,
        additions: Additions<'_>,
    ) -> (String, Vec<String>) {
        let (line, notes) = resolve(&scratch.root, request, conf, entry, additions).unwrap();
        (line.as_str().to_owned(), notes)
    }

    fn line(running: &str, request: &StageRequest, panic: Option<u16>) -> String {
        staged(running, request, panic, false).0
    }

    #[test]
    fn an_entrys_own_line_is_taken_and_can_be_added_to_or_overridden() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "root=running panic=1");
        let entry = |own: &str| Entry {
            cmdline: Some(own.to_owned()),
            ..entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap()
        };
        let conf = Conf { panic: Some(30), ..Conf::default() };
        let line = |request: &StageRequest, own| {
            resolved(&scratch, request, &conf, &entry(own), Additions::default()).0
        };
        let append =
            |append: &str| StageRequest { append: vec![append.to_owned()], ..StageRequest::default() };
        assert_eq!(line(&StageRequest::default(), "root=own"), "root=own panic=30");
        assert_eq!(line(&StageRequest::default(), "root=own panic=5"), "root=own panic=5");
        assert_eq!(line(&StageRequest::default(), ""), "panic=30");
        assert_eq!(line(&append("quiet"), "root=own"), "root=own quiet panic=30");
        let reuse = StageRequest { line: LineFrom::Running, ..append("quiet") };
        assert_eq!(line(&reuse, "root=own"), "root=running quiet panic=30");
        let given =
            StageRequest { line: LineFrom::Given("root=given".to_owned()), ..StageRequest::default() };
        assert_eq!(line(&given, "root=own"), "root=given panic=30");
    }

    #[test]
    fn what_was_said_last_about_a_panic_counts() {
        let (reuse, given) = (StageRequest::default(), |line: &str| StageRequest {
            line: LineFrom::Given(line.to_owned()),
            ..StageRequest::default()
        });
        assert_eq!(line("root=x panic=1", &reuse, None), "root=x panic=1");
        assert_eq!(line("root=x panic=1 quiet", &reuse, Some(30)), "root=x quiet panic=30");
        let append = StageRequest { append: vec!["panic=5".to_owned()], ..StageRequest::default() };
        assert_eq!(line("root=x panic=1", &append, Some(30)), "root=x panic=5");
        assert_eq!(line("", &given("root=x panic=5"), Some(30)), "root=x panic=5");
        assert_eq!(line("", &given("root=x"), Some(30)), "root=x panic=30");
        let sixty = StageRequest { panic: Some(60), ..append };
        assert_eq!(line("root=x panic=1", &sixty, Some(30)), "root=x panic=60");
        assert_eq!(line("root=x -- single", &reuse, Some(30)), "root=x panic=30 -- single");
    }

    #[test]
    fn the_next_kernel_is_kept_from_a_stale_framebuffer_where_the_line_is_ours() {
        let (line, notes) = staged("root=x", &StageRequest::default(), None, true);
        assert_eq!(line, format!("root=x {NO_SYSFB}"));
        assert!(matches!(notes.as_slice(), [note] if note.contains("i915")), "{notes:?}");
        let given = StageRequest { line: LineFrom::Given("root=x".to_owned()), ..StageRequest::default() };
        let (line, notes) = staged("", &given, None, true);
        assert_eq!(line, "root=x");
        assert!(matches!(notes.as_slice(), [note] if note.starts_with("warning") && note.contains(NO_SYSFB)));
        assert_eq!(
            staged("root=x", &StageRequest::default(), None, false),
            ("root=x".to_owned(), Vec::new())
        );
    }

    #[test]
    fn what_is_to_be_left_out_goes_before_anything_is_appended() {
        let request = |remove: &[&str], append: &str| StageRequest {
            remove: remove.iter().map(ToString::to_string).collect(),
            append: vec![append.to_owned()],
            ..StageRequest::default()
        };
        let (line, notes) = staged("root=x quiet splash -- quiet", &request(&["quiet"], ""), None, false);
        assert_eq!((line.as_str(), notes.len()), ("root=x splash -- quiet", 0));
        let (line, notes) = staged("root=x", &request(&["quiet", "root=x"], "quiet"), Some(30), false);
        assert_eq!(line, "quiet panic=30");
        assert_eq!(notes, ["--remove: 'quiet' is not on the command line"]);
    }

    #[test]
    fn the_root_of_the_acpi_tables_is_told_where_it_is_wanted_and_never_twice() {
        let scratch = Scratch::new();
        let entry = entries::explicit(&scratch.root, "/vmlinuz".as_ref(), &[]).unwrap();
        let staged = |running: &str, acpi_rsdp| {
            scratch.put("/proc/cmdline", running);
            let conf = Conf { acpi_rsdp, ..Conf::default() };
            resolved(&scratch, &StageRequest::default(), &conf, &entry, Additions::default())
        };
        let (line, notes) = staged("root=x", true);
        assert!(line == "root=x" && notes.concat().contains("/sys/firmware/efi/systab"), "{notes:?}");
        scratch.put("/sys/firmware/efi/systab", "ACPI20=0x3fbfa014\nACPI=0x3fbfa000\n");
        let (once, notes) = staged("root=x -- single", true);
        assert!(once == "root=x acpi_rsdp=0x3fbfa014 -- single" && notes.is_empty(), "{once}");
        assert_eq!(staged(&once, true).0, once);
        assert_eq!(staged("acpi-rsdp=0x1", true).0, "acpi-rsdp=0x1");
        assert_eq!(staged("root=x", false).0, "root=x");
    }

    #[test]
    fn a_line_that_is_reused_does_not_grow() {
        let (once, _) = staged("root=x -- single", &StageRequest::default(), Some(30), true);
        assert_eq!(once, format!("root=x panic=30 {NO_SYSFB} -- single"));
        let (again, notes) = staged(&once, &StageRequest::default(), Some(30), true);
        assert_eq!(again.len(), once.len());
        assert!(notes.is_empty());
    }
}
