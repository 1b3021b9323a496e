use core::fmt;

/// The kind of shutdown that the init was asked for: the first argument of a system-shutdown executable
/// (systemd-shutdown(8)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start the loaded kernel.
    Kexec,
    /// Restart the machine: a full reboot, unless the plan says otherwise.
    Reboot,
    /// Power the machine off.
    Poweroff,
    /// Halt the machine, and leave the power on.
    Halt,
    /// Leave a container.
    Exit,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 5] = [Verb::Kexec, Verb::Reboot, Verb::Poweroff, Verb::Halt, Verb::Exit];

    /// Returns the verb for a word; `None` for any other word.
    #[must_use]
    pub fn from_word(word: &[u8]) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.word().as_bytes() == word)
    }

    /// Whether the machine, or the container, is to stay down. Then there is no next kernel.
    #[must_use]
    pub fn stays_down(self) -> bool {
        matches!(self, Verb::Poweroff | Verb::Halt | Verb::Exit)
    }

    /// Returns the init's word for the verb.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verb::Kexec => "kexec",
            Verb::Reboot => "reboot",
            Verb::Poweroff => "poweroff",
            Verb::Halt => "halt",
            Verb::Exit => "exit",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// The verbs at which the staged kernel is started: at least one of kexec and reboot. The others are never
/// covered: a machine that is to stay down does not get another kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `on = kexec`
    Kexec,
    /// `on = reboot`
    Reboot,
    /// `on = kexec reboot`
    KexecAndReboot,
}

impl On {
    /// Whether the plan is carried out when the init is asked for `verb`.
    #[must_use]
    pub fn covers(self, verb: Verb) -> bool {
        match verb {
            Verb::Kexec => self != On::Reboot,
            Verb::Reboot => self != On::Kexec,
            Verb::Poweroff | Verb::Halt | Verb::Exit => false,
        }
    }

    /// Returns the variant for the words of a plan.
    #[must_use]
    pub fn from_words(words: &str) -> Option<On> {
        match words {
            "kexec" => Some(On::Kexec),
            "reboot" => Some(On::Reboot),
            "kexec reboot" => Some(On::KexecAndReboot),
            _ => None,
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            On::Kexec => "kexec",
            On::Reboot => "reboot",
            On::KexecAndReboot => "kexec reboot",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_known_by_its_own_word() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_word(verb.word().as_bytes()), Some(verb));
        }
        assert_eq!(Verb::from_word(b"soft-reboot"), None);
        assert_eq!(Verb::from_word(b""), None);
    }

    #[test]
    fn power_off_halt_and_exit_are_never_covered() {
        for on in [On::Kexec, On::Reboot, On::KexecAndReboot] {
            for verb in [Verb::Poweroff, Verb::Halt, Verb::Exit] {
                assert!(!on.covers(verb));
            }
        }
    }

    #[test]
    fn a_verb_is_covered_when_it_was_named() {
        assert!(On::Kexec.covers(Verb::Kexec) && !On::Kexec.covers(Verb::Reboot));
        assert!(On::Reboot.covers(Verb::Reboot) && !On::Reboot.covers(Verb::Kexec));
        assert!(On::KexecAndReboot.covers(Verb::Kexec) && On::KexecAndReboot.covers(Verb::Reboot));
    }
}
