//! Ending many processes, and telling of them in one line: a slow console takes longer for a line than the kernel for a
//! signal, and who ends one process after the other, with a word for each, may never come to the last.

use core::fmt;
use core::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Signal, getpid, pidfd_send_signal};

use crate::scene::processes::{self, Process};
use crate::sys::name::Name;
use crate::sys::{calls, clock, limits};

/// How many there are, and what the first few are called.
#[derive(Debug)]
pub struct Crowd {
    /// All of them.
    pub count: usize,
    names: [Name<16>; limits::NAMED],
    /// Not everybody could be looked at.
    is_cut: bool,
}

impl Crowd {
    /// Calls `act` with each process that is one of them, and counts them, until the machine has been up so long.
    pub fn each(
        is_one: &dyn Fn(&Process, &OwnedFd) -> bool,
        until: Duration,
        act: &mut dyn FnMut(&OwnedFd),
    ) -> Crowd {
        let mut crowd = Crowd { count: 0, names: [Name::cut(b""); limits::NAMED], is_cut: false };
        let mut looks = 0_u32;
        let cut = processes::find(|process, folder| {
            if is_one(process, folder) {
                act(folder);
                if let Some(place) = crowd.names.get_mut(crowd.count) {
                    *place = process.name;
                }
                crowd.count += 1;
            }
            looks += 1;
            (looks % limits::LOOKS_AT_A_TIME == 0 && clock::uptime() >= until).then_some(())
        });
        crowd.is_cut = !matches!(cut, Ok(None));
        crowd
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.is_cut
    }

    /// Ends them all, in this time, and returns who is left. Whoever makes processes for ever is stopped first, for a
    /// process that is stopped makes none; and each look ends whom the look before did not find. A look has found all where
    /// no process was made since the one before: one that is another at each look may never be found.
    ///
    /// Who makes processes for ever leaves little time to who looks for them, and so this runs first.
    pub fn kill(is_one: &dyn Fn(&Process, &OwnedFd) -> bool, time: Duration) -> Crowd {
        let begun = clock::uptime();
        let _ = calls::run_first(true);
        Crowd::send_until(is_one, Signal::STOP, begun + time / 2, &|_| true);
        let left = Crowd::send_until(is_one, Signal::KILL, begun + time, &Crowd::is_empty);
        let _ = calls::run_first(false);
        left
    }

    /// Sends them a signal at each look, until the machine has been up so long, or a look has found all, and they are as
    /// they are wanted.
    fn send_until(
        is_one: &dyn Fn(&Process, &OwnedFd) -> bool,
        wanted: Signal,
        until: Duration,
        suffices: &dyn Fn(&Crowd) -> bool,
    ) -> Crowd {
        let mut before = None;
        loop {
            let begun = clock::uptime();
            let crowd = Crowd::each(is_one, until, &mut |folder| signal(folder, wanted));
            let newest = processes::newest();
            if (newest == before && suffices(&crowd)) || clock::uptime() >= until {
                return crowd;
            }
            before = newest;
            // They have as much time to obey as the look at them took.
            clock::sleep(limits::MOMENT.max(clock::uptime().saturating_sub(begun)));
        }
    }
}

/// Sends a signal to the process whose folder in /proc this is: its number may be another's by now.
///
/// - `pidfd_send_signal(2)`
pub fn signal(folder: &OwnedFd, signal: Signal) {
    let _ = pidfd_send_signal(folder, signal);
}

/// As PID 1: forgets the children that have ended, those that were left to it among them.
pub fn reap() {
    use rustix::process::{WaitOptions, wait};
    if getpid().is_init() {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.names.iter().take(self.count);
        for (number, name) in named.enumerate() {
            write!(out, "{}'{name}'", if number == 0 { "" } else { ", " })?;
        }
        match self.count.saturating_sub(limits::NAMED) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_in_one_line_whatever_its_size() {
        let crowd =
            |count| Crowd { count, names: [Name::cut(b"sleep"); limits::NAMED], is_cut: false }.to_string();
        assert_eq!(crowd(0), "");
        assert_eq!(crowd(1), "'sleep'");
        assert_eq!(crowd(4), "'sleep', 'sleep', 'sleep', 'sleep'");
        assert_eq!(crowd(801), "'sleep', 'sleep', 'sleep', 'sleep' and 797 more");
    }
}
