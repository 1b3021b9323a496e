//! Boot counting: the counters in the name of an entry's file.

/// The counters of an entry ("Boot counting").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Attempts that are left; at 0 the entry is bad.
    pub left: u32,
    /// Attempts so far.
    pub done: u32,
}

impl Tries {
    /// Splits a file's name, without its ending, into the name proper and its counters: `NAME+LEFT` or
    /// `NAME+LEFT-DONE`.
    #[must_use]
    pub fn parse(stem: &str) -> (&str, Option<Tries>) {
        let counted = || {
            let (name, counters) = stem.rsplit_once('+')?;
            let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
            Some((name, Tries { left: counter(left)?, done: counter(done)? }))
        };
        counted().map_or((stem, None), |(name, tries)| (name, Some(tries)))
    }
}

fn counter(digits: &str) -> Option<u32> {
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| i32::try_from(*number).is_ok())
}

/// Returns an entry's id, which is its file's name without counters, and the counters. The ending keeps its
/// spelling.
#[must_use]
pub fn id(name: &str, ending: &str) -> (String, Option<Tries>) {
    let (stem, ending) = name.split_at_checked(name.len().saturating_sub(ending.len())).unwrap_or((name, ""));
    let (stem, tries) = Tries::parse(stem);
    (format!("{stem}{ending}"), tries)
}
