//! The answers of the running system to questions that no file answers.

use crate::freeing::gpus;
use crate::image::digest;
use crate::loading::loader;
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::machine::systemd;

/// The answers of the running system itself, as opposed to its files.
pub(crate) struct Answers {
    pub(crate) calls: Option<Calls>,
    pub(crate) systemd: Option<u32>,
    pub(crate) hash_rate: fn() -> u64,
    pub(crate) process_on: fn(&Root, &str) -> Option<String>,
}

impl Answers {
    pub(crate) fn now(root: &Root) -> Answers {
        let calls = loader::calls(root);
        Answers { calls, systemd: systemd::version(), hash_rate: digest::rate, process_on: gpus::process_on }
    }
}
