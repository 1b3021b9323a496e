//! The remains of the stage before: a stage that was killed leaves half a set, a mark, and perhaps a loaded image.

use nextkernel_plan::Plan;

use crate::machine::root::Root;
use crate::staging::directory::{self, Directory};

/// The remains that stay.
#[derive(Clone, Copy)]
pub struct Leftovers {
    /// An image of ours may be loaded.
    pub may_be_loaded: bool,
    /// The stage before was interrupted, and the loaded image may be one that no plan names. The mark stays until
    /// that image is gone.
    pub interrupted: bool,
}

impl Leftovers {
    /// Removes the sets that no plan names, and returns what remains.
    pub fn clear_up(root: &Root, directory: &Directory) -> Result<Leftovers, directory::Error> {
        if !root.kexec_loaded() {
            directory.withdraw();
        }
        let interrupted = directory.was_interrupted();
        let text = Directory::plan_text(root)?;
        let Ok(plan) = text.as_deref().map(Plan::parse).transpose() else {
            // If the plan is unreadable, we cannot know which set belongs to it or whether its image is loaded.
            return Ok(Leftovers { may_be_loaded: true, interrupted });
        };
        directory.sweep(plan.as_ref().map(|plan| plan.handoff));
        let preloaded = plan.is_some_and(|plan| plan.preload.stays_loaded());
        Ok(Leftovers { may_be_loaded: interrupted || preloaded, interrupted })
    }
}
