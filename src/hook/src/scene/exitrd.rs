//! The exitrd: a small root in memory, where a shutdown ends when the root itself is to be unmounted
//! (bootup(7), "The exitrd").

use core::ffi::CStr;

use rustix::fs::CWD;

use crate::scene::mounts;
use crate::sys::files;

/// The program that systemd executes in an exitrd (systemd-shutdown(8)).
const SHUTDOWN: &CStr = c"/run/initramfs/shutdown";

/// The places at which an exitrd whose /shutdown is systemd-shutdown runs the hook once more. dracut's exitrd
/// has the hook there, too. NixOS has its executables in /etc.
pub const HOOKS: [&CStr; 2] = [
    c"/run/initramfs/usr/lib/systemd/system-shutdown/nextkernel",
    c"/run/initramfs/etc/systemd/system-shutdown/nextkernel",
];

/// The source of the tmpfs that `nextkernel exitrd` mounts.
pub const MOUNTED_AS: &str = "nextkernel";

/// The directory in which systemd leaves the old root (systemd-shutdown(8)).
pub const OLD_ROOT: &CStr = c"/oldroot";

/// Returns whether this process already runs in an exitrd.
#[must_use]
pub fn is_here() -> bool {
    files::exists(OLD_ROOT)
}

/// Returns whether the init goes on in an exitrd that carries this hook. Then nothing is left to do on the root
/// file system.
#[must_use]
pub fn goes_on() -> bool {
    comes() && (HOOKS.into_iter().any(files::is_executable) || is_ours())
}

/// Returns whether the init goes on in an exitrd. A systemd that never left its initrd does not (`in_initrd`,
/// src/shutdown/shutdown.c).
fn comes() -> bool {
    files::is_executable(SHUTDOWN) && !files::exists(c"/etc/initrd-release")
}

/// Returns a log line about the storage that a jump from the root file system leaves open, and the reason.
#[must_use]
pub fn what_stays_open() -> &'static str {
    if comes() {
        "the exitrd in /run/initramfs does not carry this hook, and is passed by: / stays mounted read-only, and open what it lies on"
    } else {
        "there is no exitrd: / stays mounted read-only, and open what it lies on"
    }
}

/// Returns whether the exitrd is the one of `nextkernel exitrd`: a tmpfs with that source.
fn is_ours() -> bool {
    let found = files::find_line(CWD, mounts::MOUNTINFO, |line| is_our_mount(line).then_some(()));
    matches!(found, Ok(Some(())))
}

/// Returns whether a line of mountinfo is that mount (`proc_pid_mountinfo(5)`).
fn is_our_mount(line: &[u8]) -> bool {
    let mut fields = line.split(|byte| *byte == b' ');
    let there = fields.nth(4) == Some(b"/run/initramfs");
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    there && fields.next() == Some(b"tmpfs") && fields.next() == Some(MOUNTED_AS.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_is_known_by_its_name() {
        assert!(is_our_mount(
            b"40 23 0:44 / /run/initramfs rw,nosuid,nodev shared:9 - tmpfs nextkernel rw,size=1024k"
        ));
        for other in [
            "40 23 0:44 / /run/initramfs rw,nosuid,nodev - tmpfs tmpfs rw",
            "40 23 0:44 / /run/other rw - tmpfs nextkernel rw",
            "40 23 0:23 /initramfs /run/initramfs rw,noexec - tmpfs tmpfs rw",
            "",
        ] {
            assert!(!is_our_mount(other.as_bytes()), "{other}");
        }
    }
}
