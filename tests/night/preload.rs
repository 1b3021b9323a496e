//! Tests that an image preloaded at staging is started as it is, and is loaded again only if necessary.

use super::staged::{HOOK, handed_over, rebooted, shutdown, stage};
use bed::guest::shutdown::{Ended, Shutdown};
use bed::harness::Test;
use bed::host::programs;
use bed::machine::{End, with_last_lines};

/// Loads another image after the staged one, without nextkernel's knowledge.
const ANOTHER: &str = "mv /run/nextkernel /run/aside
nextkernel stage --kernel /kernel --initrd /next.cpio --cmdline 'console=ttyS0 other=yes' >/dev/null || echo STAGE FAILED
rm -r /run/nextkernel; mv /run/aside /run/nextkernel
";

/// Unloads the image.
const UNLOADED: &str =
    "/stuck unload-image\nread -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"\n";

/// Returns a guest in which an image can be unloaded.
fn unloading(test: &Test, scenario: &str) -> Result<Shutdown, String> {
    let mut guest = shutdown(test, "kexec", scenario)?;
    guest.file("/stuck", 0o755, programs::stuck()?);
    Ok(guest)
}

/// Proves that the other image was started instead of the staged one.
fn the_other_was_started(ended: &Ended) -> Result<(), String> {
    ended.expect(End::PoweredOff)?;
    ended.line("NEXT KERNEL UP: console=ttyS0 other=yes nextkernel.record=").map(drop)
}

fn loads_nothing(ended: &Ended) -> Result<(), String> {
    if ended.console.contains("nextkernel: load ") {
        return Err(with_last_lines("it was loaded once more", &ended.console));
    }
    Ok(())
}

pub fn what_is_preloaded_is_started_without_another_load_by_either_loader(test: &Test) -> Result<(), String> {
    for loader in ["verified", "direct"] {
        let ended = shutdown(test, "kexec", &stage(&format!("--loader {loader}")))?.run()?;
        ended.line("nextkernel: start what is loaded: /kernel, or what somebody has loaded since")?;
        loads_nothing(&ended)?;
        handed_over(&ended, "kexec")?;
    }
    Ok(())
}

pub fn what_somebody_has_loaded_since_is_what_was_asked_for_last(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("") + ANOTHER))?.run()?;
    loads_nothing(&ended)?;
    the_other_was_started(&ended)
}

pub fn where_a_unit_loads_another_image_as_the_system_goes_down_the_staged_one_replaces_it(
    test: &Test,
) -> Result<(), String> {
    // This is the ArchWiki's unit, enabled; its load is done by hand here.
    let unit = "mkdir -p /etc/systemd/system/kexec.target.wants
        echo 'ExecStart=/usr/bin/kexec -l /boot/vmlinuz-%i' >/etc/systemd/system/kexec.target.wants/kexec-load@linux.service\n";
    for option in ["", "--preload only"] {
        let ended = shutdown(test, "kexec", &[unit, &stage(option), ANOTHER].concat())?.run()?;
        ended.line("kexec-load@linux.service loads another kernel while the system goes down: the hook loads the staged")?;
        ended.line("nextkernel: load /kernel: kernel of ")?;
        handed_over(&ended, "kexec")?;
    }
    Ok(())
}

pub fn where_somebody_has_unloaded_the_image_it_is_loaded_from_its_copies(test: &Test) -> Result<(), String> {
    for loader in ["verified", "direct"] {
        let ended = unloading(test, &(stage(&format!("--loader {loader}")) + UNLOADED))?.run()?;
        ended.line("loaded: 0")?;
        ended.line("nextkernel: load /kernel: kernel of ")?;
        handed_over(&ended, "kexec")?;
    }
    Ok(())
}

pub fn what_a_killed_stage_has_left_loaded_is_not_taken_for_the_staged_image(
    test: &Test,
) -> Result<(), String> {
    let mark = "cp /run/nextkernel/plan /run/nextkernel/plan.new\n";
    let ended =
        shutdown(test, "kexec", &[&stage(""), ANOTHER, mark, "nextkernel check\n"].concat())?.run()?;
    ended.line("a `nextkernel stage` was killed half way, and what is loaded may be its image")?;
    ended.line("nextkernel: load /kernel: kernel of ")?;
    handed_over(&ended, "kexec")?;
    // Without copies nothing may start the other image, not even systemd.
    rebooted(&shutdown(test, "kexec", &[&stage("--preload only"), ANOTHER, mark].concat())?.run()?)
}

/// Prints the files of an image set in /run, except for the description of its origin.
const COPIES: &str = "echo \"copies: $(cd /run/nextkernel/*/ && ls | grep -v origin | tr '\\n' ' ')end\"\n";

pub fn where_no_copies_are_kept_the_preloaded_image_is_started_and_nothing_where_it_is_gone(
    test: &Test,
) -> Result<(), String> {
    let conf = "mkdir -p /etc; echo 'preload = only' >/etc/nextkernel.conf\n";
    let scenario =
        [conf, &stage("--loader direct"), COPIES, "nextkernel status; nextkernel check\n"].concat();
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    ended.line("copies: end")?;
    ended.line("  load            done: what is loaded is started, and no copies are kept")?;
    if ended.console.contains("CHANGED SINCE") || ended.console.contains("stage again") {
        return Err(with_last_lines("something is missed", &ended.console));
    }
    handed_over(&ended, "kexec")?;

    let gone = [&stage("--preload only"), UNLOADED, "nextkernel check\n"].concat();
    let ended = unloading(test, &gone)?.run()?;
    ended.line("somebody has unloaded its image, and `preload = only` keeps no copies: stage again")?;
    ended.line(
        "nextkernel: no handoff: the staged image is loaded no more, or by another stage since, and preload = only",
    )?;
    rebooted(&ended)
}

pub fn as_pid_1_the_hook_starts_what_is_preloaded(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "", &(stage("") + &format!("exec {HOOK} kexec")))?.run()?;
    loads_nothing(&ended)?;
    handed_over(&ended, "kexec")
}
