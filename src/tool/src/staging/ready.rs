//! Whether the staged set can be used as it is.

use nextkernel_plan::{HandoffId, Malformed, Plan, Preload};
use thiserror::Error;

use crate::machine::root::Root;
use crate::staging::directory;

/// The reason why what is staged cannot be used, and is not replaced unasked.
#[derive(Debug, Error)]
pub enum Error {
    /// An image is another one.
    #[error(
        "/run/nextkernel/{0} has changed since it was staged; stage again, with the options of that time, or take it \
         back (`nextkernel unstage`)"
    )]
    Changed(String),
    /// The only image is gone.
    #[error(
        "{0} is loaded no more, and `preload = only` keeps no copies of it; stage again, with the options of that time, or \
         take it back (`nextkernel unstage`)"
    )]
    Unloaded(String),
    /// The plan.
    #[error(transparent)]
    Folder(#[from] directory::Error),
}

/// What becomes of what is staged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// It is used: this handoff, and no other that somebody stages meanwhile.
    Use(HandoffId),
    /// Something is staged first, for this reason.
    Stage(&'static str),
}

impl First {
    /// What cannot be used is not replaced unasked: nobody knows any more with which options it was staged.
    pub(crate) fn of(
        root: &Root,
        is_asked_for: bool,
        plan: Option<Result<&Plan<'_>, Malformed>>,
    ) -> Result<First, Error> {
        let plan = match plan {
            _ if is_asked_for => return Ok(First::Stage("it is asked for")),
            None => return Ok(First::Stage("nothing is staged")),
            Some(plan) => plan.map_err(directory::Error::Malformed)?,
        };
        if plan.preload == Preload::Only && !root.kexec_loaded() {
            return Err(Error::Unloaded(plan.entry.to_owned()));
        }
        match directory::images(plan).find(|image| !directory::is_as_staged(root, image)) {
            Some(image) => Err(Error::Changed(image.name.to_owned())),
            None => Ok(First::Use(plan.handoff)),
        }
    }
}
