//! Whether the staged set can be used as it is.

use nextkernel_plan::{HandoffId, Malformed, Plan, Preload};
use thiserror::Error;

use crate::machine::root::Root;
use crate::staging::directory;

/// The reason why the staged image cannot be used. It is not replaced without a request.
#[derive(Debug, Error)]
pub enum Error {
    /// An image file was changed or replaced.
    #[error(
        "/run/nextkernel/{0} has changed since it was staged; stage again, with the options of that time, or take it \
         back (`nextkernel unstage`)"
    )]
    Changed(String),
    /// The image was unloaded, and there are no copies.
    #[error(
        "{0} is loaded no more, and `preload = only` keeps no copies of it; stage again, with the options of that time, or \
         take it back (`nextkernel unstage`)"
    )]
    Unloaded(String),
    /// The plan cannot be read.
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

/// The first step of a reboot: use the staged image, or stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Use the staged image: this handoff, and not one that somebody stages meanwhile.
    Use(HandoffId),
    /// Stage first, for this reason.
    Stage(&'static str),
}

impl First {
    /// Decides between the two. A staged image that cannot be used is an error. It is not replaced without a
    /// request, because the options that it was staged with are no longer known.
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
