//! The entry that would be booted.

use crate::entries::entry::Entry;
use crate::entries::subvolume;
use crate::image::cmdline;
use crate::machine::root::Root;
use crate::request::once::Once;

/// The entry that would be booted, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByDefault {
    /// The entry.
    pub entry: Entry,
    /// The setting that decided.
    pub why: &'static str,
    /// The one-shot choice behind it, if there is one, and the place that stores it.
    pub once: Option<Once>,
}

impl ByDefault {
    pub(crate) fn always(entry: &Entry, why: &'static str) -> ByDefault {
        ByDefault { entry: entry.clone(), why, once: None }
    }

    /// Returns whether the entry's command line, or else the running one, names the subvolume that the root is
    /// in.
    pub(crate) fn names_its_root(&self, root: &Root) -> bool {
        let running = || cmdline::running(root).unwrap_or_default();
        subvolume::is_named(&self.entry.cmdline.clone().unwrap_or_else(running))
    }
}
