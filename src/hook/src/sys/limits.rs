//! All deadlines and buffer sizes of the end of shutdown, in one table.

use core::time::Duration;

/// How long each step may take. A field that ends in `_until` is counted from the hook's start, and no step
/// goes on beyond the one with its name, except to give up a child, or while the kernel is busy for a moment.
/// So the whole handoff ends before the init loses its patience, however long each step takes. The time that a
/// slow console takes for each line is not counted.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The time that the init gives its hooks.
    pub whole: Duration,
    /// Time for killing processes of users other than root, if no process can be created.
    pub room: Duration,
    /// Time to end after SIGTERM, for processes that the init left running.
    pub term: Duration,
    /// Time for killing those that still run after that.
    pub kill: Duration,
    /// End of remounting read-only the file systems that the init left writable. A remount writes back dirty
    /// data first.
    pub remount_until: Duration,
    /// A sync is given up after this long without progress. systemd waits three times ten seconds
    /// (`sync_with_progress`, src/shutdown/shutdown.c), and has synced before; this is the second time.
    pub sync: Duration,
    /// A sync is given up here even if it makes progress; the init then takes over.
    pub sync_until: Duration,
    /// Time for the exit of a module that drives no GPU, for releasing a console, a GPU's sound, or a dump of its
    /// state, and for unbinding the plan's other devices.
    pub module: Duration,
    /// Time for the exit of a GPU driver, or for the removal of one device. Each GPU needs some seconds to stop
    /// its firmware, and GPUs behind one module do so one after the other: while there is progress, the wait
    /// goes on.
    pub gpu: Duration,
    /// Time for a driver that is still initialising; again, progress extends it. Without progress its device's
    /// probe is stuck, and with it `wait_for_device_probe`, at the start of every reboot(2).
    pub initialising: Duration,
    /// All teardown is given up here.
    pub teardown_until: Duration,
    /// Time for the load: reading and copying a few hundred megabytes of memory and, on x86, a digest over them
    /// in generic C (some 300 MB/s). A gigabyte loads in well under the time allowed under systemd.
    pub load: Duration,
    /// End of the wait for the init's other hooks. It is nearly as late as the init's own, because one of them
    /// may be writing firmware.
    pub others_until: Duration,
    /// The sync before the jump is given up after this long without progress. Since the first sync only the
    /// other hooks have written.
    pub sync_again: Duration,
    /// The sync before the jump is given up here, even if it makes progress.
    pub sync_again_until: Duration,
    /// Deadline for a load by `kexec_load`, which only copies, and then for unbinding other devices,
    /// which also takes no longer than `module`.
    pub unbind_until: Duration,
    /// Before the hook restarts the machine itself, its sync is given up after this long without progress. It
    /// is the last sync there is, because reboot(2) writes nothing.
    pub last_sync: Duration,
    /// That sync is given up here, even if it makes progress.
    pub last_sync_until: Duration,
    /// Time for talking to a watchdog, behind which a management controller may hang.
    pub watchdog: Duration,
}

impl Budget {
    /// Returns the limits under the init of this name.
    #[must_use]
    pub fn of(init: &[u8]) -> &'static Budget {
        match init {
            b"nitro" => &NITRO,
            b"procd" => &PROCD,
            b"systemd" => &SYSTEMD,
            _ => &PATIENT,
        }
    }

    /// Returns the time that ending leftover processes may take, including the scans for them.
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

/// As PID 1, and under the other inits, nobody waits for the hook. The limits are systemd's, except that there
/// is more time to end thousands of processes, and for the last sync.
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

/// procd gives a shutdown script 15 seconds (rcS.c).
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

/// Seconds that the jump may take before the guard resets the machine, if the plan does not set it. The kernel
/// shuts its devices down one after the other, and large arrays take minutes to write back their caches.
pub const GUARD: u16 = 300;

/// Delays of the guard's processes, which act one after the other.
pub const GUARDS: [Duration; 3] = [seconds(0), seconds(2), seconds(4)];

/// Timeout in seconds with which systemd leaves a watchdog at `reboot` (`RebootWatchdogSec=`,
/// systemd-system.conf(5)).
pub const REBOOT_WATCHDOG: u16 = 600;

/// A killed child has this long to end before it counts as held by the kernel.
pub const LETS_GO: Duration = Duration::from_millis(300);

/// How often the stack of such a child is read, a [`GLANCE`] apart.
pub const STACK_LOOKS: u32 = 10;

/// Time for ending the processes that hold a GPU's files, and for searching again.
pub const HOLDERS: Duration = seconds(2);

/// Time for a search for them. It reads other processes' files in /proc, which may hang on the lock of their
/// memory.
pub const HOLDERS_LOOK: Duration = seconds(5);

/// Interval at which an act that takes longer than a moment is checked for progress.
pub const LOOK: Duration = seconds(1);

/// An act is given up if it made no progress for this fraction (a third) of its time.
pub const STALLED: u32 = 3;

/// An act that had less time than this is never called hung, however short the init's patience is: each GPU
/// takes some seconds, and a hang would be answered with a reset.
pub const HUNG: Duration = seconds(10);

/// How many places in a driver are remembered, to recognise one that was not visited before.
pub const PLACES: usize = 8;

/// A module in use is tried again for this long, because its last user is ending.
pub const IN_USE: Duration = seconds(3);

/// Pauses between these attempts: the first one, which is doubled up to the last.
pub const IN_USE_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// Maximum depth of modules that use a driver's symbols; nvidia's stack has three levels.
pub const STOREYS: u32 = 8;

/// Maximum number of devices of one driver that are unbound, one after the other.
pub const DEVICES_MAX: u32 = 64;

/// Maximum number of processes between PID 1 and the hook.
pub const ANCESTORS_MAX: usize = 32;

/// Maximum depth of processes below the one that runs the hooks: a hook, its shell, its pipes.
pub const RELATIVES_DEPTH: usize = 12;

/// Maximum number of GPU drivers on one machine.
pub const GPUS_MAX: usize = 8;

/// Maximum number of character device majors of one driver; nvidia has four.
pub const MAJORS_MAX: usize = 8;

/// Extra time for the scans of all processes while some are ended: a scan checks its deadline only every
/// [`LOOKS_AT_A_TIME`] processes.
pub const LOOKS: Duration = Duration::from_millis(500);

/// Number of processes after which a scan checks its deadline.
pub const LOOKS_AT_A_TIME: u32 = 64;

/// Shortest pause between two scans for processes that are being killed.
pub const MOMENT: Duration = Duration::from_millis(1);

/// Number of ended processes that a log line names.
pub const NAMED: usize = 4;

/// Number of lines of one kind that go to the consoles. Further ones go only to the kernel log, because a
/// serial console takes a hundredth of a second for each.
pub const SHOWN: usize = 32;

/// As PID 1, time for remounting everything read-only, which writes back first. Elsewhere
/// [`Budget::remount_until`] applies.
pub const REMOUNT: Duration = seconds(30);

/// Time for everything that PID 1 does before the handoff. A guard of its own resets the machine if it hangs.
pub const CLEAN_UP: Duration = seconds(180);

/// In an exitrd, time for closing everything that the old root lies on: as long as systemd gives a single
/// unmount (`DEFAULT_TIMEOUT_USEC`, src/shutdown/umount.c).
pub const CLOSE: Duration = seconds(90);

/// Time for closing one piece of storage: an unmount writes back dirty data, `swapoff` reads swap back.
pub const CLOSE_ACT: Duration = seconds(30);

/// Pauses after rounds that closed nothing more. Then the rest is left open; until then, a process that holds
/// it may be ending.
pub const CLOSE_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// Time that a sync gets before the amount of dirty data is first read.
pub const SYNC_UNSEEN: Duration = Duration::from_millis(500);

/// Size of `oom_score_adj`: from -1000 to 1000, and a newline (`proc_pid_oom_score_adj(5)`).
pub const SCORE_MAX: usize = 8;

/// Pause between two checks of something that is being waited for.
pub const GLANCE: Duration = Duration::from_millis(50);

/// How often a call that fails with EBUSY is tried again, a [`GLANCE`] apart. Another process is loading or
/// jumping at this moment (`kexec_trylock`, `kernel/kexec_internal.h`); it never means that an image is loaded.
pub const BUSY_TRIES: u32 = 20;

/// Seconds after which a panic restarts the machine, if no other value is set.
pub const PANIC_SECONDS: &[u8] = b"10\n";

/// Lines of a level below this are shown on consoles: all except debug lines (`include/linux/kern_levels.h`).
pub const CONSOLE_LEVEL: usize = 7;

/// Size of the buffer for /proc/meminfo, which is less than half of it.
pub const MEMINFO_MAX: usize = 4096;

/// Size of the buffer for a line of a file in /proc; of a longer line only the beginning is examined. In
/// mountinfo a path of 4096 bytes may be escaped, each byte as four (`mangle_path`, `fs/seq_file.c`). A line
/// too long to be judged counts as writable.
pub const LINE_MAX: usize = 16 * 1024;

/// Size of /proc/PID/stat up to the number of threads: a name of at most 64 bytes and nineteen numbers
/// (`proc_pid_stat(5)`).
pub const STAT_MAX: usize = 512;

/// Size of the line that lists a process's children, if it has one child.
pub const CHILDREN_MAX: usize = 32;

/// Number of bytes read of a command line: for PID 1 its path and its verb, for a script of the init its path.
pub const CMDLINE_MAX: usize = 512;

/// Size of a mount point, its NUL included (`PATH_MAX`, limits.h).
pub const MOUNT_POINT_MAX: usize = 4096;

/// Size of the buffer for mount points. It holds some hundreds at a time, the last ones of the list.
pub const MOUNT_POINTS_MAX: usize = 16 * 1024;

/// Maximum number of pieces of storage in which the kernel hangs, and which are not tried again.
pub const HUNG_MAX: usize = 8;

/// Size of a firmware variable: its attributes, and a file name on a FAT file system with its NUL.
pub const VARIABLE_MAX: usize = 4 + 2 * 256;

/// Size of the parameter that reboot(2) takes for the firmware, its NUL included (`sys_reboot`,
/// kernel/reboot.c).
pub const PARAMETER_MAX: usize = 256;

/// Size of the buffer for directory entries, such as those of /proc.
pub const DIRECTORY_MAX: usize = 2048;

/// Size of a symbolic link's target in sysfs: a path in the device tree, a dozen bridges deep.
pub const LINK_MAX: usize = 512;

/// Size of a path in /sys or /proc that is built from such a link.
pub const PATH_MAX: usize = 640;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::vec::Vec;

    /// The time that giving up a child takes beyond its limit: it is killed, and may still end.
    const GIVING_UP: Duration = LETS_GO;

    /// Returns that time if, in addition, the stack of a child that does not end is read.
    fn looking_at_a_stack() -> Duration {
        LETS_GO + GLANCE * STACK_LOOKS
    }

    /// Returns the time of a call that meets another load or jump.
    fn busy() -> Duration {
        GLANCE * BUSY_TRIES
    }

    /// Returns the latest end of a step that begins at `at` and goes on until `until`, but takes `least` even
    /// if `until` is over.
    fn ends(at: Duration, until: Duration, least: Duration) -> Duration {
        until.max(at + least)
    }

    /// Returns the steps of docs/night.md in order, each with its end if every step takes its maximum.
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
        // Room for the guard's processes, and once more for the process that ends the others.
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

    /// Returns the latest restart of the machine by the hook after a step that has ended at `at`. The hook
    /// unloads, waits for the other hooks, syncs once more, and unloads again.
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
                // After the last sync, only an oops or an unbound device makes the hook restart the machine.
                if !matches!(*name, "watchdog" | "jump" | "watchdog again") {
                    assert!(restarts(&budget, *end) < budget.whole, "{name} {budget:?}");
                }
            }
            // Whatever came before, each step has the time that it needs if nothing is wrong with it.
            assert!(ended("remount") + budget.sync <= budget.sync_until, "{steps:?}");
            assert!(ended("sync") + budget.module <= budget.teardown_until, "{steps:?}");
            assert!(ended("others") + budget.sync_again <= budget.sync_again_until, "{steps:?}");
            assert!(budget.gpu < budget.teardown_until && budget.initialising < budget.teardown_until);
        }
    }

    #[test]
    fn as_pid_1_all_that_comes_before_the_night_ends_before_its_guard_acts() {
        let end = PATIENT.room * 2 + PATIENT.end() + GIVING_UP;
        // If something stays open, closing is tried once more, within the same time.
        let close = CLOSE + GIVING_UP + end + GIVING_UP;
        assert!(end + close + REMOUNT + GIVING_UP < CLEAN_UP);
    }
}
