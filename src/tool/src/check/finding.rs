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
    /// Worth knowing.
    Info,
    /// It works, but may fail unnecessarily.
    Warn,
    /// It will fail.
    Bad,
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Info => "info",
            Verdict::Warn => "warn",
            Verdict::Bad => "bad",
        }
    }
}

impl Finding {
    pub(crate) fn in_words(&self) -> String {
        format!("{:<5} {:<18} {}\n", self.verdict.word(), self.what, self.sentence)
    }
}

/// The findings so far.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn say(&mut self, verdict: Verdict, what: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Finding { what: what.into(), verdict, sentence: sentence.into() });
    }
}
