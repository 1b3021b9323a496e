//! Unstaging: withdraws the staged plan with its images, and unloads an image that was preloaded.

use nextkernel_plan::{HandoffId, Plan};
use thiserror::Error;

use crate::loading::test_load;
use crate::machine::root::Root;
use crate::machine::{armed, systemd};
use crate::request::firmware;
use crate::staging::directory::{self, Directory};
use crate::staging::origin::Origin;

/// The condition under which the staged kernel is unstaged. Without any field it always is.
#[derive(Debug, Default)]
pub struct Condition {
    /// The staged kernel is this entry.
    pub entry: Option<String>,
    /// The staged kernel follows the boot loader.
    pub follow: bool,
    /// The staged handoff has this id. Another handoff of the same entry may have been staged since.
    pub handoff: Option<HandoffId>,
}

/// A reason why the kernel is still staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The image stays loaded. Without its plan the hook would not know of it.
    #[error("{error}; it is still staged")]
    StillLoaded {
        /// The kernel's error on unloading.
        error: test_load::Error,
    },
    /// /run/nextkernel cannot be used.
    #[error(transparent)]
    Directory(#[from] directory::Error),
}

/// Unstages the kernel that is staged, if the condition holds. Returns a message for the user.
pub fn unstage(root: &Root, condition: &Condition) -> Result<String, Error> {
    unstage_with(root, condition, || test_load::unload(root, 0))
}

/// Unstages, with `unload` to unload the image. That comes first: a plain reboot would jump into an image whose
/// plan is gone.
pub(crate) fn unstage_with(
    root: &Root,
    condition: &Condition,
    unload: impl Fn() -> Result<(), test_load::Error>,
) -> Result<String, Error> {
    let unload = || unload().map_err(|error| Error::StillLoaded { error });
    let directory = Directory::open(root)?;
    let Some(text) = Directory::plan_text(root)? else {
        let interrupted = directory.was_interrupted() && root.kexec_loaded();
        if interrupted {
            unload()?;
        }
        armed::disarm(root);
        firmware::take_back(root);
        directory.sweep(None);
        directory.withdraw();
        directory.forget();
        let unloaded =
            if interrupted { "the image that an interrupted stage left loaded is unloaded\n" } else { "" };
        return Ok(format!("{unloaded}nothing is staged"));
    };
    let plan = Plan::parse(&text);
    let staged = plan.as_ref().map(|plan| plan.entry);
    if let (Some(wanted), Ok(plan)) = (condition.handoff, &plan) {
        if wanted != plan.handoff {
            return Ok(format!("{} was staged meanwhile: nothing done", plan.entry));
        }
    }
    if let (Some(wanted), Ok(staged)) = (condition.entry.as_deref().map(systemd::unescape), staged) {
        // The user may have staged by version, which selected the boot loader's entry for it.
        let known = Origin::staged(root);
        let requested = known.as_ref().and_then(|known| known.origin.request.target.entry());
        if wanted != staged && requested.is_none_or(|requested| systemd::unescape(requested) != wanted) {
            return Ok(format!("{staged} is staged, not {wanted}: nothing done"));
        }
    }
    let follows = || Origin::staged(root).is_some_and(|staged| staged.origin.request.follow);
    if condition.follow && !follows() {
        return Ok("what is staged follows no boot loader: nothing done".to_owned());
    }
    // If the plan is unreadable, we cannot know whether its image was preloaded; and an interrupted stage may
    // have loaded one, whatever the plan says.
    let preloaded = plan.as_ref().map_or(true, |plan| plan.preload.stays_loaded());
    if (preloaded || directory.was_interrupted()) && root.kexec_loaded() {
        unload()?;
    }
    armed::disarm(root);
    firmware::take_back(root);
    directory.clear()?;
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

    /// Unstages, and returns whether the image was unloaded, and the message.
    fn unstaged(scratch: &Scratch) -> (bool, String) {
        let unloaded = Cell::new(false);
        let unload = || {
            unloaded.set(true);
            Ok(())
        };
        let said = unstage_with(&scratch.root, &Condition::default(), unload).unwrap();
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
            let condition = Condition { entry: Some(asked.to_owned()), ..Condition::default() };
            let said = unstage_with(&scratch.root, &condition, || Ok(())).unwrap();
            assert_eq!(said.ends_with("is no longer staged"), goes, "{asked}: {said}");
        }
    }

    #[test]
    fn what_was_staged_meanwhile_stays_whatever_it_is_called() {
        let scratch = Scratch::new();
        scratch.put("/run/nextkernel/plan", PLAN);
        let unstage = |handoff| {
            let condition = Condition { handoff: Some(HandoffId(handoff)), ..Condition::default() };
            unstage_with(&scratch.root, &condition, || Ok(())).unwrap()
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
