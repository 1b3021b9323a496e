//! The unstage command: withdraws a staged kernel.

use clap::Args;
use nextkernel_plan::{HandoffId, Plan};
use thiserror::Error;

use crate::loading::test_load;
use crate::machine::root::Root;
use crate::machine::{armed, systemd};
use crate::request::firmware;
use crate::staging::directory::{self, Folder};
use crate::staging::origin::Origin;
use crate::words::say;

/// Take back what is staged, and unload what was preloaded
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// Only if this entry is the one that is staged
    pub entry: Option<String>,
    /// Only if what is staged follows the boot loader (`nextkernel stage --follow`)
    #[arg(long, conflicts_with = "entry")]
    pub follow: bool,
    /// Only if this very handoff is staged: another may have been, by the same name.
    #[arg(skip)]
    pub handoff: Option<HandoffId>,
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
        error: test_load::Error,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] directory::Error),
}

/// Takes it back, and says so.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    say::say(unstage(root, wish, || test_load::unload(root, 0))?);
    Ok(())
}

/// Takes it back, and says nothing.
pub fn quietly(root: &Root, wish: &Wish) -> Result<(), Error> {
    unstage(root, wish, || test_load::unload(root, 0)).map(drop)
}

/// Unloads first, for a plan that is gone would leave an image loaded that a plain reboot jumps into.
pub(crate) fn unstage(
    root: &Root,
    wish: &Wish,
    unload: impl Fn() -> Result<(), test_load::Error>,
) -> Result<String, Error> {
    let unload = || unload().map_err(|error| Error::StillLoaded { error });
    let folder = Folder::open(root)?;
    let Some(text) = Folder::plan_text(root)? else {
        let interrupted = folder.was_interrupted() && root.kexec_loaded();
        if interrupted {
            unload()?;
        }
        armed::disarm(root);
        firmware::take_back(root);
        folder.sweep(None);
        folder.withdraw();
        folder.forget();
        let unloaded =
            if interrupted { "the image that an interrupted stage left loaded is unloaded\n" } else { "" };
        return Ok(format!("{unloaded}nothing is staged"));
    };
    let plan = Plan::parse(&text);
    let staged = plan.as_ref().map(|plan| plan.entry);
    if let (Some(wanted), Ok(plan)) = (wish.handoff, &plan) {
        if wanted != plan.handoff {
            return Ok(format!("{} was staged meanwhile: nothing done", plan.entry));
        }
    }
    if let (Some(wanted), Ok(staged)) = (wish.entry.as_deref().map(systemd::unescape), staged) {
        // The user may have staged by version, which selected the boot loader's entry for it.
        let known = Origin::staged(root);
        let requested = known.as_ref().and_then(|known| known.origin.request.target.entry());
        if wanted != staged && requested.is_none_or(|requested| systemd::unescape(requested) != wanted) {
            return Ok(format!("{staged} is staged, not {wanted}: nothing done"));
        }
    }
    let follows = || Origin::staged(root).is_some_and(|staged| staged.origin.request.follow);
    if wish.follow && !follows() {
        return Ok("what is staged follows no boot loader: nothing done".to_owned());
    }
    // If the plan is unreadable, we cannot know whether its image was preloaded; and an interrupted stage may
    // have loaded one, whatever the plan says.
    let preloaded = plan.as_ref().map_or(true, |plan| plan.preload.stays_loaded());
    if (preloaded || folder.was_interrupted()) && root.kexec_loaded() {
        unload()?;
    }
    armed::disarm(root);
    firmware::take_back(root);
    folder.clear()?;
    Ok(format!("{} is no longer staged", staged.unwrap_or("what could not be read")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::cell::Cell;

    const PLAN: &str = "\
nextkernel-plan 2
handoff = 0000000000000007
entry = 6.12
staged-at = 1
on = kexec
preload = no
kernel = 0000000000000007/kernel size=1 inode=1 changed=1.000000001
cmdline = root=x
end
";

    /// Whether it unloads, and what it says.
    fn unstaged(scratch: &Scratch) -> (bool, String) {
        let unloaded = Cell::new(false);
        let unload = || {
            unloaded.set(true);
            Ok(())
        };
        let said = unstage(&scratch.root, &Wish::default(), unload).unwrap();
        let left = std::fs::read_dir(scratch.root.path("/run/nextkernel")).unwrap().count();
        assert_eq!(left, 1, "the lock alone");
        (unloaded.get(), said)
    }

    #[test]
    fn what_was_kept_or_may_have_been_left_by_an_interrupted_stage_is_unloaded() {
        let scratch = Scratch::new();
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        for (plan, interrupted, unloads) in [
            (PLAN.to_owned(), false, false),
            (PLAN.to_owned(), true, true),
            (PLAN.replace("preload = no", "preload = yes"), false, true),
            ("what nobody can read".to_owned(), false, true),
        ] {
            scratch.put("/run/nextkernel/plan", &plan);
            scratch.put("/run/nextkernel/armed", "");
            if interrupted {
                scratch.put("/run/nextkernel/plan.new", "");
            }
            let (unloaded, said) = unstaged(&scratch);
            assert!(unloaded == unloads && said.ends_with("is no longer staged"), "{plan}: {said}");
        }
    }

    #[test]
    fn what_was_staged_by_a_version_is_unstaged_by_that_or_by_the_entry_that_it_meant() {
        for (asked, goes) in [("6.1", true), ("6.12", true), ("6.3", false)] {
            let scratch = Scratch::new();
            scratch.put("/run/nextkernel/plan", PLAN);
            let origin = r#"{"request":{"target":{"Entry":"6.1"}},"directory":"/","kernel":{"path":"/k","size":1,"times":[[0,0],[0,0]]},
                "initrds":[],"menu":null,"aside":false}"#;
            scratch.put("/run/nextkernel/0000000000000007/origin", origin);
            let wish = Wish { entry: Some(asked.to_owned()), ..Wish::default() };
            let said = unstage(&scratch.root, &wish, || Ok(())).unwrap();
            assert_eq!(said.ends_with("is no longer staged"), goes, "{asked}: {said}");
        }
    }

    #[test]
    fn what_was_staged_meanwhile_stays_whatever_it_is_called() {
        let scratch = Scratch::new();
        scratch.put("/run/nextkernel/plan", PLAN);
        let unstage = |handoff| {
            let wish = Wish { handoff: Some(HandoffId(handoff)), ..Wish::default() };
            unstage(&scratch.root, &wish, || Ok(())).unwrap()
        };
        assert_eq!(unstage(8), "6.12 was staged meanwhile: nothing done");
        assert_eq!(unstage(7), "6.12 is no longer staged");
    }

    #[test]
    fn with_no_plan_an_image_is_unloaded_where_a_stage_left_it_and_somebody_elses_stays() {
        let scratch = Scratch::new();
        scratch.put("/sys/kernel/kexec_loaded", "1\n");
        assert_eq!(unstaged(&scratch), (false, "nothing is staged".to_owned()));
        scratch.put("/run/nextkernel/plan.new", "");
        let (unloaded, said) = unstaged(&scratch);
        assert!(unloaded && said.ends_with("is unloaded\nnothing is staged"), "{said}");
        scratch.put("/run/nextkernel/plan.new", "");
        scratch.put("/sys/kernel/kexec_loaded", "0\n");
        assert_eq!(unstaged(&scratch), (false, "nothing is staged".to_owned()));
    }
}
