//! Is this the end of a shutdown? Nothing here may ever jump out of a running system.

use nextkernel_plan::Verb;
use rustix::fs::{CWD, readlinkat_raw};
use rustix::process::{Pid, getpid};

use crate::failure::Failure;
use crate::files;
use crate::limits::{self, Budget};

/// The first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// Whether the hook is PID 1 of its namespace.
#[must_use]
pub fn is_pid_1() -> bool {
    getpid() == Pid::INIT
}

/// Whether this is known not to be the first PID namespace. Without /proc there is no telling.
#[must_use]
pub fn in_container() -> bool {
    let mut name = [const { core::mem::MaybeUninit::uninit() }; 64];
    readlinkat_raw(CWD, c"/proc/self/ns/pid", &mut name).is_ok_and(|(name, _)| name != FIRST_NAMESPACE)
}

/// Fails unless PID 1 is carrying out that very verb, or is this process.
pub fn under_way(verb: Verb) -> Result<(), Failure> {
    if in_container() {
        return Err(Failure::InContainer);
    }
    if is_pid_1() {
        return Ok(());
    }
    let mut buffer = [0; limits::PID1_MAX];
    let asked = files::open(CWD, c"/proc/1/cmdline")
        .and_then(|file| files::up_to(&file, &mut buffer))
        .is_ok_and(|cmdline| asks_for(cmdline, verb));
    if asked { Ok(()) } else { Err(Failure::NoShutdown(verb)) }
}

/// The deadlines of the init that carries it out: those of PID 1, by its name.
#[must_use]
pub fn budget() -> &'static Budget {
    let mut name = [0; 16];
    let name = files::open(CWD, c"/proc/1/comm").and_then(|file| files::up_to(file, &mut name));
    Budget::of(name.unwrap_or_default().trim_ascii())
}

/// Whether a command line is that of systemd-shutdown with that verb: systemd's PID 1 executes it
/// in its own place, and it executes /shutdown of an exitrd with the same arguments
/// (`become_shutdown`, src/core/main.c; src/shutdown/shutdown.c).
#[must_use]
pub fn asks_for(cmdline: &[u8], verb: Verb) -> bool {
    let mut words = cmdline.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default().rsplit(|byte| *byte == b'/').next();
    let shuts_down = matches!(program, Some(b"systemd-shutdown" | b"shutdown"));
    shuts_down && words.next() == Some(verb.word().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shutdown_that_was_asked_for_the_same_verb_is_one() {
        let systemd = b"/usr/lib/systemd/systemd-shutdown\0kexec\0--timeout=90000000us\0--log-level\0info\0";
        assert!(asks_for(systemd, Verb::Kexec));
        assert!(!asks_for(systemd, Verb::Reboot));
        assert!(asks_for(b"/shutdown\0reboot\0", Verb::Reboot));
        for running in
            ["/sbin/init\0", "/usr/lib/systemd/systemd\0--system\0", "kexec\0kexec\0", "", "\0kexec\0"]
        {
            assert!(!asks_for(running.as_bytes(), Verb::Kexec), "{running:?}");
        }
    }

    #[test]
    fn typed_at_a_shell_it_refuses() {
        assert!(under_way(Verb::Kexec).is_err());
    }
}
