//! All known boots, and how much time handoffs saved.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::machine::root::Root;
use crate::machine::superuser::NotRoot;
use crate::report::arrival;
use crate::report::boot::Boot;
use crate::report::history::{self, HISTORY, History};
use crate::words::errno::InWords;

/// The reason why there is no report.
#[derive(Debug, Error)]
pub enum Error {
    /// The history cannot be read.
    #[error("{HISTORY} cannot be read: {}", InWords(.0))]
    Unreadable(io::Error),
    /// The records for the next report cannot be written.
    #[error("{}: {}; the next report will know less", history::DIRECTORY, InWords(.0))]
    Unwritable(io::Error),
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// The output cannot be printed.
    #[error("the report cannot be printed: {}", InWords(.0))]
    Output(io::Error),
    /// The output file cannot be written.
    #[error("{} cannot be written: {}; what was there before is as it was", .path.display(), InWords(.error))]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

/// All known boots: those before, and the running one as the last.
#[derive(Clone, Debug)]
pub struct Known {
    pub(crate) history: History,
    pub(crate) running: Boot,
}

/// The time that a handoff saved.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// Milliseconds; negative if the handoff took longer.
    pub ms: i64,
    /// The baseline for this: a full reboot.
    pub of: &'a Boot,
}

impl Known {
    /// Combines a history with the running boot. `measure` is called if the history does not have that boot; a
    /// boot that was recorded in time is more exact.
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

    /// Returns the running boot.
    #[must_use]
    pub fn running(&self) -> &Boot {
        &self.running
    }

    /// Returns every boot, the running one as the last.
    #[must_use]
    pub fn boots(&self) -> &[Boot] {
        &self.history.boots
    }

    /// Returns the last boot that a handoff started.
    #[must_use]
    pub fn last_handoff(&self) -> Option<&Boot> {
        self.boots().iter().rev().find(|boot| boot.is_by_handoff() && boot.handoff.is_some())
    }

    /// Returns the baseline for handoffs.
    #[must_use]
    pub fn yardstick(&self) -> Option<&Boot> {
        self.history.yardstick()
    }

    /// Returns the time that a handoff saved, if it and the baseline were measured as a whole.
    #[must_use]
    pub fn saved(&self, boot: &Boot) -> Option<Saved<'_>> {
        let (of, took) = (self.yardstick()?, boot.total_ms().filter(|_| boot.is_by_handoff())?);
        let [yardstick, took] = [of.total_ms()?, took].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        Some(Saved { ms: yardstick.saturating_sub(took), of })
    }
}

/// Returns the boots whose handoff failed since the last success or acknowledgement, the newest first. The
/// running boot counts, too. A boot that was not recorded is unknown.
pub fn failed(root: &Root) -> Result<Vec<Boot>, Error> {
    let history = History::read(root).map_err(Error::Unreadable)?;
    let known = Known::of(history, &arrival::boot_id(root), |history| arrival::arrived(root, history));
    Ok(known.history.failed(history::seen(root).as_deref()).cloned().collect())
}

/// Returns the number of failed handoffs in words.
#[must_use]
pub fn so_many_failed(count: usize) -> String {
    if count == 1 { "a handoff failed".to_owned() } else { format!("{count} handoffs in a row failed") }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Returns these boots as known, in order, the last one running.
    pub(crate) fn known(boots: &[Boot]) -> Known {
        let running = boots.last().unwrap().clone();
        let mut history = History::default();
        boots.iter().rev().skip(1).rev().for_each(|boot| history.boots.push(boot.clone()));
        Known::of(history, "", |_| running)
    }
}
