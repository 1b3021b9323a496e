//! Who calls, and is this the end of a shutdown? Nothing here may ever jump out of a running system.

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

/// The first PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// Who calls the hook at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody: it is PID 1 itself.
    Nobody,
    /// systemd-shutdown, on the root file system.
    Systemd,
    /// systemd-shutdown again, as /shutdown of an exitrd: the root is gone.
    Exitrd,
    /// dracut's script of that name.
    Script,
    /// Another init, which is seen to carry out a shutdown.
    Init,
    /// Another init, which may be: only what `nextkernel reboot` has armed can tell.
    Untold,
}

/// How an init other than systemd is seen to carry out a restart. Files that it leaves behind are no sign of one:
/// they may be old.
enum Sign {
    /// PID 1's own command line holds this.
    PidOne(&'static [u8]),
    /// That of PID 1's own child does, which has called the hook, or what did.
    Child(&'static [u8]),
    /// That of any process between PID 1 and the hook does.
    Ancestor(&'static [u8]),
}

/// dinit's PID 1 at a restart, whatever the prefix of its programs.
const DINIT: &[u8] = b"\0--system\0-r\0";

/// The inits by the program that PID 1 runs: its name is mostly `init`. Each is measured or read (units/README.md).
const INITS: [(&[u8], Sign); 8] = [
    // sysvinit shows the runlevel (`setproctitle`, src/init.c): 6 is a reboot.
    (b"init", Sign::PidOne(b"init [6]")),
    // `do_openrc`, src/openrc-init/openrc-init.c.
    (b"openrc-init", Sign::Child(b"openrc\0reboot\0")),
    (b"runit", Sign::Child(b"/etc/runit/3\0")),
    // What follows the script (`prepare_stage4`, src/init/s6-linux-init-shutdownd.c).
    (b"s6-svscan", Sign::Ancestor(b"s6-linux-init-hpr\0-f\0-r\0")),
    // dinit's PID 1 becomes this program (src/dinit.cc); a prefix keeps it apart from another init's.
    (b"shutdown", Sign::PidOne(DINIT)),
    (b"dinit-shutdown", Sign::PidOne(DINIT)),
    (b"finit", Sign::Ancestor(b"/hook/sys/down/")),
    // Relative to its folder of services (`exec1`, nitro.c).
    (b"nitro", Sign::Child(b"SYS/final\0reboot\0")),
];

impl Caller {
    /// Finds out who calls with this verb. Fails where that is no shutdown.
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

    /// Whether it tells a kexec from a reboot.
    #[must_use]
    pub fn tells_kexec(self) -> bool {
        !matches!(self, Caller::Init | Caller::Untold)
    }

    /// Whether it is an init that jumps to a loaded image by itself at `kexec`.
    #[must_use]
    pub fn jumps(self) -> bool {
        matches!(self, Caller::Systemd | Caller::Exitrd)
    }

    /// Whether processes and file systems may be left that nobody has seen to. systemd and the exitrds have, and
    /// PID 1 at its begin.
    #[must_use]
    pub fn leaves_work(self) -> bool {
        matches!(self, Caller::Init | Caller::Untold)
    }

    /// The deadlines that it sets.
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

/// The last part of the path of what PID 1 runs. Behind it stands ` (deleted)` after an update (`proc_pid_exe(5)`).
fn program() -> Name<16> {
    let name: Name<32> = files::link(CWD, c"/proc/1/exe").unwrap_or(Name::cut(b""));
    Name::cut(name.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default())
}

/// Whether a process between PID 1 and this one has these words on its command line; or PID 1's child alone.
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

/// Who would call at the end, by day.
#[must_use]
pub fn who_would_call() -> Caller {
    if program().as_bytes().starts_with(b"systemd") { Caller::Systemd } else { Caller::Init }
}

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

/// The verb of a shutdown under systemd, by PID 1's command line. systemd 262 hands its hooks an empty word: the verb
/// lies in its own arguments, and what is forked to run the hooks overwrites those with its name
/// (`rename_process_full`, src/basic/argv-util.c).
#[must_use]
pub fn verb_of_systemd() -> Option<Verb> {
    let mut line = [0; limits::CMDLINE_MAX];
    of_systemd(read(c"/proc/1/cmdline", &mut line)).map(|(_, verb)| verb)
}

/// Whether a command line is that of a shutdown under systemd, and with which verb: systemd's PID 1 executes
/// systemd-shutdown in its own place, and that executes /shutdown of an exitrd with the same arguments
/// (`become_shutdown`, src/core/main.c; src/shutdown/shutdown.c). dracut's is a script: the kernel puts its
/// interpreter before it (`load_script`, `fs/binfmt_script.c`).
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
