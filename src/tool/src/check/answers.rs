//! The answers of the running system to questions that no file answers.

use crate::freeing::gpus;
use crate::image::digest;
use crate::loading::syscall;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::systemd;

/// The answers of the running system itself, as opposed to its files.
pub(super) struct Answers {
    pub(super) calls: Option<Calls>,
    pub(super) systemd: Option<u32>,
    /// Measures the bytes per second that this processor digests.
    pub(super) hash_rate: fn() -> u64,
    /// Names a process that has a driver's device open.
    pub(super) process_on: fn(&Root, &str) -> Option<String>,
}

impl Answers {
    /// Asks the running system.
    pub(super) fn now(root: &Root) -> Answers {
        let calls = syscall::calls(root);
        Answers { calls, systemd: systemd::version(), hash_rate: digest::rate, process_on: gpus::process_on }
    }
}
