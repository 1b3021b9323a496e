//! Which init is PID 1, where it runs the hook, and how it is asked for a reboot. The files to install for
//! each init are in units/.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::machine::root::Root;

/// The inits that nextkernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// busybox init.
    Busybox,
    /// sysvinit.
    Sysvinit,
    /// `openrc-init`, the init of `OpenRC` itself.
    Openrc,
    /// runit.
    Runit,
    /// s6-linux-init.
    S6,
    /// dinit.
    Dinit,
    /// finit.
    Finit,
    /// procd, the init of `OpenWrt`.
    Procd,
    /// nitro.
    Nitro,
    /// Any other init; the name of PID 1.
    Unknown(String),
}

/// Whether an init runs the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hooked {
    /// The init runs the hook, because of this file.
    By(PathBuf),
    /// This file would run the hook, but is not executable.
    NotExecutable(PathBuf),
    /// The init executes this line, and ignores a later one that names the hook.
    Behind(String),
    /// Nothing runs the hook; the place where it would have to be.
    No(&'static str),
}

/// Where an init looks for what it runs at the end of shutdown.
enum Place {
    /// A file in one of these directories whose name contains [`WORD`].
    Entry(&'static [&'static str]),
    /// A line that contains [`WORD`], in the first of these files that exists.
    Line(&'static [&'static str]),
}

/// The word that identifies the hook, in a file's name or in its text.
const WORD: &str = "nextkernel";

/// busybox init's configuration.
const INITTAB: &str = "/etc/inittab";

/// The directory that sysvinit runs at a reboot, and the one that procd runs at every shutdown.
const RC6: &str = "/etc/rc6.d";
const RC_D: &str = "/etc/rc.d";

/// How an init is asked for a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// With a command.
    Command(&'static [&'static str]),
    /// With SIGQUIT to PID 1: busybox then replaces itself with its `::restart:` program.
    Quit,
    /// With SIGTERM to PID 1, as for busybox's `reboot`, and for finit's.
    Term,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ask::Command(words) => out.write_str(&words.join(" ")),
            Ask::Quit => out.write_str("kill -QUIT 1"),
            Ask::Term => out.write_str("kill -TERM 1"),
        }
    }
}

impl Init {
    /// Detects the running init.
    #[must_use]
    pub fn find(root: &Root) -> Init {
        if root.runs_systemd() {
            return Init::Systemd;
        }
        // The executable says more than the process's name, because most inits are called /sbin/init. Only
        // root may read that link.
        let name = root.link("/proc/1/exe").or_else(|| root.fact("/proc/1/comm"));
        let name = name.unwrap_or_else(|| "unknown".to_owned());
        let there = |path: &str| root.path(path).exists();
        match name.trim_end_matches(" (deleted)") {
            "busybox" => Init::Busybox,
            "openrc-init" => Init::Openrc,
            "runit" => Init::Runit,
            "s6-svscan" => Init::S6,
            "dinit" => Init::Dinit,
            "finit" => Init::Finit,
            "procd" => Init::Procd,
            "nitro" => Init::Nitro,
            "init" if there("/run/openrc/init.ctl") => Init::Openrc,
            "init" if there("/run/initctl") || there("/dev/initctl") => Init::Sysvinit,
            other => Init::Unknown(other.to_owned()),
        }
    }

    /// Returns the init's name, for a person.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Init::Systemd => "systemd",
            Init::Busybox => "busybox init",
            Init::Sysvinit => "sysvinit",
            Init::Openrc => "openrc-init",
            Init::Runit => "runit",
            Init::S6 => "s6-linux-init",
            Init::Dinit => "dinit",
            Init::Finit => "finit",
            Init::Procd => "procd",
            Init::Nitro => "nitro",
            Init::Unknown(name) => name,
        }
    }

    /// Whether the hook can learn from this init that a reboot was asked for, and can see that it is under
    /// way. With the other inits only an armed handoff counts (docs/night.md).
    #[must_use]
    pub fn tells_reboot(&self) -> bool {
        !matches!(self, Init::Busybox | Init::Procd | Init::Unknown(_))
    }

    /// Returns how to ask this init for a reboot: by its own command, because only that stops services in an
    /// orderly way. `None` for systemd and for an unknown init.
    #[must_use]
    pub fn ask(&self, root: &Root) -> Option<Ask> {
        Some(match self {
            Init::Busybox if Inittab::read(root).restarts_into_hook() => Ask::Quit,
            // For finit this is what `initctl reboot` does (`sigterm_cb`, src/sig.c). That command itself was
            // seen to fail, because finit goes down before it answers.
            Init::Busybox | Init::Finit => Ask::Term,
            Init::Sysvinit => Ask::Command(&["shutdown", "-r", "now"]),
            Init::Openrc => Ask::Command(&["openrc-shutdown", "-r", "now"]),
            Init::Runit => Ask::Command(&["runit-init", "6"]),
            Init::S6 | Init::Procd => Ask::Command(&["reboot"]),
            // If dinit is not the only init that is installed, its commands have a prefix
            // (dinit-shutdown(8)).
            Init::Dinit => {
                let mut directories = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"].iter();
                let prefixed =
                    directories.any(|directory| root.path(directory).join("dinit-shutdown").exists());
                Ask::Command(if prefixed { &["dinit-shutdown", "-r"] } else { &["shutdown", "-r"] })
            }
            Init::Nitro => Ask::Command(&["nitroctl", "Reboot"]),
            Init::Systemd | Init::Unknown(_) => return None,
        })
    }

    /// Whether the hook is installed, and this init runs it.
    #[must_use]
    pub fn runs_the_hook(&self, root: &Root) -> bool {
        root.hook_installed() && (*self == Init::Systemd || matches!(self.hooked(root), Hooked::By(_)))
    }

    /// Whether this init is set up to run the hook at the end of shutdown. For systemd and unknown inits this is
    /// always `No`.
    #[must_use]
    pub fn hooked(&self, root: &Root) -> Hooked {
        let openrc = (Place::Entry(&["/etc/runlevels/shutdown"]), "as a service of the runlevel shutdown");
        let (place, hint) = match self {
            Init::Systemd | Init::Unknown(_) => return Hooked::No("nowhere"),
            Init::Busybox => return Inittab::read(root).hooked(root),
            Init::Sysvinit if runs_openrc(root) => openrc,
            Init::Openrc => openrc,
            Init::Runit if root.path("/etc/runit/shutdown.d").is_dir() => {
                (Place::Entry(&["/etc/runit/shutdown.d"]), "in /etc/runit/shutdown.d")
            }
            // Debian's runit runs the scripts of sysvinit, unless this file disables that.
            Init::Runit if root.path("/etc/runit/native.boot.run").exists() => {
                (Place::Entry(&["/etc/runit/shutdown-run"]), "in /etc/runit/shutdown-run")
            }
            Init::Sysvinit | Init::Runit => (Place::Entry(&[RC6]), "as a link K..nextkernel in /etc/rc6.d"),
            Init::S6 => (
                Place::Line(&["/etc/s6-linux-init/current/scripts/rc.shutdown.final"]),
                "as a line of /etc/s6-linux-init/current/scripts/rc.shutdown.final",
            ),
            Init::Dinit => (
                Place::Line(&["/etc/dinit/shutdown-hook", "/lib/dinit/shutdown-hook"]),
                "as /etc/dinit/shutdown-hook",
            ),
            Init::Finit => (
                Place::Entry(&[
                    "/usr/libexec/finit/hook/sys/down",
                    "/libexec/finit/hook/sys/down",
                    "/lib/finit/hook/sys/down",
                ]),
                "in finit's hook/sys/down",
            ),
            Init::Procd => (Place::Entry(&[RC_D]), "as a link K99nextkernel in /etc/rc.d"),
            Init::Nitro => (Place::Line(&["/etc/nitro/SYS/final"]), "as a line of /etc/nitro/SYS/final"),
        };
        place.look(root).unwrap_or(Hooked::No(hint))
    }
}

impl Place {
    fn look(&self, root: &Root) -> Option<Hooked> {
        let found = match self {
            Place::Entry(directories) => directories.iter().find_map(|directory| {
                let entries = fs::read_dir(root.path(directory)).ok()?.flatten();
                let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                // In rc6.d and rc.d, a name that begins with another letter than K starts something, or is
                // ignored.
                let ends = |name: &str| ![RC6, RC_D].contains(directory) || name.starts_with('K');
                let name = names.find(|name| name.contains(WORD) && ends(name))?;
                Some(Path::new(directory).join(name))
            }),
            Place::Line(files) => {
                let first = files.iter().find(|file| root.path(file).exists())?;
                let text = fs::read_to_string(root.path(first)).unwrap_or_default();
                let calls =
                    text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains(WORD));
                calls.then(|| PathBuf::from(first))
            }
        }?;
        let executable = root.path(&found).metadata().is_ok_and(|it| it.permissions().mode() & 0o111 != 0);
        // runit sources its files, so they need not be executable.
        let sourced = found.starts_with("/etc/runit");
        Some(if executable || sourced { Hooked::By(found) } else { Hooked::NotExecutable(found) })
    }
}

/// Whether `OpenRC` runs the services, under any PID 1.
fn runs_openrc(root: &Root) -> bool {
    root.path("/run/openrc").is_dir()
}

/// The parts of busybox's inittab that decide whether the hook runs.
#[derive(Debug, Default)]
struct Inittab {
    /// The `::restart:` lines. At SIGQUIT busybox replaces itself with the program of the first one, and
    /// ignores the others (`exec_restart_action`, init/init.c). Only `nextkernel reboot` sends SIGQUIT.
    restart: Vec<String>,
    /// Whether a `::shutdown:` line runs the hook. busybox runs it at every shutdown and does not say which
    /// kind, so it counts only while `nextkernel reboot` still runs and vouches for it.
    at_shutdown: bool,
}

impl Inittab {
    /// Parses lines of the form `ID:RUNLEVELS:ACTION:PROCESS`.
    fn read(root: &Root) -> Inittab {
        let mut inittab = Inittab::default();
        for line in fs::read_to_string(root.path(INITTAB)).unwrap_or_default().lines() {
            let line = line.trim();
            let mut fields = line.splitn(4, ':').skip(2);
            match (fields.next(), fields.next()) {
                _ if line.starts_with('#') => {}
                (Some("restart"), Some(process)) if !process.is_empty() => {
                    inittab.restart.push(line.to_owned());
                }
                (Some("shutdown"), Some(process)) => inittab.at_shutdown |= process.contains(WORD),
                _ => {}
            }
        }
        inittab
    }

    fn restarts_into_hook(&self) -> bool {
        self.restart.first().is_some_and(|line| line.contains(WORD))
    }

    fn hooked(self, root: &Root) -> Hooked {
        let in_vain = !self.restarts_into_hook() && self.restart.iter().any(|line| line.contains(WORD));
        // At its end OpenRC kills every process, including the `nextkernel reboot` that would vouch.
        let runs = self.restarts_into_hook() || (self.at_shutdown && !runs_openrc(root));
        match self.restart.into_iter().next() {
            Some(first) if in_vain => Hooked::Behind(first),
            _ if runs => Hooked::By(PathBuf::from(INITTAB)),
            _ => Hooked::No("as the line ::restart: of /etc/inittab"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::root::HOOK;
    use crate::machine::scratch::Scratch;

    fn running(exe: &str) -> Scratch {
        let scratch = Scratch::new();
        scratch.link("/proc/1/exe", exe);
        scratch
    }

    fn executable(scratch: &Scratch, path: &str, text: &str) {
        scratch.put(path, text);
        fs::set_permissions(scratch.root.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn each_init_is_known_by_what_pid_1_executes_and_not_by_its_name_alone() {
        for (exe, init) in [
            ("/usr/bin/busybox", Init::Busybox),
            ("/usr/sbin/openrc-init", Init::Openrc),
            ("/usr/bin/runit", Init::Runit),
            ("/usr/bin/s6-svscan", Init::S6),
            ("/usr/sbin/dinit", Init::Dinit),
            ("/usr/sbin/finit (deleted)", Init::Finit),
            ("/sbin/procd", Init::Procd),
            ("/sbin/nitro", Init::Nitro),
            ("/sbin/init", Init::Unknown("init".to_owned())),
        ] {
            assert_eq!(Init::find(&running(exe).root), init);
        }
        let scratch = running("/sbin/init");
        scratch.put("/run/initctl", "");
        assert_eq!(Init::find(&scratch.root), Init::Sysvinit);
        scratch.put("/run/openrc/init.ctl", "");
        assert_eq!(Init::find(&scratch.root), Init::Openrc);
        scratch.directory("/run/systemd/system");
        assert_eq!(Init::find(&scratch.root), Init::Systemd);
        let scratch = Scratch::new();
        scratch.put("/proc/1/comm", "runit\n");
        assert_eq!(Init::find(&scratch.root), Init::Runit);
    }

    #[test]
    fn whether_an_init_runs_the_hook_is_seen_where_that_init_looks() {
        for (init, path, text) in [
            (Init::Sysvinit, "/etc/rc6.d/K10nextkernel", ""),
            (Init::Openrc, "/etc/runlevels/shutdown/nextkernel", ""),
            (Init::Runit, "/etc/runit/shutdown.d/89-nextkernel.sh", ""),
            (Init::Runit, "/etc/rc6.d/K10nextkernel", ""),
            (Init::S6, "/etc/s6-linux-init/current/scripts/rc.shutdown.final", HOOK),
            (Init::Dinit, "/etc/dinit/shutdown-hook", HOOK),
            (Init::Finit, "/usr/libexec/finit/hook/sys/down/90-nextkernel", ""),
            (Init::Procd, "/etc/rc.d/K99nextkernel", ""),
            (Init::Nitro, "/etc/nitro/SYS/final", HOOK),
            (Init::Busybox, "/etc/inittab", "::restart:/usr/lib/systemd/system-shutdown/nextkernel\n"),
        ] {
            let scratch = Scratch::new();
            assert!(matches!(init.hooked(&scratch.root), Hooked::No(_)), "{init:?}");
            executable(&scratch, path, text);
            assert_eq!(init.hooked(&scratch.root), Hooked::By(path.into()), "{init:?}");
        }
        let scratch = Scratch::new();
        scratch.put("/etc/dinit/shutdown-hook", HOOK);
        assert!(matches!(Init::Dinit.hooked(&scratch.root), Hooked::NotExecutable(_)));
        // If both files exist, the first one is run.
        executable(&scratch, "/lib/dinit/shutdown-hook", HOOK);
        executable(&scratch, "/etc/dinit/shutdown-hook", "# nextkernel was here\n");
        assert!(matches!(Init::Dinit.hooked(&scratch.root), Hooked::No(_)));
        executable(&scratch, "/etc/rc6.d/S10nextkernel", "");
        assert!(matches!(Init::Sysvinit.hooked(&scratch.root), Hooked::No(_)));
        // With this file, Debian's runit looks in shutdown-run instead of rc6.d, and sources what it finds.
        scratch.put("/etc/runit/native.boot.run", "");
        assert!(matches!(Init::Runit.hooked(&scratch.root), Hooked::No(_)));
        scratch.put("/etc/runit/shutdown-run/nextkernel.sh", "");
        assert!(matches!(Init::Runit.hooked(&scratch.root), Hooked::By(_)));
    }

    #[test]
    fn where_openrc_runs_the_services_the_hook_is_one_of_them_or_the_next_pid_1() {
        let scratch = Scratch::new();
        scratch.directory("/run/openrc");
        executable(&scratch, "/etc/rc6.d/K10nextkernel", "");
        scratch.put(INITTAB, &format!("::shutdown:{HOOK}\n"));
        for init in [Init::Busybox, Init::Sysvinit] {
            assert!(matches!(init.hooked(&scratch.root), Hooked::No(_)), "{init:?}");
        }
        executable(&scratch, "/etc/runlevels/shutdown/nextkernel", "");
        scratch.put(INITTAB, &format!("::shutdown:/sbin/openrc shutdown\n::restart:{HOOK} kexec\n"));
        for init in [Init::Busybox, Init::Sysvinit] {
            assert!(matches!(init.hooked(&scratch.root), Hooked::By(_)), "{init:?}");
        }
    }

    #[test]
    fn dinit_is_asked_by_its_own_command_where_another_inits_has_that_name() {
        let scratch = Scratch::new();
        assert_eq!(Init::Dinit.ask(&scratch.root).unwrap().to_string(), "shutdown -r");
        scratch.put("/usr/sbin/dinit-shutdown", "");
        assert_eq!(Init::Dinit.ask(&scratch.root).unwrap().to_string(), "dinit-shutdown -r");
    }

    #[test]
    fn busybox_is_asked_to_execute_the_hook_only_where_its_inittab_says_so() {
        let scratch = Scratch::new();
        let asked = |inittab: &str| {
            scratch.put(INITTAB, inittab);
            Init::Busybox.ask(&scratch.root).unwrap()
        };
        assert_eq!(asked("::restart:/sbin/init\n::ctrlaltdel:/sbin/reboot\n"), Ask::Term);
        assert_eq!(asked(&format!("#::restart:{HOOK}\n::shutdown:{HOOK}\n")), Ask::Term);
        assert_eq!(asked(&format!("::restart:{HOOK} kexec\n")), Ask::Quit);
    }

    #[test]
    fn of_several_restart_lines_busybox_executes_the_first_alone() {
        let scratch = Scratch::new();
        let theirs = "::restart:/sbin/init";
        scratch.put(INITTAB, &format!("# {theirs}\n{theirs}\n::restart:{HOOK} kexec\n::shutdown:{HOOK}\n"));
        assert_eq!(Init::Busybox.hooked(&scratch.root), Hooked::Behind(theirs.to_owned()));
        assert_eq!(Init::Busybox.ask(&scratch.root), Some(Ask::Term));
        scratch.put(INITTAB, &format!("::restart:{HOOK} kexec\n{theirs}\n"));
        assert_eq!(Init::Busybox.hooked(&scratch.root), Hooked::By(INITTAB.into()));
        assert_eq!(Init::Busybox.ask(&scratch.root), Some(Ask::Quit));
    }

    #[test]
    fn those_inits_tell_of_a_restart_in_which_the_hook_sees_a_sign_of_one() {
        let hook = include_str!("../../../hook/src/caller.rs");
        for (init, program) in [
            (Init::Busybox, "busybox"),
            (Init::Sysvinit, "init"),
            (Init::Openrc, "openrc-init"),
            (Init::Runit, "runit"),
            (Init::S6, "s6-svscan"),
            // The program that dinit's PID 1 executes in its own place.
            (Init::Dinit, "shutdown"),
            (Init::Finit, "finit"),
            (Init::Procd, "procd"),
            (Init::Nitro, "nitro"),
        ] {
            let has_sign = hook.contains(&format!("(b\"{program}\", Sign::"));
            assert_eq!(init.tells_reboot(), has_sign, "{init:?}");
        }
    }
}
