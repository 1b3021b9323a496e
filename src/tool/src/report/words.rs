//! Times, dates and the parts of the way, as text for people.

use std::fmt;

use super::boot::{Boot, By, Part};

/// Milliseconds, shown as exactly as is useful.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            ms @ ..1000 => format!("{ms} ms"),
            ms @ ..9_995 => {
                let hundredths = (ms + 5) / 10;
                format!("{}.{:02} s", hundredths / 100, hundredths % 100)
            }
            ms @ ..59_950 => {
                let tenths = (ms + 50) / 100;
                format!("{}.{} s", tenths / 10, tenths % 10)
            }
            _ => return Seconds(self.0).fmt(out),
        };
        out.pad(&text)
    }
}

/// Milliseconds, shown to the second.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.0 + 500) / 1000;
        let text = match seconds {
            0 => "under 1 s".to_owned(),
            1..60 => format!("{seconds} s"),
            60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
            _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        };
        out.pad(&text)
    }
}

/// Formats how long one part of a boot took, or all of it. A time that the clock alone measured is shown to the
/// second.
#[must_use]
pub fn took(boot: &Boot, part: Option<Part>, ms: u64) -> String {
    let crosses =
        part.is_none_or(|part| matches!(part, Part::Stop | Part::Jump | Part::Down | Part::Firmware));
    if crosses && boot.measured_by == Some(By::Clock) {
        Seconds(ms).to_string()
    } else {
        Time(ms).to_string()
    }
}

/// Seconds since the epoch, shown as a date and a time of day.
#[derive(Clone, Copy, Debug)]
pub struct Date(pub u64);

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // The years begin in March, and 400 of them are an age, all of the same length. 1970 is in the fifth
        // age.
        let days = days + 719_468;
        let (age, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (day, january) = (day - (153 * month + 2) / 5 + 1, month >= 10);
        let month = if january { month - 9 } else { month + 3 };
        let year = age * 400 + year + u64::from(january);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(out, "{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}")
    }
}

/// Returns the name of a part of this boot.
#[must_use]
pub fn name(boot: &Boot, part: Part) -> &'static str {
    match part {
        Part::Stop => "stop, from the command to the hook",
        Part::Sync => "sync",
        Part::Teardown => "teardown",
        Part::Settle => "other hooks and the last sync",
        Part::Jump if boot.ms(Part::Sync).is_none() => "the night, to the kernel's start",
        Part::Jump if boot.ms(Part::Teardown).is_none() => "load, teardown and jump, to the kernel's start",
        Part::Jump => "load and jump, to the kernel's start",
        Part::Down => "down, from the command to the kernel's start",
        Part::Firmware => "down, firmware and boot loader",
        Part::Kernel if boot.ms(Part::Initrd).is_some() => "kernel, to the initrd",
        Part::Kernel => "kernel, to userspace",
        Part::Initrd => "initrd, to userspace",
        Part::Userspace => "userspace, to the default target",
    }
}

/// Returns a short name of a part.
#[must_use]
pub fn short_name(part: Part) -> &'static str {
    match part {
        Part::Stop => "stop",
        Part::Sync => "sync",
        Part::Teardown => "teardown",
        Part::Settle => "other hooks, last sync",
        Part::Jump => "load and jump",
        Part::Down => "down and jump",
        Part::Firmware => "down, firmware, boot loader",
        Part::Kernel => "kernel",
        Part::Initrd => "initrd",
        Part::Userspace => "userspace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_as_exact_as_is_of_use() {
        for (ms, time, seconds) in [
            (0, "0 ms", "under 1 s"),
            (499, "499 ms", "under 1 s"),
            (999, "999 ms", "1 s"),
            (1000, "1.00 s", "1 s"),
            (9_994, "9.99 s", "10 s"),
            (9_995, "10.0 s", "10 s"),
            (59_949, "59.9 s", "1 min 00 s"),
            (59_950, "1 min 00 s", "1 min 00 s"),
            (190_400, "3 min 10 s", "3 min 10 s"),
            (3_600_000, "1 h 00 min", "1 h 00 min"),
            (86_400_000, "24 h 00 min", "24 h 00 min"),
        ] {
            assert_eq!(
                (Time(ms).to_string(), Seconds(ms).to_string()),
                (time.to_owned(), seconds.to_owned())
            );
        }
    }

    #[test]
    fn a_date_is_the_calendars() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (951_868_800, "2000-03-01 00:00"),
            (1_735_689_599, "2024-12-31 23:59"),
            (1_795_673_460, "2026-11-26 06:11"),
            (4_107_542_400, "2100-03-01 00:00"),
        ] {
            assert_eq!(Date(seconds).to_string(), date);
        }
    }
}
