//! A finding: a sentence, and a verdict on how bad it is.

use serde::Serialize;

use crate::freeing::gpus;
use crate::image::digest;
use crate::loading::syscall;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::systemd;

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

/// The answers of the running system itself, as opposed to its files.
pub(crate) struct Asked {
    pub(crate) calls: Option<Calls>,
    pub(crate) systemd: Option<u32>,
    pub(crate) hash_rate: fn() -> u64,
    pub(crate) process_on: fn(&Root, &str) -> Option<String>,
}

impl Asked {
    pub(crate) fn now(root: &Root) -> Asked {
        let calls = syscall::calls(root);
        Asked { calls, systemd: systemd::version(), hash_rate: digest::rate, process_on: gpus::process_on }
    }
}

/// The verdict on an invalid configuration, and its consequence. A staged plan already holds all settings that
/// count, so the verdict is milder then.
#[derive(Clone, Copy)]
pub(crate) struct UntilThen(pub(crate) Verdict, pub(crate) &'static str);

impl UntilThen {
    pub(crate) fn of(is_staged: bool) -> UntilThen {
        if is_staged {
            UntilThen(
                Verdict::Warn,
                "until then what is staged holds as it is, and nothing else can be staged",
            )
        } else {
            UntilThen(Verdict::Bad, "until then nothing can be staged")
        }
    }
}
