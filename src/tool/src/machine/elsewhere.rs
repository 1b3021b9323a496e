//! Whether this process runs in the running system at all. In a chroot, in a container or while an image is
//! built, staging would set the host's next kernel, from files that are not the host's. Anything uncertain
//! counts as another system.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use thiserror::Error;

use crate::machine::root::Root;

/// The initial PID namespace, which the kernel itself creates (`PROC_PID_INIT_INO`,
/// `include/linux/proc_ns.h`).
const FIRST_PIDS: &str = "pid:[4026531836]";

/// Why this is not, or may not be, the running system.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Elsewhere {
    /// /proc is missing.
    #[error(
        "/proc is not mounted here, so that this may be an image or a chroot; run this in the system itself"
    )]
    NoProc,
    /// This process is in another PID namespace.
    #[error("this is a container, and what is staged is the host's; run this in the system itself")]
    Container,
    /// This process has another root than PID 1.
    #[error("this is a chroot, and what is staged is the running system's; run this in the system itself")]
    Chroot,
    /// The root of PID 1 cannot be read.
    #[error(
        "it cannot be told whether this is a chroot: /proc/1/root cannot be read; run this as root, without restrictions"
    )]
    Unknown,
}

/// Checks that this is the running system.
pub fn see_that_this_is_the_system(root: &Root) -> Result<(), Elsewhere> {
    match fs::read_link(root.path("/proc/self/ns/pid")) {
        Ok(namespace) if namespace.as_os_str() == FIRST_PIDS => {}
        Ok(_) => return Err(Elsewhere::Container),
        // The kernel has no PID namespaces.
        Err(error) if error.kind() == ErrorKind::NotFound && root.path("/proc/self/ns").is_dir() => {}
        Err(_) => return Err(Elsewhere::NoProc),
    }
    let place = |path| root.path(path).metadata().ok().map(|found| (found.dev(), found.ino()));
    match (place("/proc/1/root"), place("/")) {
        (Some(first), Some(own)) if first == own => Ok(()),
        (Some(_), _) => Err(Elsewhere::Chroot),
        // Our units may not look at other processes. But a unit that PID 1 has started runs in PID 1's root.
        (None, _) if is_unit_of_ours(root) => Ok(()),
        (None, _) => Err(Elsewhere::Unknown),
    }
}

/// Whether systemd started this process as one of our units, by its control group (cgroups(7)).
fn is_unit_of_ours(root: &Root) -> bool {
    let groups = fs::read_to_string(root.path("/proc/self/cgroup")).unwrap_or_default();
    groups.lines().any(|line| {
        let unit = line.rsplit('/').next().unwrap_or_default();
        unit.starts_with("nextkernel-") && unit.ends_with(".service")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    fn pids(scratch: &Scratch, namespace: &str) {
        scratch.directory("/proc/self/ns");
        std::os::unix::fs::symlink(namespace, scratch.root.path("/proc/self/ns/pid")).unwrap();
    }

    /// Makes the scratch system look like the running one.
    pub(crate) fn is_the_system(scratch: &Scratch) {
        pids(scratch, FIRST_PIDS);
        let of_first = scratch.root.path("/proc/1/root");
        fs::create_dir_all(of_first.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(scratch.root.path("/"), of_first).unwrap();
    }

    #[test]
    fn only_in_the_root_of_the_first_process_it_is_the_system() {
        let asked = |scratch: &Scratch| see_that_this_is_the_system(&scratch.root);
        let scratch = Scratch::new();
        assert_eq!(asked(&scratch), Err(Elsewhere::NoProc));
        scratch.directory("/proc/self/ns");
        assert_eq!(asked(&scratch), Err(Elsewhere::Unknown), "without namespaces");
        let scratch = Scratch::new();
        is_the_system(&scratch);
        assert_eq!(asked(&scratch), Ok(()));
        let scratch = Scratch::new();
        pids(&scratch, "pid:[4026532841]");
        assert_eq!(asked(&scratch), Err(Elsewhere::Container));
        let scratch = Scratch::new();
        pids(&scratch, FIRST_PIDS);
        assert_eq!(asked(&scratch), Err(Elsewhere::Unknown));
        scratch.put("/proc/self/cgroup", "0::/system.slice/ssh.service\n");
        assert_eq!(asked(&scratch), Err(Elsewhere::Unknown));
        scratch.put(
            "/proc/self/cgroup",
            "0::/system.slice/system-nextkernel.slice/nextkernel-stage@6.1.service\n",
        );
        assert_eq!(asked(&scratch), Ok(()));
        scratch.directory("/proc/1/root");
        assert_eq!(asked(&scratch), Err(Elsewhere::Chroot));
    }
}
