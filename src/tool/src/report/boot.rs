//! How a kernel came to run, and how long each part of the way took.

use nextkernel_plan::HandoffId;
use serde::{Deserialize, Serialize};

/// One boot: a line of the history, and an object of `--json`. Field names are stable; an unknown value is
/// absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The running kernel's release.
    pub kernel: String,
    /// When the kernel started, in seconds since the epoch.
    pub started_at: u64,
    /// How the kernel was started.
    pub came: Came,
    /// The request on which the previous system went down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The handoff that started the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<Handoff>,
    /// The handoff that was meant to start the kernel, and did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// How long each part of the way took, in order; a part that was not measured is absent.
    pub phases: Vec<Phase>,
    /// The clock by which the parts between the two kernels were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_by: Option<By>,
    /// Both answers, if the counter and the clock disagree about the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagree: Option<Disagree>,
}

/// How a kernel was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// By nextkernel's hook, or with the image that it had loaded. The hook's record is on the command line.
    Handoff,
    /// By a jump to the image that `nextkernel stage` had loaded. The record of the stage is on the command
    /// line. Whether the hook jumped, or the init without it, cannot be told.
    Preloaded,
    /// By a jump to an image that another program had loaded.
    Jump,
    /// By the firmware.
    Firmware,
    /// Unknown: by the firmware, or by a jump to an image of another program.
    Unknown,
}

/// The request on which the previous system went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// To start another kernel.
    Kexec,
    /// To reboot.
    Reboot,
    /// To power off.
    Poweroff,
    /// To halt.
    Halt,
    /// None: it ended without going down.
    Nothing,
}

/// The handoff that started a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// The id, as in the plan.
    pub id: String,
    /// The verb at which it was carried out. The record of a preloaded image does not contain the verb; the
    /// previous system may have recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// The name of the staged entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The loading syscall: `verified` (`kexec_file_load`) or `direct` (`kexec_load`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<String>,
    /// How long the test load took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_rehearsed_ms: Option<u64>,
    /// The steps that failed without preventing the jump.
    pub trouble: Vec<Trouble>,
}

/// A step that failed, and did not keep the hook from the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// A GPU's driver could not be unloaded.
    GpuDriverStayed,
    /// Another module could not be unloaded.
    ModuleStayed,
    /// Another hook of the init was not done in time.
    HookStayed,
}

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The part.
    pub phase: Part,
    /// Its duration in milliseconds.
    pub ms: u64,
}

/// The parts, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// From the command to the hook: the init stops the services.
    Stop,
    /// The hook's first sync.
    Sync,
    /// The hook frees hardware from its drivers.
    Teardown,
    /// The hook waits for the init's other hooks, and syncs again.
    Settle,
    /// The load and the jump, until the next kernel's clock starts. With `kexec_file_load` it includes teardown
    /// and settle, because the load runs meanwhile.
    Jump,
    /// From the command until the next kernel's clock starts, if a preloaded image is started.
    Down,
    /// From the command through the firmware and the boot loader until the next kernel's clock starts.
    Firmware,
    /// From the kernel's start to the first program: the initrd's init if that is systemd, else the root's.
    Kernel,
    /// The initrd, until the root's systemd starts.
    Initrd,
    /// From the start of the root's systemd to the default target.
    Userspace,
}

/// The clock by which a time was measured that begins in one kernel and ends in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The processor's counter, confirmed by the clock.
    Counter,
    /// The counter alone, because the clock did not go on, or was set.
    CounterAlone,
    /// The clock, to the second.
    Clock,
}

/// Two answers to one question: the milliseconds from the hook's start to the next kernel's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disagree {
    /// The counter's answer.
    pub counter_ms: u64,
    /// The clock's answer; negative if the clock was set back.
    pub clock_ms: i64,
}

/// The longest credible duration of a part, in milliseconds.
pub const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;

impl Boot {
    /// Returns the time from the command to the default target, in milliseconds, if all of it was measured.
    #[must_use]
    pub fn total_ms(&self) -> Option<u64> {
        let ends = [Part::Kernel, Part::Userspace].map(|part| self.ms(part));
        let begins = [Part::Stop, Part::Jump].map(|part| self.ms(part));
        let alone = [Part::Down, Part::Firmware].map(|part| self.ms(part));
        let begins = begins.into_iter().all(|ms| ms.is_some()) || alone.into_iter().any(|ms| ms.is_some());
        let whole = begins && ends.into_iter().all(|ms| ms.is_some());
        whole.then(|| self.phases.iter().map(|phase| phase.ms).sum())
    }

    /// Returns how long a part took, in milliseconds.
    #[must_use]
    pub fn ms(&self, part: Part) -> Option<u64> {
        self.phases.iter().find(|phase| phase.phase == part).map(|phase| phase.ms)
    }

    /// Returns whether the kernel was started from an image that nextkernel had loaded.
    #[must_use]
    pub fn is_by_handoff(&self) -> bool {
        matches!(self.came, Came::Handoff | Came::Preloaded)
    }

    /// Returns whether this boot is a baseline for handoffs: a requested reboot that went through the firmware,
    /// all of it measured.
    #[must_use]
    pub fn is_yardstick(&self) -> bool {
        self.came == Came::Firmware && self.asked == Some(Asked::Reboot) && self.total_ms().is_some()
    }

    /// Returns whether this program can have written the record: no text is long or contains control
    /// characters, and the parts are in order, each at most once.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let in_order = self.phases.windows(2).all(|pair| match pair {
            [before, after] => before.phase < after.phase,
            _ => true,
        });
        let handoff = self.handoff.as_ref().is_none_or(Handoff::is_sound);
        let short = self.phases.iter().all(|phase| phase.ms <= LONGEST_MS);
        let both = self.disagree.is_none_or(|Disagree { counter_ms, clock_ms }| {
            counter_ms <= LONGEST_MS && clock_ms.unsigned_abs() < 1 << 53
        });
        let failed = self.failed.as_deref().is_none_or(|id| HandoffId::from_digits(id).is_some());
        let moment = self.started_at < 1 << 36;
        is_id(&self.boot_id)
            && is_plain(&self.kernel, 64)
            && in_order
            && handoff
            && failed
            && short
            && both
            && moment
    }
}

impl Handoff {
    fn is_sound(&self) -> bool {
        let plain = |text: &Option<String>, most| text.as_ref().is_none_or(|text| is_plain(text, most));
        HandoffId::from_digits(&self.id).is_some()
            && plain(&self.verb, 8)
            && plain(&self.entry, nextkernel_plan::limits::ENTRY_MAX)
            && plain(&self.loader, 16)
            && self.load_rehearsed_ms.is_none_or(|ms| ms <= LONGEST_MS)
            && self.trouble.len() <= Trouble::ALL.len()
    }
}

impl Trouble {
    /// Each kind, with its letter in the record.
    pub const ALL: [(Trouble, char); 3] =
        [(Trouble::GpuDriverStayed, 'g'), (Trouble::ModuleStayed, 'm'), (Trouble::HookStayed, 'h')];

    /// Returns the kinds that a record contains.
    #[must_use]
    pub fn of(told: nextkernel_plan::Trouble) -> Vec<Trouble> {
        let letters = nextkernel_plan::Trouble::ALL.iter().filter(|(one, _)| told.has(*one));
        letters
            .filter_map(|(_, letter)| Trouble::ALL.iter().find(|(_, its)| its == letter))
            .map(|it| it.0)
            .collect()
    }

    /// Returns the description as a clause.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Trouble::GpuDriverStayed => "a GPU's driver could not be unloaded",
            Trouble::ModuleStayed => "a module could not be unloaded",
            Trouble::HookStayed => "another hook of the init's was not done in time",
        }
    }
}

/// Returns whether a text is neither empty nor longer than `most` bytes, and can be printed as it is.
#[must_use]
pub fn is_plain(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.contains(char::is_control)
}

/// Returns whether a text has the form of a boot id: hexadecimal digits and dashes.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn phases(of: &[(Part, u64)]) -> Vec<Phase> {
        of.iter().map(|(phase, ms)| Phase { phase: *phase, ms: *ms }).collect()
    }

    /// A boot that a handoff started, all of it measured: 11,903 ms.
    pub(crate) fn boot() -> Boot {
        Boot {
            boot_id: "0f0e0d0c-0b0a-0908-0706-050403020100".to_owned(),
            kernel: "6.12".to_owned(),
            started_at: 1_795_673_460,
            came: Came::Handoff,
            asked: Some(Asked::Kexec),
            handoff: Some(Handoff {
                id: "00000000000000a7".to_owned(),
                verb: Some("kexec".to_owned()),
                entry: Some("debian".to_owned()),
                loader: Some("direct".to_owned()),
                load_rehearsed_ms: Some(410),
                trouble: vec![Trouble::GpuDriverStayed],
            }),
            failed: None,
            phases: phases(&[
                (Part::Stop, 2310),
                (Part::Sync, 41),
                (Part::Teardown, 180),
                (Part::Settle, 12),
                (Part::Jump, 1060),
                (Part::Kernel, 900),
                (Part::Initrd, 2300),
                (Part::Userspace, 5100),
            ]),
            measured_by: Some(By::Counter),
            disagree: None,
        }
    }

    /// A full reboot, all of it measured: 202,300 ms.
    pub(crate) fn firmware() -> Boot {
        Boot {
            boot_id: "1f0e0d0c-0b0a-0908-0706-050403020100".to_owned(),
            started_at: 1_795_500_000,
            came: Came::Firmware,
            asked: Some(Asked::Reboot),
            handoff: None,
            phases: phases(&[
                (Part::Firmware, 194_000),
                (Part::Kernel, 900),
                (Part::Initrd, 2300),
                (Part::Userspace, 5100),
            ]),
            measured_by: Some(By::Clock),
            ..boot()
        }
    }

    #[test]
    fn a_total_is_the_sum_of_all_parts_and_there_only_where_each_was_measured() {
        assert_eq!(boot().total_ms(), Some(11_903));
        assert_eq!(firmware().total_ms(), Some(202_300));
        for missing in [Part::Stop, Part::Jump, Part::Kernel, Part::Userspace] {
            let mut part = boot();
            part.phases.retain(|phase| phase.phase != missing);
            assert_eq!(part.total_ms(), None, "{missing:?}");
        }
        // The parts that the record of kexec_file_load does not contain are in the jump.
        let mut verified = boot();
        verified.phases.retain(|phase| !matches!(phase.phase, Part::Teardown | Part::Settle));
        assert_eq!(verified.total_ms(), Some(11_711));
    }

    #[test]
    fn what_was_asked_for_and_measured_as_a_whole_is_a_yardstick() {
        assert!(firmware().is_yardstick() && !boot().is_yardstick());
        for asked in [None, Some(Asked::Kexec), Some(Asked::Poweroff), Some(Asked::Nothing)] {
            assert!(!Boot { asked, ..firmware() }.is_yardstick(), "{asked:?}");
        }
        assert!(!Boot { phases: Vec::new(), ..firmware() }.is_yardstick());
    }

    #[test]
    fn names_in_json_are_these() {
        let text = serde_json::to_string(&boot()).unwrap();
        assert_eq!(
            text,
            "{\"boot_id\":\"0f0e0d0c-0b0a-0908-0706-050403020100\",\"kernel\":\"6.12\",\
             \"started_at\":1795673460,\"came\":\"handoff\",\"asked\":\"kexec\",\
             \"handoff\":{\"id\":\"00000000000000a7\",\"verb\":\"kexec\",\"entry\":\"debian\",\
             \"loader\":\"direct\",\"load_rehearsed_ms\":410,\"trouble\":[\"gpu_driver_stayed\"]},\
             \"phases\":[{\"phase\":\"stop\",\"ms\":2310},{\"phase\":\"sync\",\"ms\":41},\
             {\"phase\":\"teardown\",\"ms\":180},{\"phase\":\"settle\",\"ms\":12},\
             {\"phase\":\"jump\",\"ms\":1060},{\"phase\":\"kernel\",\"ms\":900},\
             {\"phase\":\"initrd\",\"ms\":2300},{\"phase\":\"userspace\",\"ms\":5100}],\
             \"measured_by\":\"counter\"}"
        );
        assert_eq!(serde_json::from_str::<Boot>(&text).unwrap(), boot());
        assert!(boot().is_sound() && firmware().is_sound());
    }

    #[test]
    fn every_trouble_of_the_record_is_told() {
        for (one, letter) in nextkernel_plan::Trouble::ALL {
            assert_eq!(Trouble::of(one).len(), 1, "{letter}");
        }
    }
}
