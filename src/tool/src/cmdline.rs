//! The next kernel's command line.

use nextkernel_plan::{Record, limits};
use thiserror::Error;

use crate::errno::InWords;
use crate::root::Root;

/// What the boot loader or the last handoff added: it tells how that kernel was started, not how
/// the next one is to run.
const ADDED: [&str; 3] = ["BOOT_IMAGE", "initrd", Record::KEY];

/// Why there is no command line.
#[derive(Debug, Error)]
pub enum Error {
    /// The running one cannot be read.
    #[error("/proc/cmdline cannot be read: {}; give the command line with --cmdline", InWords(.0))]
    Unreadable(std::io::Error),
    /// It is not text, and the plan is.
    #[error("the command line holds {0}; give one without it")]
    NotText(&'static str),
    /// A quote is never closed: the kernel would take all that follows, the record too, for one value.
    #[error("the command line has a double quote that is never closed: {0:?}; close it")]
    OpenQuote(String),
    /// It is longer than the loader takes.
    #[error(
        "the command line has {length} bytes, and this loader takes {most} beside the handoff's record; \
         leave out {over}"
    )]
    TooLong {
        /// Its length.
        length: usize,
        /// What is taken.
        most: usize,
        /// The difference.
        over: usize,
    },
}

/// The running kernel's command line, without what the boot loader added.
pub fn reused(root: &Root) -> Result<String, Error> {
    let bytes = std::fs::read(root.path("/proc/cmdline")).map_err(Error::Unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::NotText("bytes that are not UTF-8"))?;
    Ok(without_added(&text))
}

/// Joins and checks: what comes out can be staged.
pub fn checked(base: &str, append: &[String]) -> Result<String, Error> {
    let parts = std::iter::once(base).chain(append.iter().map(String::as_str));
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
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
    Ok(line)
}

/// A command line without what the boot loader added. Total: any text gives a line.
#[must_use]
pub fn without_added(line: &str) -> String {
    let line = line.lines().next().unwrap_or_default();
    let kept = parameters(line).filter(|parameter| {
        // The kernel takes quotes around a whole parameter off before it looks at the name.
        let name = parameter.trim_start_matches('"').split('=').next().unwrap_or_default();
        !ADDED.contains(&name)
    });
    kept.collect::<Vec<_>>().join(" ")
}

/// The parameters as the kernel splits them: at spaces outside of double quotes (`next_arg`,
/// lib/cmdline.c).
fn parameters(line: &str) -> impl Iterator<Item = &str> {
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
    fn appending_keeps_the_order_and_the_quotes() {
        let append = ["a=1".to_owned(), String::new(), " b=\"2 3\" ".to_owned()];
        assert_eq!(checked("root=x", &append).ok().as_deref(), Some("root=x a=1 b=\"2 3\""));
        assert_eq!(checked("", &[]).ok().as_deref(), Some(""));
    }

    #[test]
    fn what_cannot_be_a_command_line_is_refused_with_a_reason() {
        let sentence =
            |line: &str| checked(line, &[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(sentence("a=\"b c").contains("never closed"));
        assert!(sentence("a\nb").contains("control character"));
        let most = limits::LOADER_CMDLINE_MAX - limits::RECORD_MAX;
        assert_eq!(sentence(&"x".repeat(most)), "");
        assert!(sentence(&"x".repeat(most + 3)).ends_with("leave out 3"));
    }
}
