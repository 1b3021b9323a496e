//! Ending many processes, and reporting them in one line. A slow console needs longer for a line than the
//! kernel for a signal: with a line for each process, the last one might never get its signal.

use core::fmt;
use core::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Signal, getpid, pidfd_send_signal};

use crate::scene::processes::{self, Process};
use crate::sys::name::Name;
use crate::sys::{calls, clock, limits};

/// The number of processes, and the names of the first few.
#[derive(Debug)]
pub struct Crowd {
    /// The number of processes.
    pub count: usize,
    names: [Name<16>; limits::NAMED],
    /// Whether the search ended before it had seen all processes.
    is_cut: bool,
}

impl Crowd {
    /// Calls `act` with the /proc directory of each process for which `is_one` holds, and counts these
    /// processes. Stops when the uptime reaches `until`.
    pub fn each(
        is_one: &dyn Fn(&Process, &OwnedFd) -> bool,
        until: Duration,
        act: &mut dyn FnMut(&OwnedFd),
    ) -> Crowd {
        let mut crowd = Crowd { count: 0, names: [Name::cut(b""); limits::NAMED], is_cut: false };
        let mut looks = 0_u32;
        let cut = processes::find(|process, directory| {
            if is_one(process, directory) {
                act(directory);
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

    /// Whether the search has seen all processes, and found none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.is_cut
    }

    /// Ends them all within `time`, and returns those that are left. Stops them first, because a stopped
    /// process creates no others; each search then catches those that the search before missed. A search has
    /// found all only if no process was created since the search before, because a process with another PID
    /// at each search may never be found.
    ///
    /// A process that creates others without end leaves little time for the search, so this process runs
    /// before all others meanwhile.
    pub fn kill(is_one: &dyn Fn(&Process, &OwnedFd) -> bool, time: Duration) -> Crowd {
        let begun = clock::uptime();
        let _ = calls::run_first(true);
        Crowd::send_until(is_one, Signal::STOP, begun + time / 2, &|_| true);
        let left = Crowd::send_until(is_one, Signal::KILL, begun + time, &Crowd::is_empty);
        let _ = calls::run_first(false);
        left
    }

    /// Sends them the signal `wanted` at each search. Returns when the uptime reaches `until`, or when a
    /// search has found all and `suffices` accepts the result.
    fn send_until(
        is_one: &dyn Fn(&Process, &OwnedFd) -> bool,
        wanted: Signal,
        until: Duration,
        suffices: &dyn Fn(&Crowd) -> bool,
    ) -> Crowd {
        let mut before = None;
        loop {
            let begun = clock::uptime();
            let crowd = Crowd::each(is_one, until, &mut |directory| signal(directory, wanted));
            let newest = processes::newest();
            if (newest == before && suffices(&crowd)) || clock::uptime() >= until {
                return crowd;
            }
            before = newest;
            // They get at least as much time to react as the search has taken.
            clock::sleep(limits::MOMENT.max(clock::uptime().saturating_sub(begun)));
        }
    }
}

/// Sends a signal to the process with this directory in /proc. Its PID may belong to another process by now.
///
/// - `pidfd_send_signal(2)`
pub fn signal(directory: &OwnedFd, signal: Signal) {
    let _ = pidfd_send_signal(directory, signal);
}

/// As PID 1, reaps the children that have ended, including those that it has inherited.
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
