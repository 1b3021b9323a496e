//! What the hook was called with.

use core::ffi::CStr;

use nextkernel_plan::Verb;

/// What is asked of the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Carry out the plan at this verb. `None`: no word, or one that is no verb.
    CarryOut(Option<Verb>),
    /// Print what would be done at this verb.
    DryRun(Verb),
    /// Print how it is used.
    Help,
    /// Print the version.
    Version,
    /// An option that does not exist, or `--dry-run` without a verb.
    Wrong,
}

/// The watchdog that systemd left armed, as it tells the programs it runs (systemd.exec(5)).
#[derive(Clone, Copy, Debug, Default)]
pub struct InheritedWatchdog {
    /// `WATCHDOG_USEC=` is given and not 0.
    pub armed: bool,
    /// `WATCHDOG_DEVICE=`, where systemd was told to use another than /dev/watchdog0.
    pub device: Option<&'static CStr>,
}

/// What the hook was called with: arguments, and what it uses of the environment.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    /// What is asked.
    pub request: Request,
    /// The watchdog that was left armed.
    pub watchdog: InheritedWatchdog,
}

impl Request {
    /// What PID 1 of a machine is asked: the kernel hands it every word of its command line that it does not know itself,
    /// and none of those is an option.
    #[must_use]
    pub fn of_pid_1(self) -> Request {
        match self {
            Request::CarryOut(_) => self,
            _ => Request::CarryOut(None),
        }
    }
}

impl Arguments {
    /// Sorts out argv, the program's name first, and the environment. systemd-shutdown adds
    /// options behind the verb, and later versions may add more: they are not looked at.
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
