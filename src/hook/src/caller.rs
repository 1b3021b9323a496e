//! Finds out which program has called the hook, and whether this is the end of a shutdown. The hook must
//! never jump out of a running system.

use core::ffi::CStr;

use nextkernel_plan::Verb;
use rustix::fs::{CWD, readlinkat_raw};
use rustix::process::{Pid, getpid};

use crate::bounds::failure::Failure;
use crate::scene::processes;
use crate::sys::files;
use crate::sys::limits::{self, Budget};
use crate::sys::name::Name;
use crate::sys::text::Text;

/// The target of `/proc/self/ns/pid` in the first PID namespace (`PROC_PID_INIT_INO`,
/// `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// The program that has called the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// None: the hook is PID 1 itself.
    Nobody,
    /// systemd-shutdown, on the root file system.
    Systemd,
    /// systemd-shutdown as /shutdown of an exitrd: the root is gone.
    Exitrd,
    /// dracut's script as /shutdown of an exitrd.
    Script,
    /// Another init, which shows that it is carrying out a restart.
    Init,
    /// Another init, which does not show whether it is shutting down. Only a handoff that `nextkernel reboot`
    /// has armed can tell.
    Untold,
}

/// The sign by which an init other than systemd shows that it is carrying out a restart. Files that an init
/// leaves behind are no such sign, because they may be old.
enum Sign {
    /// The command line of PID 1 contains this.
    PidOne(&'static [u8]),
    /// The command line of PID 1's own child contains this. That child has called the hook, directly or
    /// through others.
    Child(&'static [u8]),
    /// The command line of any process between PID 1 and the hook contains this.
    Ancestor(&'static [u8]),
}

/// The arguments of dinit's PID 1 at a restart. The name of its program may have a prefix.
const DINIT: &[u8] = b"\0--system\0-r\0";

/// The inits, by the program that PID 1 runs, because the name of its process is mostly `init`. Each sign was
/// measured, or read in the sources (units/README.md).
const INITS: [(&[u8], Sign); 8] = [
    // sysvinit shows the runlevel (`setproctitle`, src/init.c): 6 is a reboot.
    (b"init", Sign::PidOne(b"init [6]")),
    // `do_openrc`, src/openrc-init/openrc-init.c.
    (b"openrc-init", Sign::Child(b"openrc\0reboot\0")),
    (b"runit", Sign::Child(b"/etc/runit/3\0")),
    // The command that follows the script (`prepare_stage4`, src/init/s6-linux-init-shutdownd.c).
    (b"s6-svscan", Sign::Ancestor(b"s6-linux-init-hpr\0-f\0-r\0")),
    // dinit's PID 1 becomes this program (src/dinit.cc). A prefix distinguishes it from the program of
    // another init.
    (b"shutdown", Sign::PidOne(DINIT)),
    (b"dinit-shutdown", Sign::PidOne(DINIT)),
    (b"finit", Sign::Ancestor(b"/hook/sys/down/")),
    // Relative to nitro's directory of services (`exec1`, nitro.c).
    (b"nitro", Sign::Child(b"SYS/final\0reboot\0")),
];

impl Caller {
    /// Finds out which program has called the hook with the verb `told`. Fails in a container, and under a
    /// systemd that is not shutting down with this verb.
    pub fn find(told: Option<Verb>, is_pid_1: bool) -> Result<Caller, Failure> {
        if in_container() {
            return Err(Failure::InContainer);
        }
        if is_pid_1 {
            return Ok(Caller::Nobody);
        }
        let mut line = [0; limits::CMDLINE_MAX];
        let line = read(c"/proc/1/cmdline", &mut line);
        if let Some((caller, _)) = of_systemd(line).filter(|(_, verb)| told == Some(*verb)) {
            return Ok(caller);
        }
        let program = program();
        if program.as_bytes().starts_with(b"systemd") {
            return Err(Failure::NoShutdown(told.unwrap_or(Verb::Kexec)));
        }
        let sign = INITS.iter().find(|(init, _)| *init == program.as_bytes());
        let shows = match sign {
            Some((_, Sign::PidOne(words))) => says(line, words),
            Some((_, Sign::Child(words))) => an_ancestor_says(words, true),
            Some((_, Sign::Ancestor(words))) => an_ancestor_says(words, false),
            None => false,
        };
        Ok(if shows { Caller::Init } else { Caller::Untold })
    }

    /// Whether this caller distinguishes kexec from reboot.
    #[must_use]
    pub fn tells_kexec(self) -> bool {
        !matches!(self, Caller::Init | Caller::Untold)
    }

    /// Whether this is an init that jumps to a loaded image by itself at `kexec`.
    #[must_use]
    pub fn jumps(self) -> bool {
        matches!(self, Caller::Systemd | Caller::Exitrd)
    }

    /// Whether processes may be left running, and file systems writable. systemd and the exitrds have seen to
    /// both, and so has the hook as PID 1, at its start.
    #[must_use]
    pub fn leaves_work(self) -> bool {
        matches!(self, Caller::Init | Caller::Untold)
    }

    /// Returns the deadlines under this caller.
    #[must_use]
    pub fn budget(self) -> &'static Budget {
        match self {
            Caller::Nobody => &limits::PATIENT,
            Caller::Init | Caller::Untold => Budget::of(program().as_bytes()),
            _ => &limits::SYSTEMD,
        }
    }
}

fn read<'b>(path: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    files::open(CWD, path).and_then(|file| files::up_to(&file, buffer)).unwrap_or_default()
}

fn says(line: &[u8], words: &[u8]) -> bool {
    line.windows(words.len()).any(|window| window == words)
}

/// Returns the file name of the program that PID 1 runs, without the ` (deleted)` that follows it after an
/// update (`proc_pid_exe(5)`).
fn program() -> Name<16> {
    let name: Name<32> = files::link(CWD, c"/proc/1/exe").unwrap_or(Name::cut(b""));
    Name::cut(name.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default())
}

/// Whether the command line of a process between PID 1 and this one contains `words`. With `child_alone` only
/// PID 1's own child is looked at.
fn an_ancestor_says(words: &[u8], child_alone: bool) -> bool {
    let says_it = |id: Pid| {
        let path = Text::<32>::of(format_args!("/proc/{}/cmdline", id.as_raw_nonzero()));
        let mut line = [0; limits::CMDLINE_MAX];
        path.as_c_str().is_some_and(|path| says(read(path, &mut line), words))
    };
    let mut above = processes::ancestors(processes::parent_of(getpid()));
    if child_alone {
        above.find(|id| processes::parent_of(*id) == Some(Pid::INIT)).is_some_and(says_it)
    } else {
        above.any(says_it)
    }
}

/// Returns the caller at the end of a shutdown, as far as it can be known while the system runs.
#[must_use]
pub fn who_would_call() -> Caller {
    if program().as_bytes().starts_with(b"systemd") { Caller::Systemd } else { Caller::Init }
}

/// Whether the hook is PID 1 of its namespace.
#[must_use]
pub fn is_pid_1() -> bool {
    getpid() == Pid::INIT
}

/// Whether this is known not to be the first PID namespace. Without /proc it is not known.
#[must_use]
pub fn in_container() -> bool {
    let mut name = [const { core::mem::MaybeUninit::uninit() }; 64];
    readlinkat_raw(CWD, c"/proc/self/ns/pid", &mut name).is_ok_and(|(name, _)| name != FIRST_NAMESPACE)
}

/// Returns the verb of a shutdown under systemd, from PID 1's command line. systemd 262 passes an empty word
/// to its hooks: the verb lies in its own arguments, and the process that it forks to run the hooks
/// overwrites those with its name (`rename_process_full`, src/basic/argv-util.c).
#[must_use]
pub fn verb_of_systemd() -> Option<Verb> {
    let mut line = [0; limits::CMDLINE_MAX];
    of_systemd(read(c"/proc/1/cmdline", &mut line)).map(|(_, verb)| verb)
}

/// Returns the caller and the verb if a command line is that of a shutdown under systemd. systemd's PID 1
/// executes systemd-shutdown in its own place, and systemd-shutdown executes /shutdown of an exitrd with the
/// same arguments (`become_shutdown`, src/core/main.c; src/shutdown/shutdown.c). dracut's /shutdown is a
/// script: the kernel puts its interpreter before it (`load_script`, `fs/binfmt_script.c`).
#[must_use]
pub fn of_systemd(line: &[u8]) -> Option<(Caller, Verb)> {
    let mut words = line.split(|byte| *byte == 0);
    let is = |path: &[u8], name: &[u8]| path.rsplit(|byte| *byte == b'/').next() == Some(name);
    let program = words.next()?;
    let caller = if is(program, b"systemd-shutdown") {
        Caller::Systemd
    } else if is(program, b"shutdown") {
        Caller::Exitrd
    } else if is(words.next()?, b"shutdown") {
        Caller::Script
    } else {
        return None;
    };
    Some((caller, Verb::from_word(words.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shutdown_that_was_asked_for_a_verb_is_one() {
        let on_the_host =
            b"/usr/lib/systemd/systemd-shutdown\0kexec\0--timeout=90000000us\0--log-level\0info\0";
        assert_eq!(of_systemd(on_the_host), Some((Caller::Systemd, Verb::Kexec)));
        assert_eq!(of_systemd(b"/shutdown\0reboot\0"), Some((Caller::Exitrd, Verb::Reboot)));
        let script = b"/bin/sh\0/shutdown\0poweroff\0--timeout\0";
        assert_eq!(of_systemd(script), Some((Caller::Script, Verb::Poweroff)));
        for running in [
            "/sbin/init\0",
            "/usr/lib/systemd/systemd\0--system\0",
            "kexec\0kexec\0",
            "",
            "\0kexec\0",
            "/sbin/shutdown\0--system\0-r\0",
            "/usr/lib/systemd/systemd-shutdown\0\0",
        ] {
            assert_eq!(of_systemd(running.as_bytes()), None, "{running:?}");
        }
    }

    #[test]
    fn typed_at_a_shell_it_is_no_shutdown() {
        assert!(!matches!(
            Caller::find(Some(Verb::Kexec), false),
            Ok(Caller::Systemd | Caller::Exitrd | Caller::Script | Caller::Init)
        ));
        assert!(!an_ancestor_says(b"/etc/runit/3\0", true));
    }
}
