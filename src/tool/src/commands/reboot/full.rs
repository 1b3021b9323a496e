//! A full reboot: once through the firmware, no matter which kernel is staged.

use crate::commands::reboot::ask::{Ask, go_on_at_signals};
use crate::commands::reboot::conditions::uninhibited;
use crate::commands::reboot::error::Error;
use crate::loading::test_load;
use crate::machine::inhibitors;
use crate::machine::init::Init;
use crate::machine::root::Root;
use crate::request::firmware;
use crate::staging::directory::{self, Directory};
use crate::words::say;

/// Asks the init for a full reboot, or prints the steps. A file tells the hook that a full reboot is meant, because
/// the staged kernel may be for a plain reboot, too. The hook then unloads the loaded image. So a full reboot that
/// the init refuses changes nothing.
pub(super) fn full_reboot(root: &Root, init: &Init, dry_run: bool) -> Result<(), Error> {
    let ask = if *init == Init::Systemd { Ask::Full } else { Ask::of(root, init)? };
    if let Some(note) = uninhibited(inhibitors::find())?.filter(|_| *init == Init::Systemd) {
        say::note(note);
    }
    if dry_run {
        say::say(format_args!("leaves            {} for the hook", firmware::FULL));
        say::say(format_args!("then              {ask}, through the firmware"));
        return Ok(());
    }
    go_on_at_signals();
    Directory::open(root)?;
    let marker = root.path(firmware::FULL);
    let failed = |error| directory::Error::Io { path: firmware::FULL.into(), error };
    std::fs::write(&marker, "").map_err(failed)?;
    // systemd is told not to start a loaded image. Another init may start it, unless the hook unloads it
    // before.
    let hook_unloads = init.runs_the_hook(root) && Directory::plan_text(root)?.is_some();
    if *init != Init::Systemd && !hook_unloads && root.kexec_loaded() {
        if let Err(error) = test_load::unload(root, 0) {
            say::note(format!("{error}; {} may start the image that is loaded", init.name()));
        }
    }
    say::say("the machine restarts through the firmware now");
    ask.send().inspect_err(|_| firmware::take_back(root))
}
