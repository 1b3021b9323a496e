//! Tests handoffs from a running Debian to the next kernel, with the commands a person types.

use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::machine::End;

use super::report;

/// Starts kexec.target when nothing is loaded, as `systemctl kexec` refuses then.
pub const START_KEXEC: &str = "systemctl start --no-block --job-mode=replace-irreversibly kexec.target";

/// Writes a file at the last moment, from a process that systemd ends only after the shutdown command.
const LAST_WORDS: &str = "head -c 3000000 /dev/urandom >/root/last; sha256sum /root/last >/root/last.sum";

/// Succeeds if nothing is staged or loaded.
pub const UNSTAGED: &str = "[ ! -e /run/nextkernel/plan ] && [ \"$(cat /sys/kernel/kexec_loaded)\" = 0 ]";

pub fn boot(test: &Test) -> Result<Guest, String> {
    let mut guest = Guest::boot(&Spec::new(test))?;
    guest.ok("! command -v kexec")?;
    Ok(guest)
}

/// Waits until a condition holds, for at least a minute.
pub fn wait_until(guest: &mut Guest, condition: &str) -> Result<(), String> {
    guest.ok(&format!("for _ in $(seq 60); do {condition} && exit 0; sleep 1; done; exit 1")).map(drop)
}

/// Goes down with this command, and proves that the next kernel came by the hook's own jump, with the root clean
/// and the last file whole.
pub fn hand_over(guest: &mut Guest, command: &str, verb: &str) -> Result<(), String> {
    hand_over_by(guest, command, verb, "nextkernel: jump to ")
}

/// Does the same for a jump that is announced on the console by this text.
pub fn hand_over_by(guest: &mut Guest, command: &str, verb: &str, said: &str) -> Result<(), String> {
    let before = guest.boot.clone();
    let staged = Staged::of(guest)?;
    // The command's output, such as a refusal, goes to the console.
    guest.send(&format!("{{ {LAST_WORDS}; {command}; }} >/dev/console 2>&1"))?;
    guest.await_console(said)?;
    let after = guest.await_boot()?;
    if !after.jumped() || after.boot_id == before.boot_id {
        return Err(guest.tell(&format!("no jump: {before:?} was followed by {after:?}")));
    }
    let cmdline = guest.ok("cat /proc/cmdline")?;
    has_the_record(guest, &cmdline, &staged, verb)?;
    guest.ok("sha256sum -c /root/last.sum")?;
    // The kernel calls one of its raid6 algorithms "recovery".
    guest.ok("! dmesg | grep -v raid6 | grep -i -E 'recovery|orphan|not properly unmounted|log replay'")?;
    let status = guest.ok("nextkernel status")?;
    let at = if staged.is_preloaded { String::new() } else { format!(", at {verb}") };
    if status.contains(&format!("this kernel was started by handoff {}{at} (", staged.handoff)) {
        return Ok(());
    }
    Err(guest.tell(&format!("the status does not know its handoff:\n{status}")))
}

/// Goes down with this command, and proves that the staged kernel starts by the hook's own jump, by the command
/// line that it prints. Does not wait for the whole system, which takes as long as a boot; [`hand_over`] tests
/// that.
pub fn jump(guest: &mut Guest, command: &str, verb: &str) -> Result<(), String> {
    let staged = Staged::of(guest)?;
    guest.skip_console();
    guest.send(&format!("{{ {command}; }} >/dev/console 2>&1"))?;
    guest.await_console("nextkernel: jump to ")?;
    let told = guest.await_console(TOLD)?;
    has_the_record(guest, &told, &staged, verb)
}

/// The staged plan's handoff id, and whether its image is preloaded.
struct Staged {
    handoff: String,
    is_preloaded: bool,
}

impl Staged {
    fn of(guest: &mut Guest) -> Result<Staged, String> {
        let told = guest.ok("sed -n 's/^handoff = //p; s/^preload = //p' /run/nextkernel/plan")?;
        let (handoff, preload) = told.trim().split_once('\n').unwrap_or((told.trim(), ""));
        Ok(Staged { handoff: handoff.to_owned(), is_preloaded: preload == "yes" })
    }
}

/// Proves that the command line is the staged one, with this handoff's record at its end.
fn has_the_record(guest: &Guest, cmdline: &str, staged: &Staged, verb: &str) -> Result<(), String> {
    let handoff = &staged.handoff;
    let record = if staged.is_preloaded {
        format!("nextkernel.record={handoff}:preloaded")
    } else {
        format!("nextkernel.record={handoff}:{verb}:")
    };
    let last = cmdline.split_ascii_whitespace().last();
    if last.is_some_and(|last| last.starts_with(&record)) && !cmdline.contains("BOOT_IMAGE") {
        return Ok(());
    }
    Err(guest.tell(&format!("the next kernel was told {cmdline:?}, not {record}")))
}

/// Goes down with this command, and proves that the machine restarts through firmware.
pub fn restart(guest: &mut Guest, command: &str) -> Result<(), String> {
    guest.skip_console();
    guest.send(command)?;
    guest.await_console("reboot: Restarting system")?;
    guest.await_reset()
}

/// systemd-shutdown's message at its own jump.
pub const SYSTEMDS_JUMP: &str = "systemd-shutdown[1]: Rebooting with kexec.";

/// The start of the log line with a kernel's command line.
pub const TOLD: &str = "] Command line: ";

/// Goes down with this command, and proves that the system came back through firmware.
pub fn reboot(guest: &mut Guest, command: &str) -> Result<(), String> {
    guest.send(command)?;
    let after = guest.await_boot()?;
    if after.resets >= 1 { Ok(()) } else { Err(guest.tell(&format!("no reboot: {after:?}"))) }
}

pub fn kexec_jumps_with_the_image_kept_and_with_nothing_loaded(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    // From version 261 on, systemd would load a boot loader's entry itself, but only on a machine started by
    // UEFI (`load_kexec_kernel`, src/systemctl/systemctl-start-special.c).
    let refused = guest.run("systemctl kexec")?;
    if refused.status == 0 {
        return Err(guest.tell("systemctl kexec is accepted with nothing staged"));
    }
    guest.ok("nextkernel stage")?;
    guest.ok("[ \"$(cat /sys/kernel/kexec_loaded)\" = 1 ]")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;

    guest.ok("nextkernel stage --preload no")?;
    guest.ok("[ \"$(cat /sys/kernel/kexec_loaded)\" = 0 ] && ! systemctl kexec")?;
    jump(&mut guest, START_KEXEC, "kexec")
}

pub fn reboot_jumps_or_reboots_as_the_plan_says(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    report::begins(&mut guest)?;
    guest.ok("nextkernel stage --loader direct --preload no --on reboot")?;
    hand_over(&mut guest, "systemctl reboot", "reboot")?;
    report::tells_the_handoff(&mut guest, 2, "reboot", false)?;

    guest.ok("nextkernel stage --preload no")?;
    reboot(&mut guest, "systemctl reboot")?;
    report::tells_the_restart(&mut guest, 3)?;

    // While an image is loaded, the command `reboot` is a kexec with every version of systemd.
    guest.ok("nextkernel stage")?;
    hand_over(&mut guest, "reboot", "kexec")?;
    report::tells_the_handoff(&mut guest, 4, "kexec", true)
}

/// Proves that this command still ends the machine this way, with everything staged that can be.
pub fn untouched(guest: &mut Guest, command: &str, end: End) -> Result<(), String> {
    guest.ok("nextkernel stage --on kexec --on reboot")?;
    guest.send(command)?;
    let ended = guest.await_off()?;
    if ended == end { Ok(()) } else { Err(guest.tell(&format!("{command}: {ended:?}"))) }
}

pub fn a_root_that_is_still_written_to_is_jumped_from_by_nobody(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    // This holds for any failure of the handoff: systemd would jump to a preloaded image by itself.
    let writable = "nextkernel: no handoff: / (ext4) is still mounted writable";
    let spoiled = "nextkernel: no handoff: the kernel in /run/nextkernel is not the one that was staged";
    for (day, reason) in [
        ("nextkernel stage", writable),
        (
            "nextkernel stage; sed -i 's/^preload = yes$/preload = again/' /run/nextkernel/plan
             truncate -s 1000 /run/nextkernel/*/kernel",
            spoiled,
        ),
    ] {
        guest.ok(day)?;
        // systemd spares a process of root whose name begins with '@' (systemd.io, ROOT_STORAGE_DAEMONS); a file
        // system on which it holds a file open for writing cannot be remounted read-only.
        guest.ok("systemd-run -q --unit=holder -p DefaultDependencies=no \
                  bash -c 'exec 3>/root/held && exec -a @holder sleep 3600'")?;
        guest.send("systemctl kexec")?;
        guest.await_console(reason)?;
        guest.await_console(
            "nextkernel: kexec is left to the init: it restarts the machine through firmware",
        )?;
        let after = guest.await_boot()?;
        if after.jumped() {
            return Err(guest.tell(&format!("it was jumped from, after {day:?}: {after:?}")));
        }
    }
    Ok(())
}

/// Proves that a command is refused with these words.
pub fn refused(guest: &mut Guest, command: &str, words: &str) -> Result<(), String> {
    let ran = guest.run(&format!("{command} 2>&1"))?;
    if ran.status == 1 && ran.output.contains(words) {
        return Ok(());
    }
    Err(guest.tell(&format!("{command}: exit status {}, and not {words:?}:\n{}", ran.status, ran.output)))
}
