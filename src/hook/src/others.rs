//! The init's other hooks. systemd runs all executables of system-shutdown at the same time
//! (systemd-shutdown(8)); mdadm and fwupd ship some. A jump would cut them off.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::time::Duration;

use log::warn;
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io;
use rustix::process::{Pid, getpid, getppid};

use crate::failure::Failure;
use crate::name::Name;
use crate::{child, limits, read, sys};

/// Waits until no other child of the hook's parent is left, at most until the machine has been up so
/// long. Going on without one is no failure: the init would not wait much longer for it either.
pub fn wait(until: Duration) -> Result<(), Failure> {
    // The children of PID 1 are not hooks: they are whatever was left over.
    let Some(parent) = getppid().filter(|parent| *parent != Pid::INIT) else { return Ok(()) };
    loop {
        let other = first(parent)
            .map_err(|errno| Failure::Call { call: "look through /proc for other hooks", errno })?;
        let Some(other) = other else { return Ok(()) };
        if sys::uptime() >= until {
            warn!("'{other}', another shutdown hook, still runs: going on without it");
            return Ok(());
        }
        child::sleep(limits::GLANCE);
    }
}

/// The name of another hook that still runs.
fn first(parent: Pid) -> io::Result<Option<Name<16>>> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, c"/proc", folder, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); limits::DIRECTORY_MAX];
    let mut entries = RawDir::new(proc.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let pid = number(entry.file_name().to_bytes());
        if pid.is_none() || pid == Some(getpid()) {
            continue;
        }
        // A process may end between the two looks: it is not running any more.
        let stat = |stat: &[u8]| running_child(stat, parent);
        if let Ok(Some(name)) = look_at_stat(proc.as_fd(), entry.file_name(), stat) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn look_at_stat<T>(proc: impl AsFd, id: &CStr, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let folder = openat(proc, id, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = read::open(&folder, c"stat")?;
    let mut buffer = [0; limits::STAT_MAX];
    Ok(look(read::up_to(&stat, &mut buffer)?))
}

/// Reads `PID (NAME) STATE PARENT …` (`proc_pid_stat(5)`); a name may hold anything, brackets too.
#[must_use]
pub fn running_child(stat: &[u8], parent: Pid) -> Option<Name<16>> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = stat.get(close + 2..)?.split(|byte| *byte == b' ');
    let dead = matches!(fields.next()?, b"Z" | b"X" | b"x");
    let child = !dead && number(fields.next()?) == Some(parent);
    child.then(|| stat.get(open + 1..close).map(Name::cut))?
}

fn number(digits: &[u8]) -> Option<Pid> {
    let number: u32 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(stat: &str) -> Option<std::string::String> {
        running_child(stat.as_bytes(), Pid::from_raw(77).unwrap()).map(|name| name.to_string())
    }

    #[test]
    fn another_hook_is_a_running_child_of_the_same_parent() {
        assert_eq!(name("80 (mdadm.shutdown) S 77 77 1 0").as_deref(), Some("mdadm.shutdown"));
        assert_eq!(name("80 (a) b (c)) R 77 0").as_deref(), Some("a) b (c)"));
        assert_eq!(name("80 (mdadm.shutdown) Z 77 77 1 0"), None);
        assert_eq!(name("80 (mdadm.shutdown) S 1 77 1 0"), None);
        for bad in ["", "80", "80 (x", "80 (x)", "80 (x) S", "80 (x) S -77 0", ") S 77 (", "80 (x) S y"] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }
}
