//! The next kernel's command line.

use nextkernel_plan::{ONCE, Record, Recorded, limits};
use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;

/// The parameters that the boot loader or the last handoff added. They tell how that kernel was started, not
/// how the next one is to run.
const ADDED: [&str; 4] = ["BOOT_IMAGE", "initrd", ONCE, Record::KEY];

/// The parameter that keeps the next kernel away from the firmware's framebuffer: neither simpledrm nor efifb
/// finds one.
pub const NO_SYSFB: &str = "initcall_blacklist=sysfb_init";

/// A reason why a command line cannot be staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The running kernel's command line cannot be read.
    #[error("/proc/cmdline cannot be read: {}; give the command line with --cmdline", InWords(.0))]
    Unreadable(std::io::Error),
    /// The command line is not plain text, as the plan requires.
    #[error("the command line holds {0}; give one without it")]
    NotText(&'static str),
    /// A quote is never closed. The kernel would take the rest of the line, with the record, for one value.
    #[error("the command line has a double quote that is never closed: {0:?}; close it")]
    OpenQuote(String),
    /// The line is longer than `LOADER_CMDLINE_MAX` allows beside the record.
    #[error(
        "the command line has {length} bytes, and this loader takes {most} beside the handoff's record; \
         leave out {over}"
    )]
    TooLong {
        /// The length of the line, in bytes.
        length: usize,
        /// The largest length allowed, in bytes.
        most: usize,
        /// The number of bytes to leave out.
        over: usize,
    },
}

/// A command line that can be staged: plain text in which every quote is closed, and short enough beside the
/// record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(String);

impl Line {
    /// Returns the line, without white space around it, or the reason why it cannot be staged.
    pub fn new(text: &str) -> Result<Line, Error> {
        Line::joined(text, &[])
    }

    /// Joins parts to a line. Fails if the result cannot be staged.
    pub fn joined(base: &str, append: &[String]) -> Result<Line, Error> {
        let parts = std::iter::once(base).chain(append.iter().map(String::as_str));
        let parts = parts.map(str::trim_ascii).filter(|part| !part.is_empty());
        let line = parts.collect::<Vec<_>>().join(" ");
        if line.chars().any(char::is_control) {
            return Err(Error::NotText("a control character"));
        }
        if line.matches('"').count() % 2 == 1 {
            return Err(Error::OpenQuote(line));
        }
        let most = limits::LOADER_CMDLINE_MAX - limits::RECORD_MAX;
        let length = line.len();
        if length > most {
            return Err(Error::TooLong { length, most, over: length - most });
        }
        Ok(Line(line))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the whole command line of the running kernel. It may have a newline in its middle, left by a boot
/// loader: for the kernel, a newline is white space like any other (`isspace`, lib/ctype.c).
pub fn running(root: &Root) -> Result<String, Error> {
    let bytes = std::fs::read(root.path("/proc/cmdline")).map_err(Error::Unreadable)?;
    String::from_utf8(bytes).map_err(|_| Error::NotText("bytes that are not UTF-8"))
}

/// Returns the running kernel's command line without the parameters that the boot loader or a handoff added.
pub fn reused(root: &Root) -> Result<String, Error> {
    Ok(without_added(&running(root)?))
}

/// Returns a command line without the parameters that the boot loader or a handoff added. Any text is accepted.
#[must_use]
pub fn without_added(line: &str) -> String {
    let kept = parameters(line).filter(|parameter| {
        // The kernel removes quotes around a whole parameter before it looks at the name.
        let name = parameter.trim_start_matches('"').split('=').next().unwrap_or_default();
        !ADDED.contains(&name)
    });
    kept.collect::<Vec<_>>().join(" ")
}

/// Returns the value of one of the kernel's parameters, which is empty if it has no `=`. If there are several,
/// the last one counts.
#[must_use]
pub fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let found = kernels(line).filter(|parameter| is_named(parameter, name)).last()?;
    Some(found.split_once('=').map_or("", |(_, value)| value).trim_matches('"'))
}

/// Returns a command line without one of the kernel's parameters. The init's arguments stay.
#[must_use]
pub fn without(line: &str, name: &str) -> String {
    let kernels = kernels(line).count();
    let kept =
        parameters(line).enumerate().filter(|(at, parameter)| *at >= kernels || !is_named(parameter, name));
    kept.map(|(_, parameter)| parameter).collect::<Vec<_>>().join(" ")
}

/// Returns a command line without a parameter that the user names. NAME removes every kernel parameter of that
/// name, NAME=VALUE only those with this value. Returns `None` if there is none to remove. The init's arguments
/// stay.
#[must_use]
pub fn removed(line: &str, named: &str) -> Option<String> {
    let named = unquoted(named.trim_ascii());
    let (name, wanted) = named.split_once('=').map_or((named, None), |(name, value)| (name, Some(value)));
    let (name, kernels) = (name.replace('-', "_"), kernels(line).count());
    let goes = |at: usize, parameter: &str| {
        let value = || unquoted(parameter).split_once('=').map(|(_, value)| unquoted(value));
        at < kernels
            && is_named(parameter, &name)
            && wanted.is_none_or(|wanted| value() == Some(unquoted(wanted)))
    };
    let kept: Vec<_> = parameters(line).enumerate().filter(|(at, it)| !goes(*at, it)).collect();
    let fewer = kept.len() < parameters(line).count();
    fewer.then(|| kept.into_iter().map(|(_, parameter)| parameter).collect::<Vec<_>>().join(" "))
}

/// Returns a command line with one more kernel parameter, at the place of the record.
#[must_use]
pub fn with(line: &str, parameter: &str) -> String {
    Recorded { cmdline: line, record: parameter }.to_string()
}

/// Returns whether the next kernel leaves the firmware's framebuffer alone.
#[must_use]
pub fn is_without_sysfb(line: &str) -> bool {
    let lists = kernels(line).filter(|parameter| is_named(parameter, "initcall_blacklist"));
    let mut names = lists.filter_map(|list| list.split_once('=')).flat_map(|(_, names)| names.split(','));
    names.any(|name| name.trim_matches('"') == "sysfb_init")
}

/// Returns a command line with which a kernel leaves the firmware's framebuffer alone. Such a line stays as it
/// is.
#[must_use]
pub fn without_sysfb(line: &str) -> String {
    if is_without_sysfb(line) { line.to_owned() } else { with(line, NO_SYSFB) }
}

/// Returns the kernel's own parameters. Those after a `--` belong to the init (`parse_args`, kernel/params.c).
fn kernels(line: &str) -> impl Iterator<Item = &str> {
    parameters(line).take_while(|parameter| *parameter != "--")
}

/// Compares a parameter's name as the kernel does, for which '-' and '_' are equal (`parameqn`,
/// kernel/params.c). `name` is written with '_'.
fn is_named(parameter: &str, name: &str) -> bool {
    let found = parameter.trim_start_matches('"').split('=').next().unwrap_or_default();
    found.replace('-', "_") == name
}

/// Removes quotes as the kernel does, around a whole parameter and around its value (`next_arg`,
/// lib/cmdline.c).
fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').unwrap_or(text);
    inner.strip_suffix('"').unwrap_or(inner)
}

/// Splits a command line as the kernel does, at white space outside of double quotes (`next_arg`,
/// lib/cmdline.c).
pub fn parameters(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let split = line.split(move |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    });
    split.filter(|parameter| !parameter.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn what_the_boot_loader_added_goes_by_name_and_not_by_substring() {
        for (running, reused) in [
            ("BOOT_IMAGE=/vmlinuz-6.12 root=/dev/vda ro quiet\n", "root=/dev/vda ro quiet"),
            ("initrd=\\ucode.img initrd=\\initrd.img root=LABEL=x", "root=LABEL=x"),
            ("rd.initrd=1 xBOOT_IMAGE=y noinitrd root=x", "rd.initrd=1 xBOOT_IMAGE=y noinitrd root=x"),
            ("root=x foo=\"a initrd=b BOOT_IMAGE=c\" q", "root=x foo=\"a initrd=b BOOT_IMAGE=c\" q"),
            ("BOOT_IMAGE=\"/my kernel\" root=x", "root=x"),
            ("\"initrd=a b\" root=x", "root=x"),
            ("root=x nextkernel.record=0000000000000001:kexec", "root=x"),
            ("  root=x \t  quiet  ", "root=x quiet"),
            ("root=x\nro initrd=a\r\nquiet\n", "root=x ro quiet"),
            (
                "dyndbg=\"file a.c +p; file b.c  +p\" -- init arg",
                "dyndbg=\"file a.c +p; file b.c  +p\" -- init arg",
            ),
            ("", ""),
        ] {
            assert_eq!(without_added(running), reused, "{running:?}");
        }
    }

    #[test]
    fn the_running_line_is_read_beyond_a_newline_in_its_midst() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "root=x\npanic=7 nextkernel.record=0000000000000001:kexec\n");
        let line = running(&scratch.root).unwrap_or_default();
        assert_eq!(value(&line, "panic"), Some("7"));
        assert!(Record::find(&line).is_some());
        assert_eq!(reused(&scratch.root).ok().as_deref(), Some("root=x panic=7"));
    }

    #[test]
    fn appending_keeps_the_order_and_the_quotes() {
        let append = ["a=1".to_owned(), String::new(), " b=\"2 3\" ".to_owned()];
        let joined = |base, append| Line::joined(base, append).map(|line| line.0).ok();
        assert_eq!(joined("root=x", &append).as_deref(), Some("root=x a=1 b=\"2 3\""));
        assert_eq!(joined("", &[]).as_deref(), Some(""));
    }

    #[test]
    fn the_kernels_parameters_are_told_from_the_inits_and_the_last_counts() {
        assert_eq!(value("panic=1 root=x panic=\"30\" -- panic=5", "panic"), Some("30"));
        assert_eq!(value("root=x kernel.panic=1 -- panic=5", "panic"), None);
        assert_eq!(value("panic", "panic"), Some(""));
        assert_eq!(without("panic=1 a=\"b  c\" panic=2 -- panic=3", "panic"), "a=\"b  c\" -- panic=3");
        assert_eq!(with("root=x -- single", "panic=30"), "root=x panic=30 -- single");
        assert_eq!(with("", "panic=30"), "panic=30");
    }

    #[test]
    fn what_is_removed_goes_by_name_or_by_name_and_value_and_leaves_the_rest_as_it_was() {
        for (line, named, left) in [
            ("root=x quiet a=1 quiet", "quiet", Some("root=x a=1")),
            ("root=x foo-bar=1 foo_bar=2", "foo_bar", Some("root=x")),
            ("root=x foo_bar=1", "foo-bar", Some("root=x")),
            ("console=ttyS0 console=tty0 root=x", "console=tty0", Some("console=ttyS0 root=x")),
            ("a=\"b  c\" dyndbg=\"file x +p\" q", "dyndbg", Some("a=\"b  c\" q")),
            ("a=\"b  c\" q", "a=b  c", Some("q")),
            ("\"a=b  c\" q", "a=\"b  c\"", Some("q")),
            ("root=x single -- single", "single", Some("root=x -- single")),
            ("root=x -- single", "single", None),
            ("root=x quieter xquiet a=quiet", "quiet", None),
            ("console=ttyS0", "console=tty0", None),
            ("splash", "splash=", None),
            ("a= b", "a=", Some("b")),
            ("", "quiet", None),
        ] {
            assert_eq!(removed(line, named).as_deref(), left, "{line:?} without {named:?}");
        }
    }

    #[test]
    fn the_firmwares_framebuffer_is_left_alone_once() {
        let once = without_sysfb("root=x");
        assert_eq!(once, "root=x initcall_blacklist=sysfb_init");
        for done in [once.as_str(), "initcall-blacklist=\"a,sysfb_init\" initcall_blacklist=b"] {
            assert_eq!(without_sysfb(done), done);
        }
        for other in ["initcall_blacklist=sysfb_init2", "-- initcall_blacklist=sysfb_init", "sysfb_init"] {
            assert!(!is_without_sysfb(other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_a_command_line_is_refused_with_a_reason() {
        let sentence = |line: &str| Line::new(line).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(sentence("a=\"b c").contains("never closed"));
        assert!(sentence("a\nb").contains("control character"));
        let most = limits::LOADER_CMDLINE_MAX - limits::RECORD_MAX;
        assert_eq!(sentence(&"x".repeat(most)), "");
        assert!(sentence(&"x".repeat(most + 3)).ends_with("leave out 3"));
    }
}
