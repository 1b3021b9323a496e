//! Every deadline and every buffer of the night, in one table.

use core::time::Duration;

/// How long each step may take. What ends in `_until` is counted from the hook's start, and no step goes on beyond the one
/// of its name, but for what a child that is given up takes, and a kernel that is busy for a moment: so the whole night ends
/// before the init's patience does, whatever takes how long. A console that takes its time for each line is not counted.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What the init gives its hooks.
    pub whole: Duration,
    /// Where no process can be made, those of other users than root are ended for so long.
    pub room: Duration,
    /// Where the init has left processes they are asked to end, and then have so long.
    pub term: Duration,
    /// Those that were killed have so long.
    pub kill: Duration,
    /// What the init has left writable is made read-only until here, which writes back first.
    pub remount_until: Duration,
    /// A sync that makes no progress for this long is given up. systemd waits three times ten seconds
    /// (`sync_with_progress`, src/shutdown/shutdown.c) and has synced before; this is the second time.
    pub sync: Duration,
    /// A sync that makes progress is given up here, too: the init then takes over.
    pub sync_until: Duration,
    /// The exit of a module that drives no GPU; giving back a console, the sound of a GPU, a dump of its state.
    pub module: Duration,
    /// The exit of a driver of GPUs, or the removal of one device. Each GPU takes some seconds to stop its firmware, and
    /// those behind one module take that one after the other: with progress it is waited for on.
    pub gpu: Duration,
    /// A driver that is still initialising; the same. Without progress its device's probe is stuck, and with
    /// it `wait_for_device_probe`, at the begin of every reboot(2).
    pub initialising: Duration,
    /// All teardown is given up here.
    pub teardown_until: Duration,
    /// The load: reading and copying a few hundred megabytes of memory and, on x86, a digest over them
    /// in generic C (some 300 MB/s). A gigabyte is loaded in well under systemd's.
    pub load: Duration,
    /// The init's other hooks are waited for until here, which is nearly as long as the init would wait:
    /// one of them may be writing a firmware.
    pub others_until: Duration,
    /// The last sync without progress: nothing was written since the first but what the other hooks did.
    pub sync_again: Duration,
    /// The last sync is given up here.
    pub sync_again_until: Duration,
    /// The direct loader's copying, and then the unbinding of other devices, may take until here.
    pub unbind_until: Duration,
    /// The sync before the hook restarts the machine itself: without progress. It is the last there is, for reboot(2) writes
    /// nothing.
    pub last_sync: Duration,
    /// It is given up here, too.
    pub last_sync_until: Duration,
    /// Talking to a watchdog, behind which a management controller may hang.
    pub watchdog: Duration,
}

impl Budget {
    /// What the init of this name gives.
    #[must_use]
    pub fn of(init: &[u8]) -> &'static Budget {
        match init {
            b"nitro" => &NITRO,
            b"procd" => &PROCD,
            b"systemd" => &SYSTEMD,
            _ => &PATIENT,
        }
    }

    /// All that ending what still runs may take, the looks at it included.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.term + self.kill + LOOKS
    }
}

/// systemd gives all its hooks together 90 seconds (`DEFAULT_TIMEOUT_USEC`, src/shutdown/shutdown.c).
pub const SYSTEMD: Budget = Budget {
    whole: seconds(90),
    room: Duration::from_millis(300),
    term: seconds(2),
    kill: seconds(3),
    remount_until: seconds(20),
    sync: seconds(20),
    sync_until: seconds(41),
    module: seconds(15),
    gpu: seconds(45),
    initialising: seconds(30),
    teardown_until: seconds(65),
    load: seconds(25),
    others_until: seconds(70),
    sync_again: seconds(5),
    sync_again_until: seconds(76),
    unbind_until: seconds(81),
    last_sync: seconds(20),
    last_sync_until: seconds(85),
    watchdog: seconds(3),
};

/// As PID 1, and under the other inits, nobody waits for the hook: as systemd's, but for the end of thousands of processes,
/// and the last sync.
pub const PATIENT: Budget = Budget {
    whole: seconds(120),
    room: seconds(2),
    kill: seconds(12),
    remount_until: seconds(26),
    sync_until: seconds(47),
    sync_again_until: seconds(78),
    last_sync_until: seconds(115),
    ..SYSTEMD
};

/// nitro kills SYS/final after 30 seconds.
pub const NITRO: Budget = Budget {
    whole: seconds(30),
    room: Duration::from_millis(300),
    term: seconds(2),
    kill: seconds(2),
    remount_until: seconds(7),
    sync: seconds(4),
    sync_until: seconds(12),
    module: seconds(4),
    gpu: seconds(8),
    initialising: seconds(6),
    teardown_until: seconds(18),
    load: seconds(6),
    others_until: seconds(19),
    sync_again: seconds(2),
    sync_again_until: seconds(22),
    unbind_until: seconds(23),
    last_sync: seconds(15),
    last_sync_until: seconds(27),
    watchdog: seconds(2),
};

/// procd gives a script of its shutdown 15 seconds (rcS.c).
pub const PROCD: Budget = Budget {
    whole: seconds(15),
    room: Duration::from_millis(300),
    term: seconds(1),
    kill: seconds(1),
    remount_until: Duration::from_millis(3500),
    sync: seconds(2),
    sync_until: seconds(6),
    module: Duration::from_millis(1500),
    gpu: seconds(2),
    initialising: Duration::from_millis(1500),
    teardown_until: seconds(8),
    load: Duration::from_millis(2500),
    others_until: seconds(9),
    sync_again: Duration::from_millis(500),
    sync_again_until: Duration::from_millis(9800),
    unbind_until: Duration::from_millis(10_200),
    last_sync: seconds(8),
    last_sync_until: seconds(13),
    watchdog: seconds(1),
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long the jump may take before the guard resets the machine, where the plan says nothing: the
/// kernel shuts its devices down one after the other, and large arrays take minutes to write their
/// caches back.
pub const GUARD: u16 = 300;

/// The guards act one after the other, so much later each.
pub const GUARDS: [Duration; 3] = [seconds(0), seconds(2), seconds(4)];

/// What systemd leaves a watchdog for at `reboot`, in seconds (`RebootWatchdogSec=`, systemd-system.conf(5)).
pub const REBOOT_WATCHDOG: u16 = 600;

/// A child that was killed is given so long to end, before it counts as held by the kernel.
pub const LETS_GO: Duration = Duration::from_millis(300);

/// How often the stack of such a child is looked at, a [`GLANCE`] apart.
pub const STACK_LOOKS: u32 = 10;

/// Those who hold a GPU's files are ended, and looked for again, for so long.
pub const HOLDERS: Duration = seconds(2);

/// Looking for them reads other processes' files in /proc, which may hang with their memory's lock.
pub const HOLDERS_LOOK: Duration = seconds(5);

/// What takes longer than a moment is looked at so often: does it get on?
pub const LOOK: Duration = seconds(1);

/// Without progress for so much of its time an act is given up: a third.
pub const STALLED: u32 = 3;

/// What had less time than this is not called hung, whatever the init's patience: each GPU takes some seconds, and the answer
/// would be a reset.
pub const HUNG: Duration = seconds(10);

/// So many places of a driver are told from those where it has not been.
pub const PLACES: usize = 8;

/// A module that is in use is tried again for so long: its last user is ending.
pub const IN_USE: Duration = seconds(3);

/// The pauses between: the first, doubled until the last.
pub const IN_USE_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// Modules standing on modules standing on a driver: nvidia's stack has three storeys.
pub const STOREYS: u32 = 8;

/// How many devices of one driver are unbound, one after the other.
pub const DEVICES_MAX: u32 = 64;

/// Processes between PID 1 and the hook.
pub const ANCESTORS_MAX: usize = 32;

/// Processes below processes below the one that runs the hooks: a hook, its shell, its pipes.
pub const RELATIVES_DEPTH: usize = 12;

/// How many drivers of GPUs one machine is looked at for.
pub const GPUS_MAX: usize = 8;

/// How many majors of character devices belong to one driver; nvidia has four.
pub const MAJORS_MAX: usize = 8;

/// The looks at every process while they are ended: a look that takes longer is cut off, but for so many processes.
pub const LOOKS: Duration = Duration::from_millis(500);

/// After so many processes a look asks whether its time is over.
pub const LOOKS_AT_A_TIME: u32 = 64;

/// Between two looks at who is being ended.
pub const MOMENT: Duration = Duration::from_millis(1);

/// How many of those that are ended are told by their names.
pub const NAMED: usize = 4;

/// So many lines of a kind go to the consoles, and the rest to the kernel log alone: a serial console takes a hundredth of
/// a second for each.
pub const SHOWN: usize = 32;

/// As PID 1: all that is remounted read-only, which writes back first. Elsewhere it has what the first sync has.
pub const REMOUNT: Duration = seconds(30);

/// All that PID 1 does before the night: whoever hangs in it is ended by a guard of its own.
pub const CLEAN_UP: Duration = seconds(180);

/// Closing all that the old root lies on, in an exitrd: as long as systemd gives one unmounting
/// (`DEFAULT_TIMEOUT_USEC`, src/shutdown/umount.c).
pub const CLOSE: Duration = seconds(90);

/// Closing one piece of storage: an unmount writes back what is dirty, `swapoff` reads swap back.
pub const CLOSE_ACT: Duration = seconds(30);

/// The pauses after rounds that closed nothing more, before it is left open: whoever held it may be ending.
pub const CLOSE_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// A sync takes so long before anybody looks at how much there is to write.
pub const SYNC_UNSEEN: Duration = Duration::from_millis(500);

/// What `oom_score_adj` holds: from -1000 to 1000, and a newline (`proc_pid_oom_score_adj(5)`).
pub const SCORE_MAX: usize = 8;

/// Between two looks at something that is being waited for.
pub const GLANCE: Duration = Duration::from_millis(50);

/// How often a call that says EBUSY is tried again, a [`GLANCE`] apart: somebody else is loading or
/// jumping at this moment (`kexec_trylock`, `kernel/kexec_internal.h`); it never means that an image is loaded.
pub const BUSY_TRIES: u32 = 20;

/// Seconds after which a panic restarts the machine, where nothing else was set.
pub const PANIC_SECONDS: &[u8] = b"10\n";

/// Lines of a level below this are shown on consoles: all but those for debugging (`include/linux/kern_levels.h`).
pub const CONSOLE_LEVEL: usize = 7;

/// /proc/meminfo, which is less than half of it.
pub const MEMINFO_MAX: usize = 4096;

/// A line of a file in /proc; of a longer one the begin is looked at. In mountinfo a path of 4096 bytes may stand there
/// escaped, each byte as four (`mangle_path`, `fs/seq_file.c`). What is too long to be judged counts as writable.
pub const LINE_MAX: usize = 16 * 1024;

/// /proc/PID/stat up to the number of threads: a name of at most 64 bytes and nineteen numbers (`proc_pid_stat(5)`).
pub const STAT_MAX: usize = 512;

/// The line of the children of a process, where it has one child.
pub const CHILDREN_MAX: usize = 32;

/// What is looked at of a command line: of PID 1 its path and its verb, of a script of the init its path.
pub const CMDLINE_MAX: usize = 512;

/// A mount point, its NUL included (`PATH_MAX`, limits.h).
pub const MOUNT_POINT_MAX: usize = 4096;

/// Mount points that are held at a time, the last of them all: some hundreds.
pub const MOUNT_POINTS_MAX: usize = 16 * 1024;

/// Pieces of storage that the kernel does not come back from, and that are tried no more.
pub const HUNG_MAX: usize = 8;

/// A variable of the firmware's: attributes, and a file's name on a FAT file system with its NUL.
pub const VARIABLE_MAX: usize = 4 + 2 * 256;

/// What reboot(2) takes for the firmware, its NUL included (`sys_reboot`, kernel/reboot.c).
pub const PARAMETER_MAX: usize = 256;

/// Entries of /proc read at a time.
pub const DIRECTORY_MAX: usize = 2048;

/// What a symbolic link of sysfs holds: a path of the device tree, a dozen bridges deep.
pub const LINK_MAX: usize = 512;

/// A path in /sys or /proc, made of such a link.
pub const PATH_MAX: usize = 640;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::vec::Vec;

    /// What a child that is given up takes beyond its time: it is killed, and may still end.
    const GIVING_UP: Duration = LETS_GO;

    /// The same where the stack of one that does not end is looked at.
    fn looking_at_a_stack() -> Duration {
        LETS_GO + GLANCE * STACK_LOOKS
    }

    /// A call that meets another one.
    fn busy() -> Duration {
        GLANCE * BUSY_TRIES
    }

    /// When a step ends at the latest that begins at `at`, goes on until `until`, and takes `least` even where that is over.
    fn ends(at: Duration, until: Duration, least: Duration) -> Duration {
        until.max(at + least)
    }

    /// The steps of docs/night.md in their order, each taking all that it may, and when each has ended.
    fn steps(budget: &Budget) -> Vec<(&'static str, Duration)> {
        let sync = |at, until| ends(at, until, SYNC_UNSEEN) + GIVING_UP;
        let mut at = Duration::ZERO;
        let mut all = Vec::new();
        let mut step = |name, end| {
            assert!(end >= at, "{name} {budget:?}");
            at = end;
            all.push((name, at));
            at
        };
        // Room for the guard's processes, and once more for the one that ends the others.
        let at = step("end what still runs", budget.room * 2 + budget.end() + GIVING_UP);
        let at = step("remount", ends(at, budget.remount_until, Duration::ZERO) + GIVING_UP);
        let at = step("sync", sync(at, budget.sync_until));
        let loaded = at + budget.load + GIVING_UP;
        let torn = ends(at, budget.teardown_until, Duration::ZERO) + looking_at_a_stack();
        let at = step("teardown", torn);
        let at = step("load", loaded.max(at));
        let at = step("others", ends(at, budget.others_until, Duration::ZERO) + GLANCE);
        let at = step("sync again", sync(at, budget.sync_again_until));
        let at = step("load directly", ends(at, budget.unbind_until, Duration::ZERO) + GIVING_UP);
        let at = step("unbind", ends(at, budget.unbind_until, Duration::ZERO) + GIVING_UP);
        let at = step("watchdog", at + budget.watchdog + GIVING_UP);
        let at = step("jump", at + busy());
        step("watchdog again", at + budget.watchdog + GIVING_UP);
        all
    }

    /// When the hook restarts the machine at the latest, where a step that has ended at `at` says so: it unloads, waits for
    /// the other hooks, syncs once more, and unloads again.
    fn restarts(budget: &Budget, at: Duration) -> Duration {
        let at = ends(at + busy(), budget.others_until, Duration::ZERO) + GLANCE;
        ends(at, budget.last_sync_until, SYNC_UNSEEN) + GIVING_UP + busy()
    }

    #[test]
    fn whatever_takes_as_long_as_it_may_the_last_step_ends_before_the_inits_patience_does() {
        for budget in [SYSTEMD, PATIENT, NITRO, PROCD] {
            let steps = steps(&budget);
            let ended = |name| steps.iter().find(|step| step.0 == name).map(|step| step.1).unwrap();
            assert!(steps.iter().all(|(_, end)| *end < budget.whole), "{steps:?}");
            for (name, end) in &steps {
                // Behind the last sync nothing restarts the machine but an oops, or what was unbound.
                if !matches!(*name, "watchdog" | "jump" | "watchdog again") {
                    assert!(restarts(&budget, *end) < budget.whole, "{name} {budget:?}");
                }
            }
            // Whatever came before, each step has the time that it needs where nothing is wrong with it.
            assert!(ended("remount") + budget.sync <= budget.sync_until, "{steps:?}");
            assert!(ended("sync") + budget.module <= budget.teardown_until, "{steps:?}");
            assert!(ended("others") + budget.sync_again <= budget.sync_again_until, "{steps:?}");
            assert!(budget.gpu < budget.teardown_until && budget.initialising < budget.teardown_until);
        }
    }

    #[test]
    fn as_pid_1_all_that_comes_before_the_night_ends_before_its_guard_acts() {
        let end = PATIENT.room * 2 + PATIENT.end() + GIVING_UP;
        // Where something stays open, it is tried once more, within the same time.
        let close = CLOSE + GIVING_UP + end + GIVING_UP;
        assert!(end + close + REMOUNT + GIVING_UP < CLEAN_UP);
    }
}
