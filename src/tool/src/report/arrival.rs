//! How the running kernel came to run, and how long the way took: combined from all sources that know a part of
//! it.

use nextkernel_plan::{Marks, Record, Verb};
use rustix::system::uname;

use super::boot::{Asked, Boot, By, Came, Handoff, LONGEST_MS, Part, Phase, Trouble};
use super::clock::{self, Now, Then};
use super::history::{History, Staged, Stopped};
use crate::image::cmdline;
use crate::machine::root::Root;
use crate::machine::systemd::{self, Reached};

/// The maximum age of a shutdown's record, in milliseconds. If it is older, it is not that of the system just
/// before, which then left no record.
const STOP_MAX_MS: i64 = 60 * 60 * 1000;

/// The type of boot loader on x86 that a kernel reports if another kernel started it: 0xD is kexec's
/// (Documentation/arch/x86/boot.rst, `bzImage64_load`).
const KEXEC_LOADER: u64 = 0xd;

/// The facts about the running kernel's start.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel: String,
    /// The record on its command line.
    pub record: Option<Record>,
    /// Whether another kernel started this one, if that can be told.
    pub jumped: Option<bool>,
    /// The record of an earlier system's shutdown.
    pub stopped: Option<Stopped>,
    /// The boots before this one.
    pub history: &'a History,
    /// The present moment.
    pub now: Now,
    /// When the stages of the boot were reached.
    pub reached: Reached,
}

/// Returns whether another kernel started this one, if that can be told.
fn jumped(root: &Root) -> Option<bool> {
    // Set by `of_kexec_alloc_and_setup_fdt`, drivers/of/kexec.c.
    let said = root.path("/proc/device-tree/chosen/linux,booted-from-kexec").exists();
    let loader = root.fact("/proc/sys/kernel/bootloader_type").and_then(|number| number.parse::<u64>().ok());
    loader.map(|loader| loader >> 4 == KEXEC_LOADER).or(said.then_some(true))
}

/// Gathers all facts about the running boot now.
#[must_use]
pub fn measure(root: &Root, history: &History) -> Boot {
    of(root, history, if root.runs_systemd() { systemd::reached() } else { Reached::default() })
}

/// Returns how this kernel was started, without how long its own boot took.
#[must_use]
pub fn arrived(root: &Root, history: &History) -> Boot {
    of(root, history, Reached::default())
}

fn of(root: &Root, history: &History, reached: Reached) -> Boot {
    let line = cmdline::running(root).unwrap_or_default();
    let record = Record::find(&line);
    let kernel = root.fact("/proc/sys/kernel/osrelease");
    let facts = Facts {
        boot_id: boot_id(root),
        kernel: kernel.unwrap_or_else(|| uname().release().to_string_lossy().into_owned()),
        record,
        jumped: jumped(root),
        stopped: Stopped::read(root),
        history,
        now: Now::read(root),
        reached,
    };
    let mut boot = facts.boot();
    let staged = record.and_then(|record| Staged::of(root, record.handoff));
    if let (Some(handoff), Some(staged)) = (&mut boot.handoff, staged) {
        handoff.entry = Some(staged.entry);
        handoff.loader = Some(staged.loader);
        handoff.load_rehearsed_ms = staged.load_ms;
    }
    boot
}

/// Returns the id of the running boot.
#[must_use]
pub fn boot_id(root: &Root) -> String {
    root.fact("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

impl Facts<'_> {
    /// Derives the boot from the facts.
    #[must_use]
    pub fn boot(&self) -> Boot {
        let stopped = self.last_stop();
        let asked = self.asked();
        let came = match (self.record, self.jumped) {
            (Some(Record { verb: None, .. }), _) => Came::Preloaded,
            (Some(_), _) => Came::Handoff,
            (None, Some(true)) => Came::Jump,
            (None, Some(false)) => Came::Firmware,
            (None, None) if asked == Some(Asked::Reboot) => Came::Firmware,
            (None, None) => Came::Unknown,
        };
        let mut boot = Boot {
            boot_id: self.boot_id.clone(),
            kernel: self.kernel.clone(),
            started_at: self.now.started_ms() / 1000,
            came,
            asked,
            handoff: self.record.map(|record| Handoff {
                id: record.handoff.to_string(),
                verb: self.verb(record),
                entry: None,
                loader: None,
                load_rehearsed_ms: None,
                trouble: record.course.map_or_else(Vec::new, |course| Trouble::of(course.trouble)),
            }),
            // Only a start by the firmware shows that the handoff failed. A jump to another program's image, or an
            // unknown start, may have another reason.
            failed: self
                .stop()
                .filter(|_| came == Came::Firmware)
                .and_then(|stopped| stopped.handoff.clone()),
            phases: Vec::new(),
            measured_by: None,
            disagree: None,
        };
        match came {
            Came::Handoff => self.add_course(&mut boot, stopped),
            Came::Preloaded => self.add_down(&mut boot, stopped),
            Came::Firmware => self.add_firmware(&mut boot, stopped),
            Came::Jump | Came::Unknown => {}
        }
        self.add_day(&mut boot);
        boot
    }

    /// Returns the request on which the previous system went down. A known system that left no record had none.
    fn asked(&self) -> Option<Asked> {
        match (&self.stopped, self.last()) {
            (None, Some(_)) if self.record.is_none() => Some(Asked::Nothing),
            _ => self.stop().map(|stopped| stopped.asked),
        }
    }

    /// Returns the boot before, if it is known.
    fn last(&self) -> Option<&Boot> {
        self.history.boots.last().filter(|last| last.boot_id != self.boot_id)
    }

    /// Returns the record that the boot before left, however long ago; or one that an unknown boot left just
    /// before this one.
    fn stop(&self) -> Option<&Stopped> {
        let of_last =
            self.stopped.as_ref().zip(self.last()).filter(|(stopped, last)| stopped.boot_id == last.boot_id);
        of_last.map(|(stopped, _)| stopped).or_else(|| self.last_stop())
    }

    /// Returns the record of the shutdown just before this boot, if there is one.
    fn last_stop(&self) -> Option<&Stopped> {
        let stopped = self.stopped.as_ref().filter(|stopped| stopped.boot_id != self.boot_id)?;
        // The clock may have stopped between the kernels. The hook's record has its time before that.
        let ago = match self.record.and_then(|record| record.course) {
            Some(course) => clock::apart(course.begun_at.saturating_mul(1000), stopped.realtime_ms),
            None => self.now.clock_ms(stopped.then()),
        };
        (-1000..STOP_MAX_MS).contains(&ago).then_some(stopped)
    }

    fn add_course(&self, boot: &mut Boot, stopped: Option<&Stopped>) {
        let Some(course) = self.record.and_then(|record| record.course) else { return };
        let counter = (course.counter != 0).then_some(course.counter);
        let begun = Then { counter, realtime_ms: course.begun_at.saturating_mul(1000) };
        let marks = Ends::of(course.marks);
        let (ago, disagree) = self.now.ago(begun, stopped.map(Stopped::then), marks.last());
        boot.disagree = disagree;
        boot.measured_by = ago.map(|ago| ago.by);
        let stop = ago.and_then(|ago| Some(ago.stopped_ms? - ago.begun_ms));
        let jump = ago.map(|ago| ago.begun_ms - marks.last());
        add(boot, Part::Stop, stop);
        for (part, ms) in marks.0 {
            add(boot, part, ms);
        }
        add(boot, Part::Jump, jump);
    }

    /// Returns the verb of the record; or else the request to the previous system, if that meant this handoff.
    fn verb(&self, record: Record) -> Option<String> {
        let asked = || {
            let meant = record.handoff.to_string();
            let stopped = self.stop().filter(|stopped| stopped.handoff.as_ref() == Some(&meant))?;
            match stopped.asked {
                Asked::Kexec => Some(Verb::Kexec),
                Asked::Reboot => Some(Verb::Reboot),
                Asked::Poweroff | Asked::Halt | Asked::Nothing => None,
            }
        };
        record.verb.or_else(asked).map(|verb| verb.to_string())
    }

    fn add_down(&self, boot: &mut Boot, stopped: Option<&Stopped>) {
        let Some(stopped) = stopped else { return };
        let (ago, disagree) = self.now.ago(stopped.then(), None, 0);
        boot.disagree = disagree;
        boot.measured_by = ago.map(|ago| ago.by);
        add(boot, Part::Down, ago.map(|ago| ago.begun_ms));
    }

    fn add_firmware(&self, boot: &mut Boot, stopped: Option<&Stopped>) {
        // After a poweroff or halt, the time depends on when a person switched the machine on.
        let restarted = stopped.filter(|stopped| matches!(stopped.asked, Asked::Reboot | Asked::Kexec));
        if let (Some(stopped), true) = (restarted, self.now.has_chip) {
            add(boot, Part::Firmware, u64::try_from(self.now.clock_ms(stopped.then())).ok());
            boot.measured_by = boot.ms(Part::Firmware).map(|_| By::Clock);
        }
    }

    fn add_day(&self, boot: &mut Boot) {
        let Reached { initrd, userspace, target } = self.reached;
        let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
        let first = initrd.or(userspace);
        add(boot, Part::Kernel, first);
        add(boot, Part::Initrd, initrd.and_then(|initrd| between(Some(initrd), userspace)));
        add(boot, Part::Userspace, between(userspace, target));
    }
}

fn add(boot: &mut Boot, phase: Part, ms: Option<u64>) {
    if let Some(ms) = ms.filter(|ms| *ms <= LONGEST_MS) {
        boot.phases.push(Phase { phase, ms });
    }
}

/// The hook's parts up to the load, in milliseconds, if the record contains them.
#[derive(Clone, Copy, Debug)]
struct Ends([(Part, Option<u64>); 3]);

impl Ends {
    /// Each part begins where the one before ended. Marks that are out of order are ignored. The last of the
    /// parts lasts until the load begins.
    fn of(marks: Marks) -> Ends {
        let Marks { synced, torn_down, others_done, load_begun } = marks;
        let [synced, torn_down, others_done, load_begun] =
            [synced, torn_down, others_done, load_begun].map(|mark| mark.map(u64::from));
        let told = [synced, torn_down, others_done, load_begun].into_iter().flatten();
        let nothing = Ends([(Part::Sync, None), (Part::Teardown, None), (Part::Settle, None)]);
        if !told.clone().is_sorted() {
            return nothing;
        }
        let last = told.max().unwrap_or_default();
        // Up to the mark, or up to the last one if none of the later parts was recorded.
        let ends = |mark: Option<u64>, later: [Option<u64>; 2]| match later {
            [None, None] => mark.map(|_| last),
            _ => mark,
        };
        let sync = ends(synced, [torn_down, others_done]);
        let teardown = ends(torn_down, [others_done, None]);
        let mut before = 0;
        let mut part = |end: Option<u64>| {
            let took = end.map(|end| end - before);
            before = end.unwrap_or(before);
            took
        };
        let [sync, teardown, settle] = [sync, teardown, others_done.map(|_| last)].map(&mut part);
        Ends([(Part::Sync, sync), (Part::Teardown, teardown), (Part::Settle, settle)])
    }

    /// Returns where the last of the parts ends.
    fn last(&self) -> u64 {
        self.0.iter().filter_map(|(_, ms)| *ms).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use crate::report::boot::tests as boots;
    use crate::report::clock::tests::{before, now};
    use nextkernel_plan::{Course, HandoffId};

    const THIS: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";
    const BEFORE: &str = "2f0e0d0c-0b0a-0908-0706-050403020100";

    fn record(marks: Marks) -> Record {
        // 4.8 s before the kernel's start.
        let course = Course {
            begun_at: before(0, 4800).realtime_ms / 1000,
            counter: before(4800, 0).counter.unwrap(),
            marks,
            trouble: nextkernel_plan::Trouble::GPU,
        };
        Record { handoff: HandoffId(0xa7), verb: Some(Verb::Kexec), course: Some(course) }
    }

    /// `kexec_file_load` does not record `later`; `kexec_load` records all marks.
    fn marks(synced: u32, later: Option<(u32, u32)>, load_begun: u32) -> Marks {
        let (torn_down, others_done) = later.unzip();
        Marks { synced: Some(synced), torn_down, others_done, load_begun: Some(load_begun) }
    }

    fn stop(ago_ms: u32, asked: Asked) -> Stopped {
        let then = before(ago_ms.into(), ago_ms.into());
        let Then { counter, realtime_ms } = then;
        Stopped { boot_id: BEFORE.to_owned(), asked, realtime_ms, handoff: None, counter }
    }

    fn facts(history: &History, record: Option<Record>, stopped: Option<Stopped>) -> Facts<'_> {
        Facts {
            boot_id: THIS.to_owned(),
            kernel: "6.12".to_owned(),
            record,
            jumped: Some(record.is_some()),
            stopped,
            history,
            now: now(),
            reached: Reached { initrd: Some(900), userspace: Some(3200), target: Some(8300) },
        }
    }

    fn parts(boot: &Boot) -> Vec<(Part, u64)> {
        boot.phases.iter().map(|phase| (phase.phase, phase.ms)).collect()
    }

    #[test]
    fn the_parts_of_a_handoff_are_one_way_without_a_gap() {
        let (none, asked) = (History::default(), Some(stop(9000, Asked::Kexec)));
        let direct = facts(&none, Some(record(marks(41, Some((1480, 1490)), 1495))), asked.clone()).boot();
        let day = [(Part::Kernel, 900), (Part::Initrd, 2300), (Part::Userspace, 5100)];
        let mut way = vec![(Part::Stop, 4200), (Part::Sync, 41), (Part::Teardown, 1439), (Part::Settle, 15)];
        way.extend([(Part::Jump, 3305)].iter().chain(&day));
        assert_eq!((parts(&direct), direct.total_ms()), (way, Some(9000 + 8300)));
        assert_eq!(direct.handoff.as_ref().unwrap().trouble, [Trouble::GpuDriverStayed]);
        assert!(direct.is_sound() && direct.measured_by == Some(By::Counter));

        let verified = facts(&none, Some(record(marks(41, None, 44))), asked.clone()).boot();
        let mut way = vec![(Part::Stop, 4200), (Part::Sync, 44), (Part::Jump, 4756)];
        way.extend(&day);
        assert_eq!((parts(&verified), verified.total_ms()), (way, Some(9000 + 8300)));

        // Marks that are out of order are ignored, and the total is the same.
        let hostile = facts(&none, Some(record(marks(900, Some((41, 50)), 60))), asked).boot();
        assert_eq!((hostile.ms(Part::Sync), hostile.ms(Part::Jump)), (None, Some(4800)));
        assert_eq!(hostile.total_ms(), Some(9000 + 8300));
    }

    #[test]
    fn what_is_unknown_is_absent_and_not_nothing() {
        let none = History::default();
        let unheard = facts(&none, Some(record(marks(41, None, 44))), None).boot();
        assert_eq!((unheard.ms(Part::Stop), unheard.total_ms(), unheard.asked), (None, None, None));
        assert_eq!(unheard.ms(Part::Jump), Some(4756));
        let silent = Record { course: None, ..record(Marks::default()) };
        let silent = facts(&none, Some(silent), Some(stop(9000, Asked::Kexec))).boot();
        assert_eq!((silent.came, silent.measured_by, silent.ms(Part::Jump)), (Came::Handoff, None, None));
        // With another init than systemd.
        let other =
            Facts { reached: Reached::default(), ..facts(&none, Some(record(marks(4, None, 4))), None) };
        assert_eq!(parts(&other.boot()), [(Part::Sync, 4), (Part::Jump, 4796)]);
    }

    #[test]
    fn a_handoff_that_was_meant_and_did_not_start_this_kernel_is_kept_however_long_ago() {
        let mut history = History::default();
        history.push(Boot { boot_id: BEFORE.to_owned(), ..boots::boot() });
        let meant = |ago| Stopped { handoff: Some("00000000000000a7".to_owned()), ..stop(ago, Asked::Kexec) };
        let failed = facts(&history, None, Some(meant(3_700_000))).boot();
        assert_eq!((failed.failed.as_deref(), failed.came), (Some("00000000000000a7"), Came::Firmware));
        assert!(failed.is_sound());
        let came = facts(&history, Some(record(marks(41, None, 44))), Some(meant(9000))).boot();
        assert_eq!(came.failed, None);
    }

    #[test]
    fn a_restart_through_firmware_is_measured_by_the_clock() {
        let none = History::default();
        let restart = facts(&none, None, Some(stop(190_000, Asked::Reboot))).boot();
        assert_eq!(restart.ms(Part::Firmware), Some(190_000));
        assert!(restart.is_yardstick() && restart.is_sound() && restart.measured_by == Some(By::Clock));
        // When the machine was switched on again depends on a person; and a shutdown more than an hour ago was
        // that of another boot.
        let off = facts(&none, None, Some(stop(190_000, Asked::Poweroff))).boot();
        assert_eq!((off.ms(Part::Firmware), off.asked), (None, Some(Asked::Poweroff)));
        let long = facts(&none, None, Some(stop(3_700_000, Asked::Reboot))).boot();
        assert_eq!((long.ms(Part::Firmware), long.asked), (None, None));
        let still = facts(&none, None, Some(stop(190_000, Asked::Reboot)));
        let still = Facts { now: Now { has_chip: false, ..now() }, ..still }.boot();
        assert_eq!((still.ms(Part::Firmware), still.asked), (None, Some(Asked::Reboot)));
    }

    #[test]
    fn what_was_preloaded_is_one_part_from_the_command_and_who_went_down_told_the_verb() {
        let none = History::default();
        let record = Some(Record::preloaded(HandoffId(0xa7)));
        let meant =
            |id: u64| Stopped { handoff: Some(HandoffId(id).to_string()), ..stop(9000, Asked::Reboot) };
        let boot = facts(&none, record, Some(meant(0xa7))).boot();
        assert_eq!(
            (boot.came, boot.handoff.clone().unwrap().verb.as_deref()),
            (Came::Preloaded, Some("reboot"))
        );
        let way = [(Part::Down, 9000), (Part::Kernel, 900), (Part::Initrd, 2300), (Part::Userspace, 5100)];
        assert_eq!((parts(&boot), boot.total_ms()), (way.to_vec(), Some(9000 + 8300)));
        assert!(boot.is_sound() && boot.measured_by == Some(By::Counter) && boot.is_by_handoff());
        let other = facts(&none, record, Some(meant(0xa8))).boot();
        assert_eq!(other.handoff.unwrap().verb, None);
        let unknown = facts(&none, record, None).boot();
        assert_eq!((unknown.came, unknown.ms(Part::Down), unknown.total_ms()), (Came::Preloaded, None, None));
    }

    #[test]
    fn each_way_to_come_is_told_truly() {
        let none = History::default();
        let of = |jumped, stopped| {
            let boot = Facts { jumped, ..facts(&none, None, stopped) }.boot();
            (boot.came, boot.asked, boot.ms(Part::Jump), boot.is_yardstick())
        };
        let kexec = || Some(stop(190_000, Asked::Kexec));
        let asked = Some(Asked::Kexec);
        assert_eq!(of(Some(true), kexec()), (Came::Jump, asked, None, false));
        // The hook failed, and did a full reboot.
        assert_eq!(of(Some(false), kexec()), (Came::Firmware, asked, None, false));
        assert_eq!(of(None, kexec()), (Came::Unknown, asked, None, false));
        assert_eq!(of(None, None), (Came::Unknown, None, None, false));
        let reboot = Some(stop(190_000, Asked::Reboot));
        assert_eq!(of(None, reboot), (Came::Firmware, Some(Asked::Reboot), None, true));
    }

    #[test]
    fn a_system_that_ended_by_itself_left_no_word_and_one_that_was_off_for_a_night_did() {
        let mut history = History::default();
        history.push(Boot { boot_id: BEFORE.to_owned(), ..boots::boot() });
        let asked = |stopped| facts(&history, None, stopped).boot().asked;
        assert_eq!(asked(None), Some(Asked::Nothing));
        assert_eq!(asked(Some(stop(3_700_000, Asked::Poweroff))), Some(Asked::Poweroff));
        assert_eq!(facts(&History::default(), None, None).boot().asked, None);
    }

    #[test]
    fn a_machine_is_looked_at_as_it_is() {
        let scratch = Scratch::new();
        let boot = measure(&scratch.root, &History::default());
        assert_eq!((boot.came, boot.phases.len(), boot.measured_by), (Came::Unknown, 0, None));
        scratch.put("/proc/sys/kernel/random/boot_id", &format!("{THIS}\n"));
        scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
        scratch.put("/proc/sys/kernel/bootloader_type", "208\n");
        scratch.put("/proc/cmdline", "root=x nextkernel.record=00000000000000a7:kexec:1:2:s5.l6:m\n");
        crate::report::history::staged(&scratch.root, HandoffId(0xa7), "debian", "verified", None).unwrap();
        let boot = measure(&scratch.root, &History::default());
        let handoff = boot.handoff.clone().unwrap();
        assert_eq!((boot.came, boot.boot_id.as_str()), (Came::Handoff, THIS));
        assert_eq!(handoff.entry.as_deref(), Some("debian"));
        assert_eq!(handoff.trouble, [Trouble::ModuleStayed]);
        assert_eq!(parts(&boot), [(Part::Sync, 6)], "1970 is too long ago");
        assert!(boot.is_sound());
        scratch.put("/proc/cmdline", "root=x nextkernel.record=00000000000000a7:preloaded\n");
        let boot = measure(&scratch.root, &History::default());
        let handoff = boot.handoff.unwrap();
        assert_eq!((boot.came, handoff.entry.as_deref()), (Came::Preloaded, Some("debian")));
        scratch.put("/proc/cmdline", "root=x\n");
        assert_eq!(measure(&scratch.root, &History::default()).came, Came::Jump);
    }
}
