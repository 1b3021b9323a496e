//! The report for a program. Field names are stable; new ones may be added, and what is not known is not there.

use serde::Serialize;

use super::boot::Boot;
use crate::report::known::Known;

/// A boot, and what comes of it.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    boot: &'a Boot,
    /// From the command to the default target, where all of it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_ms: Option<u64>,
    /// How much less that is than the yardstick's.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_ms: Option<i64>,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Facts<'a> {
    /// The running boot.
    boot: Shown<'a>,
    /// The last boot that a handoff started; the running one, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_handoff: Option<Shown<'a>>,
    /// The last restart through firmware that was measured as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    yardstick: Option<Shown<'a>>,
}

/// All that is known.
#[derive(Debug, Serialize)]
pub struct History<'a> {
    /// The oldest first; the running one is the last.
    boots: Vec<Shown<'a>>,
}

fn shown<'a>(known: &'a Known, boot: &'a Boot) -> Shown<'a> {
    Shown { boot, total_ms: boot.total_ms(), saved_ms: known.saved(boot).map(|saved| saved.ms) }
}

/// The report.
#[must_use]
pub fn of(known: &Known) -> Facts<'_> {
    Facts {
        boot: shown(known, known.running()),
        last_handoff: known.last_handoff().map(|boot| shown(known, boot)),
        yardstick: known.yardstick().map(|boot| shown(known, boot)),
    }
}

/// All that is known.
#[must_use]
pub fn history(known: &Known) -> History<'_> {
    History { boots: known.boots().iter().map(|boot| shown(known, boot)).collect() }
}
