//! Machines that were saved when they had booted and waited for their files (`tests/restored.c`). A restored
//! guest begins there, a second after QEMU was started.
//!
//! A snapshot is kept in `target/vm/snapshots`, in a directory named for the hash of everything in it: the
//! kernel, its initrd and command line, the disks, QEMU's version and arguments. The programs under test are
//! never in it.

use crate::host::command;
use crate::host::paths::vm_directory;
use crate::host::scratch::Scratch;
use crate::machine::Machine;
use crate::machine::setup::{Setup, Starts};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// The time since its last use after which a snapshot is removed, and the maximum number of snapshots. One takes
/// some 160 MB, and all tests together use 45.
const STALE: Duration = Duration::from_secs(3 * 24 * 3600);
const MOST: usize = 55;

/// Starts a machine from its snapshot, and makes the snapshot first if there is none. The machine waits for
/// [`Machine::give`].
pub fn restore(setup: &Setup, scratch: Scratch) -> Result<Machine, String> {
    let all = vm_directory().join("snapshots");
    fs::create_dir_all(&all).map_err(|e| format!("{}: {e}", all.display()))?;
    let directory = all.join(format!("{:016x}", hash(setup)?));
    let failed = |e| format!("{}: {e}", directory.display());
    if !directory.exists() {
        // Only one thread or process makes it at a time. The others then find the directory.
        let lock = File::create(directory.with_extension("lock")).map_err(failed)?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
        if !directory.exists() {
            remove_stale(&all)?;
            make(setup, &directory)?;
        }
    }
    File::open(&directory).and_then(|used| used.set_modified(SystemTime::now())).map_err(failed)?;
    Machine::restore(setup, scratch, &directory)
}

fn make(setup: &Setup, directory: &Path) -> Result<(), String> {
    let part = directory.with_extension("part");
    let failed = |e| format!("{}: {e}", part.display());
    let _ = fs::remove_dir_all(&part);
    fs::create_dir(&part).map_err(failed)?;
    let setup = Setup { log: &part.join("log"), ..*setup };
    Machine::start_for_saving(&setup, Scratch::new()?, &part)?.save(&part)?;
    fs::rename(&part, directory).map_err(failed)
}

/// Returns a hash of everything that decides the state of a machine when it waits.
fn hash(setup: &Setup) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(include_bytes!("machine/mod.rs"));
    hasher.write(include_bytes!("machine/setup.rs"));
    hasher.write(include_bytes!("snapshot.rs"));
    (qemu_version()?, setup.memory, setup.counting, setup.args).hash(&mut hasher);
    if let Starts::Kernel { kernel, initrd, cmdline } = setup.starts {
        for file in [kernel, initrd] {
            hasher.write(&fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?);
        }
        cmdline.hash(&mut hasher);
    }
    for disk in setup.disks {
        // Each disk is in a directory that is named for a hash of its recipe.
        disk.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn qemu_version() -> Result<&'static str, String> {
    static VERSION: OnceLock<Result<String, String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| command::run(Command::new("qemu-system-x86_64").arg("--version")));
    version.as_deref().map_err(Clone::clone)
}

/// Removes snapshots that have not been used for a while, the least recently used ones of too many, and
/// unfinished ones.
fn remove_stale(all: &Path) -> Result<(), String> {
    let entries = fs::read_dir(all).map_err(|e| format!("{}: {e}", all.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let age = |path: &PathBuf| path.metadata().ok()?.modified().ok()?.elapsed().ok();
    let mut aged: Vec<_> = paths.map(|path| (age(&path).unwrap_or_default(), path)).collect();
    aged.sort();
    let mut snapshots = 0;
    for (age, path) in aged {
        snapshots += usize::from(path.is_dir());
        if age > STALE || (path.is_dir() && snapshots > MOST) {
            let removed: fn(&PathBuf) -> _ =
                if path.is_dir() { |path| fs::remove_dir_all(path) } else { |path| fs::remove_file(path) };
            removed(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}
