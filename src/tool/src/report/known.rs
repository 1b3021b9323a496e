//! All boots that are known, and what handoffs saved.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::machine::root::Root;
use crate::report::arrival;
use crate::report::boot::Boot;
use crate::report::history::{self, HISTORY, History};
use crate::words::errno::InWords;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// The history.
    #[error("{HISTORY} cannot be read: {}", InWords(.0))]
    Unreadable(io::Error),
    /// What the next report needs.
    #[error("{}: {}; the next report will know less", history::FOLDER, InWords(.0))]
    Unwritable(io::Error),
    /// It is root's.
    #[error("{} belongs to root; run this with sudo", history::FOLDER)]
    NotRoot,
    /// The output.
    #[error("the report cannot be printed: {}", InWords(.0))]
    Output(io::Error),
    /// The file.
    #[error("{} cannot be written: {}; what was there before is as it was", .path.display(), InWords(.error))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// All that is known: the boots before, and the running one as the last.
#[derive(Clone, Debug)]
pub struct Known {
    pub(crate) history: History,
    pub(crate) running: Boot,
}

/// What a handoff saved.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// Milliseconds; less than nothing where it took longer.
    pub ms: i64,
    /// The restart through firmware that it is measured by.
    pub of: &'a Boot,
}

impl Known {
    /// What a history tells, the running boot's id and what can be measured of that now; what was kept of it then is
    /// more exact.
    #[must_use]
    pub fn of(mut history: History, boot_id: &str, measure: impl FnOnce(&History) -> Boot) -> Known {
        let kept = history.boots.iter().rposition(|boot| boot.boot_id == boot_id);
        let running = match kept {
            Some(at) => history.boots.remove(at),
            None => measure(&history),
        };
        history.boots.push(running.clone());
        Known { history, running }
    }

    /// The running boot.
    #[must_use]
    pub fn running(&self) -> &Boot {
        &self.running
    }

    /// Every boot, the running one as the last.
    #[must_use]
    pub fn boots(&self) -> &[Boot] {
        &self.history.boots
    }

    /// The last that a handoff started.
    #[must_use]
    pub fn last_handoff(&self) -> Option<&Boot> {
        self.boots().iter().rev().find(|boot| boot.is_by_handoff() && boot.handoff.is_some())
    }

    /// What handoffs are measured by.
    #[must_use]
    pub fn yardstick(&self) -> Option<&Boot> {
        self.history.yardstick()
    }

    /// What a handoff saved, where it and the yardstick were measured as a whole.
    #[must_use]
    pub fn saved(&self, boot: &Boot) -> Option<Saved<'_>> {
        let (of, took) = (self.yardstick()?, boot.total_ms().filter(|_| boot.is_by_handoff())?);
        let [yardstick, took] = [of.total_ms()?, took].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        Some(Saved { ms: yardstick.saturating_sub(took), of })
    }
}

/// The handoffs that failed since one succeeded or a person has seen it, the last first; this kernel's arrival counts,
/// too. What nobody kept is not known.
pub fn failed(root: &Root) -> Result<Vec<Boot>, Error> {
    let history = History::read(root).map_err(Error::Unreadable)?;
    let known = Known::of(history, &arrival::boot_id(root), |history| arrival::arrived(root, history));
    Ok(known.history.failed(history::seen(root).as_deref()).cloned().collect())
}

/// How many failed.
#[must_use]
pub fn so_many_failed(count: usize) -> String {
    if count == 1 { "a handoff failed".to_owned() } else { format!("{count} handoffs in a row failed") }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is known where these came one after another.
    pub(crate) fn known(boots: &[Boot]) -> Known {
        let running = boots.last().unwrap().clone();
        let mut history = History::default();
        boots.iter().rev().skip(1).rev().for_each(|boot| history.boots.push(boot.clone()));
        Known::of(history, "", |_| running)
    }
}
