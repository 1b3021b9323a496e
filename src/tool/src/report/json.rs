//! The report as JSON. Field names are stable; new ones may be added, and an unknown value is absent.

use serde::Serialize;

use super::boot::Boot;
use crate::report::known::Known;

/// A boot, with its total and the time that it saved.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    boot: &'a Boot,
    /// The time from the command to the default target, if all of it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_ms: Option<u64>,
    /// How much less that is than the baseline's; negative if it is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_ms: Option<i64>,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Facts<'a> {
    /// The running boot.
    boot: Shown<'a>,
    /// The last boot that a handoff started, which may be the running one.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_handoff: Option<Shown<'a>>,
    /// The baseline: the last full reboot that was measured as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    yardstick: Option<Shown<'a>>,
}

/// All known boots.
#[derive(Debug, Serialize)]
pub struct History<'a> {
    /// The boots, the oldest first. The running one is the last.
    boots: Vec<Shown<'a>>,
}

fn shown<'a>(known: &'a Known, boot: &'a Boot) -> Shown<'a> {
    Shown { boot, total_ms: boot.total_ms(), saved_ms: known.saved(boot).map(|saved| saved.ms) }
}

/// Returns the report.
#[must_use]
pub fn of(known: &Known) -> Facts<'_> {
    Facts {
        boot: shown(known, known.running()),
        last_handoff: known.last_handoff().map(|boot| shown(known, boot)),
        yardstick: known.yardstick().map(|boot| shown(known, boot)),
    }
}

/// Returns all known boots.
#[must_use]
pub fn history(known: &Known) -> History<'_> {
    History { boots: known.boots().iter().map(|boot| shown(known, boot)).collect() }
}
