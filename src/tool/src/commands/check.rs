//! The check command: prints the findings. The exit status tells whether any of them is bad.

use std::io;

use clap::Args;
use serde::Serialize;
use thiserror::Error;

use crate::check;
use crate::check::finding::{Finding, Verdict};
use crate::machine::root::Root;
use crate::words::errno::InWords;
use crate::words::say;

/// Tell what may stand between this machine and its next kernel
///
/// Each finding is ok, info (worth knowing), warn (it works, and may fail where it need not) or bad (it
/// will fail). The exit status is 1 if anything is bad, else 0. It changes nothing; as root it sees what is
/// staged, too.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A reason for the exit status 1.
#[derive(Debug, Error)]
pub enum Error {
    /// Findings are bad: their subjects.
    #[error("not as it should be: {}; each says above what to do", .0.join(", "))]
    Bad(Vec<String>),
    /// Standard output cannot be written.
    #[error("the findings cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// All findings. The field names are stable in the JSON, and new ones may be added.
#[derive(Debug, Serialize)]
struct Found {
    findings: Vec<Finding>,
}

/// Prints the findings.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    let found = Found { findings: check::findings(root) };
    let in_words = || found.findings.iter().map(Finding::in_words).collect();
    say::print(&found, arguments.json, in_words).map_err(Error::Output)?;
    let bad = found.findings.into_iter().filter(|finding| finding.verdict == Verdict::Bad);
    let bad: Vec<_> = bad.map(|finding| finding.what).collect();
    if bad.is_empty() { Ok(()) } else { Err(Error::Bad(bad)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_field_name_of_the_json_is_stable() {
        let json = serde_json::to_string(&Found { findings: Vec::new() }).unwrap();
        assert_eq!(json, r#"{"findings":[]}"#);
    }
}
