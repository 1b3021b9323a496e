//! The hook's arguments, and the part of its environment that it uses.

use core::ffi::CStr;

use nextkernel_plan::Verb;

/// The request that the hook's arguments express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Carry out the plan at this verb. `None` if there is no word, or one that is no verb.
    CarryOut(Option<Verb>),
    /// Print the acts that the hook would carry out at this verb.
    DryRun(Verb),
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Wrong usage: an unknown option, or `--dry-run` without a verb.
    Wrong,
}

/// The watchdog that systemd left armed, as the hook's environment describes it (systemd.exec(5)).
#[derive(Clone, Copy, Debug, Default)]
pub struct InheritedWatchdog {
    /// Whether `WATCHDOG_USEC=` is set and not 0.
    pub armed: bool,
    /// `WATCHDOG_DEVICE=`, set if systemd was configured to use another device than /dev/watchdog0.
    pub device: Option<&'static CStr>,
}

/// The hook's arguments, and the part of its environment that it uses.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// The request.
    pub request: Request,
    /// The watchdog that systemd left armed.
    pub watchdog: InheritedWatchdog,
}

impl Request {
    /// Returns the request for a hook that is PID 1 of a machine. The kernel passes PID 1 every word of its
    /// command line that it does not recognise itself, so no word counts as an option.
    #[must_use]
    pub fn of_pid_1(self) -> Request {
        match self {
            Request::CarryOut(_) => self,
            _ => Request::CarryOut(None),
        }
    }
}

impl Arguments {
    /// Parses argv, whose first element is the program's name, and the environment. Words after the verb are
    /// ignored: systemd-shutdown adds options there, and later versions may add more.
    pub fn collect(
        mut arguments: impl Iterator<Item = &'static CStr>,
        environment: impl Iterator<Item = &'static CStr>,
    ) -> Arguments {
        let words = (arguments.nth(1), arguments.next());
        let request = match (words.0.map(CStr::to_bytes), words.1.map(CStr::to_bytes)) {
            (Some(b"--help" | b"-h"), _) => Request::Help,
            (Some(b"--version"), _) => Request::Version,
            (Some(b"--dry-run"), verb) => {
                verb.and_then(Verb::from_word).map_or(Request::Wrong, Request::DryRun)
            }
            (Some(option), _) if option.starts_with(b"-") => Request::Wrong,
            (word, _) => Request::CarryOut(word.and_then(Verb::from_word)),
        };
        let mut watchdog = InheritedWatchdog::default();
        for variable in environment {
            let bytes = variable.to_bytes();
            if let Some(time) = bytes.strip_prefix(b"WATCHDOG_USEC=") {
                watchdog.armed = !time.iter().all(|digit| *digit == b'0');
            }
            if let Some(path) = variable.to_bytes_with_nul().strip_prefix(b"WATCHDOG_DEVICE=") {
                watchdog.device = CStr::from_bytes_with_nul(path).ok().filter(|path| !path.is_empty());
            }
        }
        Arguments { request, watchdog }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&'static CStr]) -> Request {
        let words = [c"/usr/lib/systemd/system-shutdown/nextkernel"].iter().chain(words);
        Arguments::collect(words.copied(), core::iter::empty()).request
    }

    #[test]
    fn the_verb_is_the_first_word_and_what_the_init_adds_is_ignored() {
        let systemd = [c"kexec", c"--timeout=90000000us", c"--log-level", c"info", c"--exit-code=0"];
        assert_eq!(request(&systemd), Request::CarryOut(Some(Verb::Kexec)));
        assert_eq!(request(&[c"poweroff"]), Request::CarryOut(Some(Verb::Poweroff)));
    }

    #[test]
    fn no_verb_and_an_unknown_one_ask_for_nothing() {
        assert_eq!(request(&[]), Request::CarryOut(None));
        assert_eq!(request(&[c"soft-reboot"]), Request::CarryOut(None));
        assert_eq!(
            Arguments::collect(core::iter::empty(), core::iter::empty()).request,
            Request::CarryOut(None)
        );
    }

    #[test]
    fn an_unknown_option_is_wrong_usage_and_never_a_verb() {
        assert_eq!(request(&[c"--force", c"kexec"]), Request::Wrong);
        assert_eq!(request(&[c"--dry-run"]), Request::Wrong);
        assert_eq!(request(&[c"--dry-run", c"kexec"]), Request::DryRun(Verb::Kexec));
    }

    #[test]
    fn pid_1_takes_no_word_of_the_kernels_command_line_for_an_option() {
        for word in [c"--help", c"-v", c"--version", c"--quiet"] {
            assert_eq!(request(&[word]).of_pid_1(), Request::CarryOut(None), "{word:?}");
        }
        assert_eq!(request(&[c"kexec"]).of_pid_1(), Request::CarryOut(Some(Verb::Kexec)));
    }

    #[test]
    fn the_watchdog_is_armed_only_when_systemd_says_so() {
        let watchdog =
            |words: &[&'static CStr]| Arguments::collect(core::iter::empty(), words.iter().copied()).watchdog;
        assert!(!watchdog(&[]).armed);
        assert!(!watchdog(&[c"WATCHDOG_USEC=0", c"WATCHDOG_PID=1"]).armed);
        let armed = watchdog(&[c"WATCHDOG_DEVICE=/dev/watchdog1", c"WATCHDOG_USEC=600000000"]);
        assert_eq!((armed.armed, armed.device), (true, Some(c"/dev/watchdog1")));
    }
}
