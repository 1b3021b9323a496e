//! Signals during staging: they are deferred, and end it between two steps.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use thiserror::Error;

use crate::loading::restriction;
use crate::machine::root::Root;

/// A signal that asked this process to end.
#[derive(Debug, Error)]
#[error("{0} came while the images were copied; what was staged before is as it was")]
pub struct Interrupted(Signal);

/// The signals of terminals and service managers, blocked while this exists; SIGKILL still ends the process. A
/// signal that arrives takes effect between two steps, or after the last one.
pub struct Deferred {
    signals: SigSet,
    /// The mask of before; `None` if it could not be changed.
    before: Option<SigSet>,
}

impl Deferred {
    /// Blocks the signals, except those that the parent process has set to be ignored, as nohup(1) does: once
    /// blocked, they would be noticed.
    #[must_use]
    pub fn begin(root: &Root) -> Deferred {
        let ignored = restriction::process_status(root, "SigIgn:");
        let ignored = ignored.and_then(|bits| u64::from_str_radix(&bits, 16).ok()).unwrap_or(0);
        let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].into_iter();
        let signals: SigSet = signals.filter(|signal| (ignored >> (*signal as i32 - 1)) & 1 == 0).collect();
        Deferred { signals, before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok() }
    }

    /// Fails if a signal has arrived, and consumes it.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.pending().map_or(Ok(()), |signal| Err(Interrupted(signal)))
    }

    fn pending(&self) -> Option<Signal> {
        self.before.as_ref()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signal = SignalFd::with_flags(&self.signals, flags).ok()?.read_signal().ok()??;
        Signal::try_from(i32::try_from(signal.ssi_signo).ok()?).ok()
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let _ = self.before.map(|before| before.thread_set_mask());
    }
}
