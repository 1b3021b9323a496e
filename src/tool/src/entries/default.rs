//! The entry that would be booted.

use crate::entries::entry::Entry;
use crate::entries::subvolume;
use crate::image::cmdline;
use crate::machine::root::Root;
use crate::request::once::Once;

/// The entry that would be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByDefault {
    /// It.
    pub entry: Entry,
    /// What decided.
    pub why: &'static str,
    /// Whether that counts once, and who keeps it.
    pub once: Option<Once>,
}

impl ByDefault {
    pub(crate) fn always(entry: &Entry, why: &'static str) -> ByDefault {
        ByDefault { entry: entry.clone(), why, once: None }
    }

    /// Whether its command line says which subvolume the root is in.
    pub(crate) fn names_its_root(&self, root: &Root) -> bool {
        let running = || cmdline::running(root).unwrap_or_default();
        subvolume::is_named(&self.entry.cmdline.clone().unwrap_or_else(running))
    }
}
