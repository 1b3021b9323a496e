//! Whether a path still exists once the system goes down. systemd-sysext(8) and systemd-confext(8) remove
//! their layers before the hooks run, and everything except the root, /usr and /run is unmounted by then
//! (systemd-shutdown(8)).

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::machine::mounts::{Mount, own_namespace};
use crate::machine::root::Root;

/// The state of a path when the hooks run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// It leads to the same file as now, or to one that was hidden below a mount.
    Something,
    /// It leads to nothing, because the file is on a mount that goes away.
    Nothing {
        /// The mount point.
        point: PathBuf,
        /// The source of the mount: `sysext`, or a device.
        source: PathBuf,
    },
    /// Unknown, because this process may not look.
    Unknown {
        /// The mount point of the mount that goes away.
        point: PathBuf,
        /// Why it could not look.
        why: String,
    },
}

/// The mount sources of systemd's layers (`image_class_info`, src/basic/os-util.c). They also name the
/// services that remove the layers; while such a service is active, PID 1 keeps a link for it
/// (`unit_export_invocation_id`, src/core/unit.c).
const LAYERS: [&str; 2] = ["sysext", "confext"];

/// Mount points that are not unmounted before the hooks run (`nonunmountable_path`, src/shutdown/umount.c).
const STAYS: [&str; 2] = ["/", "/usr"];

/// Finds out whether a path will exist when the hooks run. If it is on a mount that goes away, only root can look
/// below that mount.
#[must_use]
pub fn then(root: &Root, path: &str) -> Then {
    let mounts = Mount::all(root);
    let of_system = |path: PathBuf| match path.strip_prefix(root.path("/")) {
        Ok(below) => Path::new("/").join(below),
        Err(_) => path,
    };
    // Two paths count: the path itself with its directory resolved, and the path that it finally leads to.
    let real = |path: &Path| of_system(root.path(path).canonicalize().unwrap_or_else(|_| root.path(path)));
    let (directory, name) = (Path::new(path).parent(), Path::new(path).file_name());
    let named = directory.zip(name).map(|(directory, name)| real(directory).join(name));
    let seen = [named.unwrap_or_else(|| path.into()), real(Path::new(path))];
    // No service removes layers that were merged by hand, so they count as staying mounted, as /usr does.
    let is_layer = |mount: &Mount| LAYERS.iter().any(|layer| mount.source == Path::new(layer));
    let is_taken_away = |mount: &Mount| {
        let service = format!("/run/systemd/units/invocation:systemd-{}.service", mount.source.display());
        root.path(service).symlink_metadata().is_ok()
    };
    let stays = |mount: &Mount| {
        STAYS.iter().any(|stays| mount.point == Path::new(stays)) || mount.point.starts_with("/run")
    };
    // The mount that PID 1 runs from, such as /nix/store, stays busy to the end.
    let first = std::fs::read_link(root.path("/proc/1/exe")).map(of_system);
    let of_first =
        first.as_ref().ok().and_then(|exe| Mount::over(&mounts, exe)).map(|mount| mount.point.clone());
    let goes = |mount: &&Mount| {
        if is_layer(mount) {
            is_taken_away(mount)
        } else {
            !stays(mount) && of_first.as_deref() != Some(&mount.point)
        }
    };
    let mut on = seen.iter().filter_map(|seen| Mount::over(&mounts, seen));
    let Some(mount) = on.find(goes) else { return Then::Something };
    let (point, source) = (mount.point.clone(), mount.source.clone());
    match is_there_without(&root.path(&mount.point), &root.path(path)) {
        Ok(true) => Then::Something,
        Ok(false) => Then::Nothing { point, source },
        Err(error) => Then::Unknown { point, why: crate::words::errno::InWords(&error).to_string() },
    }
}

/// Detaches the mount in a mount namespace of one thread, and looks whether the path exists there.
fn is_there_without(point: &Path, path: &Path) -> io::Result<bool> {
    let look = || {
        own_namespace()?;
        umount2(point, MntFlags::MNT_DETACH)?;
        Ok(path.exists())
    };
    std::thread::scope(|scope| scope.spawn(look).join()).unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::root::HOOK;
    use crate::machine::scratch::Scratch;

    #[test]
    fn what_pid_1_runs_from_is_there_to_the_end() {
        let scratch = Scratch::new();
        scratch.put("/nix/store/hook", "x");
        scratch.link(HOOK, "/nix/store/hook");
        scratch.put("/proc/self/mountinfo", "30 24 8:2 / /nix/store ro - ext4 /dev/sda2 ro\n");
        let hook = "/nix/store/hook";
        assert!(matches!(then(&scratch.root, hook), Then::Unknown { .. }));
        scratch.link("/proc/1/exe", "/nix/store/systemd");
        assert_eq!(then(&scratch.root, hook), Then::Something);
    }

    #[test]
    fn what_lies_on_the_root_or_usr_is_there_when_the_hooks_run() {
        let scratch = Scratch::new();
        scratch.put(HOOK, "x");
        for mounts in ["", "24 1 0:31 / / rw - overlay overlay rw\n30 24 8:2 / /usr ro - ext4 /dev/sda2 ro\n"]
        {
            scratch.put("/proc/self/mountinfo", mounts);
            assert_eq!(then(&scratch.root, HOOK), Then::Something, "{mounts}");
        }
        scratch.put("/proc/self/mountinfo", "30 24 0:50 / /usr ro - overlay sysext ro\n");
        assert_eq!(then(&scratch.root, HOOK), Then::Something, "merged by hand");
        scratch.put("/run/systemd/units/invocation:systemd-sysext.service", "");
        // Nothing is mounted at these points in the test, so nothing can be detached.
        for mounts in
            ["30 24 0:50 / /usr ro - overlay sysext ro\n", "30 24 8:2 / /usr/lib rw - ext4 /dev/sda2 rw\n"]
        {
            scratch.put("/proc/self/mountinfo", mounts);
            assert!(matches!(then(&scratch.root, HOOK), Then::Unknown { .. }), "{mounts}");
        }
    }
}
