use core::fmt;

use crate::image::{hexadecimal, number};
use crate::{HandoffId, Verb};

/// The hook's report to the next kernel about the handoff that started it: one parameter at the end of the
/// kernel's command line. The dot in its name makes the kernel take it for a module's parameter, so that it
/// is neither warned about nor handed to the init (`unknown_bootoption`, init/main.c).
///
/// ```
/// use nextkernel_plan::{Record, Verb};
///
/// let text = "nextkernel.record=5f3a9c1e2b7d4a60:kexec:692f1a2b:1f2e3d4c5b:s12.t1480.o1490.l1495:g";
/// let record = Record::find(text).unwrap();
/// let course = record.course.unwrap();
/// assert_eq!((record.verb, course.marks.torn_down), (Some(Verb::Kexec), Some(1480)));
/// assert_eq!(record.to_string(), text);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The id of the handoff.
    pub handoff: HandoffId,
    /// The verb at which the handoff was carried out. `None` in an image that was loaded at staging, when the
    /// verb was not known yet. The word `preloaded` then stands in its place.
    pub verb: Option<Verb>,
    /// The course of the shutdown, if it was recorded.
    pub course: Option<Course>,
}

/// The course of the shutdown until the command line of the next kernel was fixed. With `kexec_file_load(2)`,
/// which runs in parallel with the teardown, that is before the teardown; with `kexec_load(2)`, just before
/// the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// When the hook began, in seconds since the epoch.
    pub begun_at: u64,
    /// The value of a counter at that moment that goes on in the next kernel: the time-stamp counter (x86),
    /// `CNTVCT_EL0` (arm64) or `time` (riscv64); 0 if there is none.
    pub counter: u64,
    /// The times at which steps were done.
    pub marks: Marks,
    /// The steps that went wrong.
    pub trouble: Trouble,
}

/// The times at which steps were done, in milliseconds since the hook began. A time is `None` if the record was
/// written before that step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// `s`: the first sync was done.
    pub synced: Option<u32>,
    /// `t`: the teardown was over.
    pub torn_down: Option<u32>,
    /// `o`: the init's other hooks were waited for, and the second sync was done.
    pub others_done: Option<u32>,
    /// `l`: the load began.
    pub load_begun: Option<u32>,
}

/// The steps that went wrong without keeping the hook from the jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble(u8);

impl Trouble {
    /// `g`: the driver of a GPU stayed.
    pub const GPU: Trouble = Trouble(1);
    /// `m`: another module stayed.
    pub const MODULE: Trouble = Trouble(2);
    /// `h`: another hook did not end in time.
    pub const HOOK: Trouble = Trouble(4);

    /// Each step with its letter, in the order in which they are written.
    pub const ALL: [(Trouble, char); 3] = [(Trouble::GPU, 'g'), (Trouble::MODULE, 'm'), (Trouble::HOOK, 'h')];

    /// Whether `one` is among these steps.
    #[must_use]
    pub const fn has(self, one: Trouble) -> bool {
        self.0 & one.0 != 0
    }

    /// Returns the steps of both.
    #[must_use]
    pub const fn and(self, other: Trouble) -> Trouble {
        Trouble(self.0 | other.0)
    }

    /// Reads letters in their order, at least one.
    fn parse(letters: &str) -> Option<Trouble> {
        let mut all = Trouble::ALL.iter();
        let found = letters.chars().try_fold(Trouble::default(), |found, letter| {
            all.find(|(_, its)| *its == letter).map(|(one, _)| found.and(*one))
        });
        found.filter(|found| *found != Trouble::default())
    }
}

impl Record {
    /// The name of the parameter. It is dropped when a command line is reused.
    pub const KEY: &'static str = "nextkernel.record";

    const PRELOADED: &'static str = "preloaded";

    /// Returns the record for an image that is loaded at staging.
    #[must_use]
    pub const fn preloaded(handoff: HandoffId) -> Record {
        Record { handoff, verb: None, course: None }
    }

    /// Returns the record in a kernel command line; of several, the last.
    #[must_use]
    pub fn find(cmdline: &str) -> Option<Record> {
        cmdline.split_ascii_whitespace().rev().find_map(Record::from_parameter)
    }

    fn from_parameter(parameter: &str) -> Option<Record> {
        let mut fields = parameter.strip_prefix(Record::KEY)?.strip_prefix('=')?.split(':');
        let handoff = HandoffId::from_digits(fields.next()?)?;
        let verb = match fields.next()? {
            Record::PRELOADED => None,
            word => Some(Verb::from_word(word.as_bytes())?),
        };
        let course = match fields.next() {
            // A preloaded image was loaded before the shutdown, so nothing more is known.
            Some(_) if verb.is_none() => return None,
            Some(begun_at) => Some(Course {
                begun_at: hexadecimal(begun_at)?,
                counter: hexadecimal(fields.next()?)?,
                marks: Marks::parse(fields.next()?)?,
                trouble: fields.next().map_or(Some(Trouble::default()), Trouble::parse)?,
            }),
            None => None,
        };
        fields.next().is_none().then_some(Record { handoff, verb, course })
    }
}

impl Marks {
    fn each(&self) -> [(char, Option<u32>); 4] {
        [('s', self.synced), ('t', self.torn_down), ('o', self.others_done), ('l', self.load_begun)]
    }

    /// Reads `sN.tN.oN.lN`. Any of them may be missing.
    fn parse(text: &str) -> Option<Marks> {
        let mut found = Marks::default();
        let mut last = 0;
        for mark in text.split('.').filter(|_| !text.is_empty()) {
            let mut digits = mark.chars();
            let (order, place) = match digits.next()? {
                's' => (1, &mut found.synced),
                't' => (2, &mut found.torn_down),
                'o' => (3, &mut found.others_done),
                'l' => (4, &mut found.load_begun),
                _ => return None,
            };
            if order <= last {
                return None;
            }
            last = order;
            *place = Some(u32::try_from(number(digits.as_str())?).ok()?);
        }
        Some(found)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}:", Record::KEY, self.handoff)?;
        match self.verb {
            Some(verb) => verb.fmt(out)?,
            None => out.write_str(Record::PRELOADED)?,
        }
        self.course.map_or(Ok(()), |course| write!(out, ":{course}"))
    }
}

impl fmt::Display for Course {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Course { begun_at, counter, marks, trouble } = self;
        write!(out, "{begun_at:x}:{counter:x}:")?;
        let mut before = "";
        for (letter, at) in marks.each() {
            if let Some(at) = at {
                write!(out, "{before}{letter}{at}")?;
                before = ".";
            }
        }
        let mut before = ":";
        for (one, letter) in Trouble::ALL {
            if trouble.has(one) {
                write!(out, "{before}{letter}")?;
                before = "";
            }
        }
        Ok(())
    }
}

/// Displays a staged command line with a record in it, as the next kernel gets it. The tool's test load uses
/// a placeholder for the record, and the hook the real one.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a, R> {
    /// The command line as staged.
    pub cmdline: &'a str,
    /// The record, or its placeholder.
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

/// Returns the place in a command line at which a parameter for the kernel can be added: after the last one,
/// but before a `--`, because the words after that are the init's (`parse_args`, kernel/params.c).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_in_a_command_line() {
        let record = Record { handoff: HandoffId(7), verb: Some(Verb::Reboot), course: None };
        assert_eq!(Record::find(&format!("root=/dev/vda quiet {record}")), Some(record));
        assert_eq!(Record::find("root=/dev/vda xnextkernel.record=0000000000000007:kexec"), None);
        assert_eq!(Record::find("nextkernel.record=7:kexec nextkernel.record"), None);
    }

    #[test]
    fn the_record_of_a_preloaded_image_tells_which_handoff_and_no_more() {
        let record = Record::preloaded(HandoffId(7));
        assert_eq!(record.to_string(), "nextkernel.record=0000000000000007:preloaded");
        assert_eq!(Record::find(&record.to_string()), Some(record));
        assert_eq!(Record::find(&format!("{record}:1:0:")), None);
    }

    #[test]
    fn what_is_no_record_of_ours_is_none() {
        let of = |course: &str| Record::find(&format!("nextkernel.record=0000000000000007:kexec{course}"));
        assert!(of("").is_some() && of(":1:0:").is_some() && of(":1:0:l5:gh").is_some());
        for bad in [
            ":",
            ":1",
            ":1:2",
            ":01:2:",
            ":1:A:",
            ":1:2:s",
            ":1:2:l1.s2",
            ":1:2:s1.s2",
            ":1:2:s1:",
            ":1:2:s1:hg",
            ":1:2:s1:x",
            ":1:2:s4294967296",
            ":1:2:s1:g:",
            ":1:2:s1.",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
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
            let longest = Some(u32::MAX);
            let marks =
                Marks { synced: longest, torn_down: longest, others_done: longest, load_begun: longest };
            let trouble = Trouble::ALL.iter().fold(Trouble::default(), |all, (one, _)| all.and(*one));
            let course = Course { begun_at: (1 << 34) - 1, counter: u64::MAX, marks, trouble };
            let record = Record { handoff: HandoffId(u64::MAX), verb: Some(verb), course: Some(course) };
            assert_eq!(Record::find(&record.to_string()), Some(record));
            assert!(format!(" {record}").len() <= crate::limits::RECORD_MAX);
        }
    }
}
