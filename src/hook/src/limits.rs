//! Every deadline and every buffer of the night, in one table.

use core::time::Duration;

/// How long each step may take. What ends in `_until` is counted from the hook's start, so that the
/// whole night ends before the init's patience does.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// What the init gives its hooks.
    pub whole: Duration,
    /// A sync that makes no progress for this long is given up. systemd waits three times ten seconds
    /// (`sync_with_progress`, src/shutdown/shutdown.c) and has synced before; this is the second time.
    pub sync: Duration,
    /// A sync that makes progress is given up here, too: the init then takes over.
    pub sync_until: Duration,
    /// The exit of a module that drives no GPU.
    pub module: Duration,
    /// That of a driver of GPUs, or the removal of one device: each GPU takes some seconds to stop its
    /// firmware, and eight of them behind one module take that one after the other.
    pub gpu: Duration,
    /// A driver that is still initialising is waited for so long: then its device's probe is stuck, and with
    /// it `wait_for_device_probe`, at the begin of every reboot(2). IGT gives the slowest as long as
    /// systemd's (`lib/igt_kmod.c`).
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
}

impl Budget {
    /// What the init of this name gives.
    #[must_use]
    pub fn of(init: &[u8]) -> &'static Budget {
        match init {
            b"nitro" => &NITRO,
            b"procd" => &PROCD,
            _ => &SYSTEMD,
        }
    }
}

/// systemd gives all its hooks together 90 seconds (`DEFAULT_TIMEOUT_USEC`, src/shutdown/shutdown.c). As
/// PID 1 nobody waits for the hook, and this is as good as any.
pub const SYSTEMD: Budget = Budget {
    whole: seconds(90),
    sync: seconds(20),
    sync_until: seconds(40),
    module: seconds(15),
    gpu: seconds(45),
    initialising: seconds(10),
    teardown_until: seconds(65),
    load: seconds(25),
    others_until: seconds(72),
    sync_again: seconds(5),
    sync_again_until: seconds(78),
    unbind_until: seconds(87),
};

/// nitro kills SYS/final after 30 seconds.
pub const NITRO: Budget = Budget {
    whole: seconds(30),
    sync: seconds(8),
    sync_until: seconds(12),
    module: seconds(6),
    gpu: seconds(8),
    initialising: seconds(5),
    teardown_until: seconds(20),
    load: seconds(10),
    others_until: seconds(22),
    sync_again: seconds(3),
    sync_again_until: seconds(25),
    unbind_until: seconds(28),
};

/// procd gives a script of its shutdown 15 seconds (rcS.c).
pub const PROCD: Budget = Budget {
    whole: seconds(15),
    sync: seconds(4),
    sync_until: seconds(6),
    module: seconds(3),
    gpu: seconds(3),
    initialising: seconds(2),
    teardown_until: seconds(9),
    load: seconds(4),
    others_until: seconds(10),
    sync_again: seconds(1),
    sync_again_until: seconds(11),
    unbind_until: seconds(13),
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

/// Talking to a watchdog, behind which a management controller may hang.
pub const WATCHDOG: Duration = seconds(3);

/// A child that was killed is given so long to end, before it counts as held by the kernel.
pub const LETS_GO: Duration = Duration::from_millis(300);

/// How often the stack of such a child is looked at, a [`GLANCE`] apart.
pub const STACK_LOOKS: u32 = 10;

/// Those who hold a GPU's files are ended, and looked for again, for so long.
pub const HOLDERS: Duration = seconds(2);

/// Looking for them reads other processes' files in /proc, which may hang with their memory's lock.
pub const HOLDERS_LOOK: Duration = seconds(5);

/// Giving back a framebuffer console, the sound of a GPU, a dump of its state: work of moments, unless a
/// lock hangs.
pub const PINS: Duration = seconds(5);

/// A module that is in use is tried again for so long: its last user is ending.
pub const IN_USE: Duration = seconds(3);

/// The pauses between: the first, doubled until the last.
pub const IN_USE_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(200)];

/// Modules standing on modules standing on a driver: nvidia's stack has three storeys.
pub const STOREYS: u32 = 8;

/// How many devices of one driver are unbound, one after the other.
pub const DEVICES_MAX: u32 = 64;

/// Processes below processes below the one that runs the hooks: a hook, its shell, its pipes.
pub const ANCESTORS_MAX: usize = 32;

/// How many drivers of GPUs one machine is looked at for.
pub const GPUS_MAX: usize = 8;

/// How many majors of character devices belong to one driver; nvidia has four.
pub const MAJORS_MAX: usize = 8;

/// Where the init has left processes they are asked to end, and then have so long: procd gives the whole night
/// fifteen seconds.
pub const TERM: Duration = seconds(2);

/// Those that were killed have so long.
pub const KILL: Duration = seconds(1);

/// Both, and the looks between.
pub const END: Duration = seconds(4);

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

/// A line of a file in /proc. In mountinfo a path of 4096 bytes may stand there escaped, each byte
/// as four (`mangle_path`, `fs/seq_file.c`); two such in one line are refused.
pub const LINE_MAX: usize = 16 * 1024;

/// /proc/PID/stat up to the parent: a name of at most 64 bytes and three numbers (`proc_pid_stat(5)`).
pub const STAT_MAX: usize = 512;

/// The line of the children of a process, where it has one child.
pub const CHILDREN_MAX: usize = 32;

/// What is looked at of a command line: of PID 1 its path and its verb, of a script of the init its path.
pub const CMDLINE_MAX: usize = 512;

/// A mount point, its NUL included (`PATH_MAX`, limits.h).
pub const MOUNT_POINT_MAX: usize = 4096;

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
    use super::*;

    #[test]
    fn every_step_ends_before_the_next_and_the_last_before_the_inits_patience() {
        for budget in [SYSTEMD, NITRO, PROCD] {
            let Budget { whole, sync, sync_until, teardown_until, load, .. } = budget;
            assert!(sync < sync_until, "{budget:?}");
            assert!(sync_until + budget.module <= teardown_until, "{budget:?}");
            assert!(sync_until + load <= budget.others_until, "{budget:?}");
            assert!(sync_until + budget.initialising < teardown_until, "{budget:?}");
            assert!(teardown_until < budget.others_until && budget.others_until < budget.sync_again_until);
            assert!(budget.others_until + budget.sync_again <= budget.sync_again_until, "{budget:?}");
            assert!(budget.sync_again_until < budget.unbind_until && budget.unbind_until < whole);
        }
    }
}
