//! A finding: a sentence, and a verdict on how bad it is.

use serde::Serialize;

/// The finding on one subject.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) verdict: Verdict,
    pub(crate) sentence: String,
}

/// The verdict of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// All is well.
    Ok,
    /// A fact is worth knowing.
    Info,
    /// A handoff works, but may fail unnecessarily.
    Warn,
    /// A handoff will fail.
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Info => "info",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

impl Finding {
    /// Returns the finding as a line of text.
    pub(crate) fn in_words(&self) -> String {
        format!("{:<5} {:<18} {}\n", self.verdict.word(), self.what, self.sentence)
    }
}

/// The findings so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Adds a finding.
    pub(super) fn say(&mut self, verdict: Verdict, what: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict, sentence: sentence.into() });
    }
}
