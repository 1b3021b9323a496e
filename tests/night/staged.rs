//! Guests with the product installed and a kernel staged.

use bed::guest::shutdown::{Ended, Shutdown};
use bed::harness::Test;
use bed::host::paths::installed;
use bed::initramfs;
use bed::machine::End;

/// Path of the hook, where systemd-shutdown runs it.
pub const HOOK: &str = "/usr/lib/systemd/system-shutdown/nextkernel";

/// The next kernel's command line; the quotes must reach that kernel.
pub const CMDLINE: &str = "console=ttyS0 staged=yes dyndbg=\"file nothing.c +p\"";

/// Returns the shell line that stages a kernel while the system runs, with these options.
pub fn stage(options: &str) -> String {
    format!(
        "nextkernel stage --kernel /kernel --initrd /next.cpio --cmdline '{CMDLINE}' {options} || echo STAGE FAILED\n"
    )
}

/// Returns a shell line that adds this line to the plan.
pub fn plan(line: &str) -> String {
    format!("sed -i '$i {line}' /run/nextkernel/plan\n")
}

/// Makes the hook load the staged image again even if an image is loaded, as it does if another image may be
/// loaded while the system goes down.
pub const AGAIN: &str = "sed -i 's/^preload = yes$/preload = again/' /run/nextkernel/plan\n";

/// Returns a guest with both programs that runs these shell lines before it shuts down.
pub fn shutdown(test: &Test, verb: &str, scenario: &str) -> Result<Shutdown, String> {
    let installed = installed();
    let mut guest = Shutdown::new(test, verb);
    guest.host_file(HOOK, 0o755, &installed.join(HOOK.trim_start_matches('/')))?;
    guest.host_file("/usr/bin/nextkernel", 0o755, &installed.join("usr/bin/nextkernel"))?;
    scenario.clone_into(&mut guest.scenario);
    Ok(guest)
}

/// Proves that the hook started the next kernel: the initrd is whole, and the record follows the staged command
/// line. The record is that of the hook's own load or of the preloaded image.
pub fn handed_over(ended: &Ended, verb: &str) -> Result<(), String> {
    ended.expect(End::PoweredOff)?;
    ended.handed(&initramfs::next()?)?;
    let line = ended.line("NEXT KERNEL UP: ")?;
    let told = line.split("NEXT KERNEL UP: ").nth(1).unwrap_or_default();
    let record = told.strip_prefix(CMDLINE).map(str::trim).unwrap_or_default();
    let record = record.strip_prefix("nextkernel.record=").unwrap_or_default();
    let mut fields = record.split(':');
    let (id, told_verb, times) = (fields.next().unwrap_or_default(), fields.next(), fields.count());
    let jumped = ended.console.contains(JUMPS) || ended.console.contains(LEAVES);
    match told_verb {
        Some("preloaded") if id.len() == 16 && times == 0 && jumped => Ok(()),
        Some(told_verb) if id.len() == 16 && told_verb == verb && times >= 3 => Ok(()),
        _ => Err(format!("the next kernel was told {told:?}")),
    }
}

/// The hook's message before its own jump, and the one when it leaves the jump to the init.
const JUMPS: &str = "nextkernel: jump to";
const LEAVES: &str = "nextkernel: leave the jump to the init";

/// Proves that systemd itself jumped to the preloaded image.
pub fn systemd_jumped_itself(ended: &Ended) -> Result<(), String> {
    ended.expect(End::PoweredOff)?;
    ended.handed(&initramfs::next()?)?;
    let line = ended.line("NEXT KERNEL UP: ")?;
    if line.contains("staged=yes")
        && line.trim_end().ends_with(":preloaded")
        && !ended.console.contains(JUMPS)
    {
        return Ok(());
    }
    Err(format!("the next kernel says {line:?}"))
}

/// Proves that the machine restarted through firmware, and no next kernel came.
pub fn rebooted(ended: &Ended) -> Result<(), String> {
    ended.expect(End::Reset)?;
    if ended.console.contains("NEXT KERNEL UP") {
        return Err("a next kernel came up before the reset".into());
    }
    Ok(())
}

/// Proves that the console shows these texts, one after the other.
pub fn in_order(ended: &Ended, lines: &[&str]) -> Result<(), String> {
    let mut from = 0;
    for line in lines {
        let rest = ended.console.get(from..).unwrap_or_default();
        let at = rest.find(line).ok_or_else(|| format!("{line:?} is missing or late:\n{}", ended.console))?;
        from += at + line.len();
    }
    Ok(())
}
