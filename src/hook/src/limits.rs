//! Every deadline and every buffer of the night, in one table.
//!
//! systemd gives all its hooks together 90 seconds (`DEFAULT_TIMEOUT_USEC`, src/shutdown/shutdown.c).
//! What ends in `_UNTIL` is counted from the hook's start, so that the whole night ends before that.

use core::time::Duration;

/// A sync that makes no progress for this long is given up. systemd waits three times ten seconds
/// (`sync_with_progress`, src/shutdown/shutdown.c) and has synced before; this is the second time.
pub const SYNC: Duration = Duration::from_secs(20);

/// A sync that makes progress is given up here, too: systemd then takes over, with a sync of its own.
pub const SYNC_UNTIL: Duration = Duration::from_secs(45);

/// The load: reading and copying a few hundred megabytes of memory and, on x86, a digest over them
/// in generic C (some 300 MB/s). A gigabyte is loaded in well under this.
pub const LOAD: Duration = Duration::from_secs(25);

/// The init's other hooks are waited for until here, which is nearly as long as systemd would wait:
/// one of them may be writing a firmware.
pub const OTHERS_UNTIL: Duration = Duration::from_secs(75);

/// The last sync without progress: nothing was written since the first but what the other hooks did.
pub const SYNC_AGAIN: Duration = Duration::from_secs(5);

/// The last sync is given up here.
pub const SYNC_AGAIN_UNTIL: Duration = Duration::from_secs(85);

/// Between two looks at something that is being waited for.
pub const GLANCE: Duration = Duration::from_millis(50);

/// How often a call that says EBUSY is tried again, a [`GLANCE`] apart: somebody else is loading or
/// jumping at this moment (`kexec_trylock`, `kernel/kexec_internal.h`); it never means that an image is loaded.
pub const BUSY_TRIES: u32 = 20;

/// Seconds after which a panic restarts the machine, where nothing else was set.
pub const PANIC_SECONDS: &[u8] = b"10\n";

/// A line of a file in /proc. In mountinfo a path of 4096 bytes may stand there escaped, each byte
/// as four (`mangle_path`, `fs/seq_file.c`); two such in one line are refused.
pub const LINE_MAX: usize = 16 * 1024;

/// /proc/PID/stat up to the parent: a name of at most 64 bytes and three numbers (`proc_pid_stat(5)`).
pub const STAT_MAX: usize = 512;

/// What is looked at of PID 1's command line: its path, its verb.
pub const PID1_MAX: usize = 256;

/// Entries of /proc read at a time.
pub const DIRECTORY_MAX: usize = 2048;
