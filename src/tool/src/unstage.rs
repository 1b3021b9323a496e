//! Taking back what was staged.

use clap::Args;
use nextkernel_plan::{Hold, Plan};
use thiserror::Error;

use crate::folder::{self, Folder};
use crate::root::Root;
use crate::{facts, rehearse, systemd};

/// Take back what is staged, and unload what was kept loaded
#[derive(Args, Debug)]
pub struct Wish {
    /// Only if this entry is the one that is staged
    entry: Option<String>,
}

/// Why it is still staged.
#[derive(Debug, Error)]
pub enum Error {
    /// Not root.
    #[error("/run/nextkernel belongs to root; run this with sudo")]
    NotRoot,
    /// The image stays loaded: without its plan, nobody would know of it at night.
    #[error("{error}; it is still staged")]
    StillLoaded {
        /// What the kernel has against unloading it.
        error: rehearse::Error,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
}

/// Unloads first, for a plan that is gone would leave an image loaded that a plain reboot jumps into.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let folder = Folder::open(root)?;
    let Some(text) = Folder::plan_text(root)? else {
        if folder.was_interrupted() && root.kexec_loaded() {
            rehearse::unload(root, 0).map_err(|error| Error::StillLoaded { error })?;
            facts::say("the image that an interrupted stage left loaded is unloaded");
        }
        folder.sweep(None);
        facts::say("nothing is staged");
        return Ok(());
    };
    let plan = Plan::parse(&text);
    let staged = plan.as_ref().map(|plan| plan.entry);
    if let (Some(wanted), Ok(staged)) = (wish.entry.as_deref().map(systemd::unescape), staged) {
        if wanted != staged {
            facts::say(format_args!("{staged} is staged, not {wanted}: nothing done"));
            return Ok(());
        }
    }
    // Of a plan that cannot be read nobody knows whether it kept its image loaded.
    let kept = plan.as_ref().map_or(true, |plan| plan.hold == Hold::Kept);
    if kept && root.kexec_loaded() {
        rehearse::unload(root, 0).map_err(|error| Error::StillLoaded { error })?;
    }
    folder.clear()?;
    facts::say(format_args!("{} is no longer staged", staged.unwrap_or("what could not be read")));
    Ok(())
}
