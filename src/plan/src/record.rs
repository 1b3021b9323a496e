use core::fmt;

use crate::{HandoffId, Verb, limits};

/// What the hook tells the next kernel about the handoff that started it: one parameter at the end
/// of its command line. The dot in its name makes the kernel take it for a module's parameter, so
/// it is neither warned about nor handed to the init (`unknown_bootoption`, init/main.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which handoff.
    pub handoff: HandoffId,
    /// The verb at which it was carried out.
    pub verb: Verb,
}

impl Record {
    /// The parameter's name. Whoever reuses a command line drops it.
    pub const KEY: &'static str = "nextkernel.record";

    /// The record in a kernel command line; of several, the last.
    #[must_use]
    pub fn find(cmdline: &str) -> Option<Record> {
        cmdline.split_ascii_whitespace().rev().find_map(Record::from_parameter)
    }

    fn from_parameter(parameter: &str) -> Option<Record> {
        let value = parameter.strip_prefix(Record::KEY)?.strip_prefix('=')?;
        let (handoff, verb) = value.split_once(':')?;
        Some(Record { handoff: HandoffId::from_digits(handoff)?, verb: Verb::from_word(verb.as_bytes())? })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}:{}", Record::KEY, self.handoff, self.verb)
    }
}

/// A staged command line with a record in it, as the next kernel is told it: the tool rehearses with a
/// placeholder for the record, the hook loads with the real one.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a, R> {
    /// The line as staged.
    pub cmdline: &'a str,
    /// The record, or what stands for it.
    pub record: R,
}

impl<R: fmt::Display> fmt::Display for Recorded<'_, R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernels, inits) =
            self.cmdline.split_at_checked(place(self.cmdline)).unwrap_or((self.cmdline, ""));
        let kernels = kernels.trim_ascii_end();
        let before = if kernels.is_empty() { "" } else { " " };
        let behind = if inits.is_empty() { "" } else { " " };
        write!(out, "{kernels}{before}{}{behind}{inits}", self.record)
    }
}

/// Where in a command line a parameter can be added for the kernel: behind the last one, but before
/// a `--`, for what follows that is the init's (`parse_args`, kernel/params.c).
fn place(cmdline: &str) -> usize {
    let (mut quoted, mut start) = (false, 0);
    for (at, byte) in cmdline.bytes().enumerate() {
        quoted ^= byte == b'"';
        if byte.is_ascii_whitespace() && !quoted {
            if cmdline.get(start..at) == Some("--") {
                return start;
            }
            start = at + 1;
        }
    }
    if cmdline.get(start..) == Some("--") { start } else { cmdline.len() }
}

const _: () = assert!(
    " nextkernel.record=0123456789abcdef:poweroff".len() <= limits::RECORD_MAX,
    "RECORD_MAX is the greatest length of a record"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_in_a_command_line() {
        let record = Record { handoff: HandoffId(7), verb: Verb::Reboot };
        assert_eq!(Record::find(&format!("root=/dev/vda quiet {record}")), Some(record));
        assert_eq!(Record::find("root=/dev/vda xnextkernel.record=0000000000000007:kexec"), None);
        assert_eq!(Record::find("nextkernel.record=7:kexec nextkernel.record"), None);
    }

    #[test]
    fn a_record_goes_behind_the_kernels_parameters_and_before_the_inits() {
        for (cmdline, behind) in [
            ("root=x quiet", ""),
            ("root=x -- single", "-- single"),
            ("root=x --", "--"),
            ("-- single", "-- single"),
            ("a=\"b -- c\" --d e--", ""),
            ("", ""),
        ] {
            assert_eq!(cmdline.get(place(cmdline)..), Some(behind), "{cmdline:?}");
        }
    }

    #[test]
    fn what_only_looks_like_white_space_is_kept() {
        let shown = |cmdline: &str| Recorded { cmdline, record: "r" }.to_string();
        assert_eq!(shown("--\u{a0}"), "--\u{a0} r");
        assert_eq!(shown("a  -- b"), "a r -- b");
        assert_eq!(shown(" "), "r");
    }

    #[test]
    fn no_record_is_longer_than_its_limit() {
        for verb in Verb::ALL {
            let record = Record { handoff: HandoffId(u64::MAX), verb };
            assert!(format!(" {record}").len() <= limits::RECORD_MAX);
        }
    }
}
