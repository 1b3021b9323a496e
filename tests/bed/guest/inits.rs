//! A Debian with other inits than systemd: one disk has all those that Debian has. The kernel's command line
//! chooses.

use crate::disk::disks::Disks;
use crate::guest::whole::Spec;
use crate::harness::Test;
use crate::host::command;
use crate::host::paths::vm_directory;
use crate::image;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory in `tests/inits` with the files for every guest. The other directories are for one init each.
const EVERY: &str = "every";

/// Describes a guest whose PID 1 becomes this init: `sysvinit`, `openrc` (below sysvinit), `openrc-init`,
/// `runit`, `finit` or `busybox`. That init starts the agent.
pub fn spec(test: &Test, init: &str) -> Result<Spec, String> {
    let append = format!("init=/usr/lib/bed/{init}");
    let disks = Disks {
        disks: vec![directory(test)?.join("root.ext4")],
        initrd: test.image.files()?.initrd(),
        root: "/dev/vda".into(),
        are_shared: true,
    };
    Ok(Spec { disks: Some(disks), append, ..Spec::new(test) })
}

/// Returns the guests' root as a directory of the host. It also has Debian's s6 and execline.
pub fn tree(test: &Test) -> Result<PathBuf, String> {
    Ok(directory(test)?.join("tree"))
}

/// Returns the directory with the disk and the tree, and builds it first if it does not exist.
fn directory(test: &Test) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("inits");
    let tree = test.image.files()?.tree();
    // The tree is another image's with additions, so it is built again when that image changes.
    let mut hasher = DefaultHasher::new();
    tree.parent().and_then(Path::file_name).hash(&mut hasher);
    hasher.write_u64(image::hash(include_bytes!("inits.rs"), &sources)?);
    let directory = vm_directory().join(format!("inits-{:016x}", hasher.finish()));
    if directory.exists() {
        return Ok(directory);
    }
    let failed = |e| format!("{}: {e}", directory.display());
    let lock = File::create(vm_directory().join("inits.lock")).map_err(failed)?;
    eprintln!("bed: no image of the inits yet: building it, or waiting for who does (a minute)");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !directory.exists() {
        let part = vm_directory().join("inits.part");
        build(&tree, &sources, &part, &lock)?;
        fs::rename(&part, &directory).map_err(failed)?;
    }
    Ok(directory)
}

fn build(from: &Path, sources: &Path, part: &Path, lock: &File) -> Result<(), String> {
    command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(part))?;
    fs::create_dir(part).map_err(|e| format!("{}: {e}", part.display()))?;
    let tree = part.join("tree");
    command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(&tree))?;
    let copy = |from: &Path, to: &Path| {
        command::run(
            Command::new("cp")
                .args(["-rT", "--preserve=mode,links", "--remove-destination"])
                .arg(from)
                .arg(to),
        )
    };
    copy(&sources.join(EVERY), &tree)?;
    let build = fs::read_to_string(sources.join("build")).map_err(|e| format!("tests/inits/build: {e}"))?;
    // If this process is killed, the next builder waits for the chroot, too, because its stdin is the lock.
    let stdin = lock.try_clone().map_err(|e| format!("inits.lock: {e}"))?;
    command::run(Command::new("chroot").arg(&tree).args(["sh", "-c", &build]).stdin(stdin))?;
    for entry in fs::read_dir(sources).map_err(|e| format!("{}: {e}", sources.display()))?.flatten() {
        if entry.path().is_dir() && entry.file_name() != EVERY {
            let inits = tree.join("usr/lib/bed/inits");
            fs::create_dir_all(&inits).map_err(|e| format!("{}: {e}", inits.display()))?;
            copy(&entry.path(), &inits.join(entry.file_name()))?;
        }
    }
    image::disk(&tree, &part.join("root.ext4"), "root")
}
