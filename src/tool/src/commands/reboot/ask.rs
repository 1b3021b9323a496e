//! The request to the init to go down.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use nextkernel_plan::{Armed, HandoffId};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::commands::reboot::error::Error;
use crate::machine::armed::Arming;
use crate::machine::init::{self, Init};
use crate::machine::root::Root;
use crate::request::choices::PreloadChoice;
use crate::request::conf::Conf;

/// The request to the init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// systemd is asked for kexec, with an image loaded.
    Kexec,
    /// systemd is asked for kexec, with nothing loaded. `systemctl kexec` then refuses, or from systemd 261 on loads
    /// the image that it finds.
    Target,
    /// systemd is asked for a full reboot.
    Full,
    /// Another init is asked for a reboot.
    Restart(init::Ask),
}

impl Ask {
    /// Returns the request for the state that the machine is in now.
    pub(super) fn of(root: &Root, init: &Init) -> Result<Ask, Error> {
        match init {
            Init::Systemd if root.kexec_loaded() => Ok(Ask::Kexec),
            Init::Systemd => Ok(Ask::Target),
            other => {
                let ask = other.ask(root).ok_or_else(|| Error::OtherInit(other.name().to_owned()))?;
                Ok(Ask::Restart(ask))
            }
        }
    }

    /// Returns the request for the state after staging, if the image is preloaded as configured.
    pub(super) fn after_staging(root: &Root, init: &Init, conf: &Conf) -> Result<Ask, Error> {
        match (init, conf.preload) {
            (Init::Systemd, PreloadChoice::No) => Ok(Ask::Target),
            (Init::Systemd, _) => Ok(Ask::Kexec),
            _ => Ask::of(root, init),
        }
    }

    /// Returns the words of the command. They are empty for a signal.
    fn words(&self) -> &'static [&'static str] {
        match self {
            Ask::Kexec => &["systemctl", "kexec"],
            Ask::Full => &["systemctl", "reboot"],
            Ask::Target => {
                &["systemctl", "start", "--no-block", "--job-mode=replace-irreversibly", "kexec.target"]
            }
            Ask::Restart(init::Ask::Command(words)) => words,
            Ask::Restart(init::Ask::Quit | init::Ask::Term) => &[],
        }
    }

    /// Sends the request.
    pub(super) fn send(&self) -> Result<(), Error> {
        let refused = |said: String| Error::Refused { command: self.to_string(), said };
        let signal = match self {
            Ask::Restart(init::Ask::Quit) => Some(Signal::SIGQUIT),
            Ask::Restart(init::Ask::Term) => Some(Signal::SIGTERM),
            _ => None,
        };
        if let Some(signal) = signal {
            return kill(Pid::from_raw(1), signal).map_err(|errno| refused(errno.desc().to_owned()));
        }
        let Some((program, arguments)) = self.words().split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        if *self == Ask::Full {
            // A full reboot ignores a loaded image and a system in /run/nextroot (systemctl(1);
            // docs/ENVIRONMENT.md of systemd).
            command.env("SYSTEMCTL_SKIP_AUTO_KEXEC", "1").env("SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT", "1");
        }
        let output = command.args(arguments).output();
        let output = output.map_err(|error| Error::NoProgram { program, error })?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Restart(ask) => ask.fmt(out),
            _ => out.write_str(&self.words().join(" ")),
        }
    }
}

/// Blocks the signals by which a session that ends, or an init, ends this process. It must live to withdraw the
/// hook's instructions if the machine stays up.
pub(super) fn go_on_at_signals() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    let _ = signals.thread_block();
}

/// Sends the request with the handoff armed. Waits until the machine is down, because an armed handoff counts only
/// while this process lives.
pub(super) fn send_armed(root: &Root, handoff: HandoffId, ask: &Ask) -> Result<(), Error> {
    go_on_at_signals();
    let arming = Arming::of(root, handoff)?;
    if let Err(error) = ask.send() {
        arming.disarm();
        return Err(error);
    }
    std::thread::sleep(Duration::from_secs(Armed::SECONDS));
    arming.disarm();
    Err(Error::StillUp { asked: ask.to_string() })
}
