//! Boot counting: the counters in the name of an entry's file.

/// How often an entry was tried ("Boot counting").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// How often it may be tried yet; after the last it is bad.
    pub left: u32,
    /// How often it was tried.
    pub done: u32,
}

impl Tries {
    /// Parts a file's name, without its ending, from its counters: `NAME+LEFT` or `NAME+LEFT-DONE`.
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

/// What identifies an entry: its file's name, without counters. The ending is kept as it is written.
#[must_use]
pub fn id(name: &str, ending: &str) -> (String, Option<Tries>) {
    let (stem, ending) = name.split_at_checked(name.len().saturating_sub(ending.len())).unwrap_or((name, ""));
    let (stem, tries) = Tries::parse(stem);
    (format!("{stem}{ending}"), tries)
}
