//! The report as text for a terminal.

use std::fmt::Write;

use super::boot::{Asked, Boot, By, Came, Disagree, Handoff};
use super::history;
use super::words::{Date, Seconds, Time, name, took};
use crate::report::known::{Known, Saved};

/// Length of the longest bar, in characters.
const BAR: u64 = 30;

/// Returns the last handoff, and the running boot if that is another.
#[must_use]
pub fn of(known: &Known) -> String {
    let mut words = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut words, known);
    words
}

/// Returns a line for each boot, the newest first.
#[must_use]
pub fn history(known: &Known) -> String {
    let mut words = String::new();
    let _ = write_history(&mut words, known);
    words
}

fn write_all(out: &mut String, known: &Known) -> std::fmt::Result {
    let running = known.running();
    if running.is_by_handoff() {
        return write_handoff(out, known, running, "this kernel was started by");
    }
    writeln!(out, "{}", came_in_words(running))?;
    write_phases(out, running)?;
    match known.last_handoff() {
        Some(handoff) => {
            writeln!(out)?;
            write_handoff(out, known, handoff, "the last handoff that is known:")
        }
        None => writeln!(out, "no handoff is known yet"),
    }
}

fn write_handoff(out: &mut String, known: &Known, boot: &Boot, first: &str) -> std::fmt::Result {
    let Some(handoff) = &boot.handoff else { return Ok(()) };
    let date = Date(boot.started_at);
    let at = handoff.verb.as_ref().map_or(String::new(), |verb| format!(", at {verb}"));
    writeln!(out, "{first} handoff {}{at}, on {date} UTC", handoff.id)?;
    let entry = handoff.entry.as_ref().filter(|entry| **entry != boot.kernel);
    let entry = entry.map_or(String::new(), |entry| format!(" from {entry}"));
    let loader =
        handoff.loader.as_ref().map_or(String::new(), |loader| format!(", with the {loader} loader"));
    writeln!(out, "kernel {}{entry}{loader}", boot.kernel)?;
    writeln!(out)?;
    write_phases(out, boot)?;
    if let Some(ms) = handoff.load_rehearsed_ms {
        writeln!(out, "the load alone took {} when it was rehearsed by day", Time(ms))?;
    }
    if let Some(sentence) = measured_in_words(boot) {
        writeln!(out, "{sentence}")?;
    }
    if boot.came == Came::Preloaded {
        let why = "what was loaded when it was staged was started: whether the hook ran before, and what each of its steps \
                   took, cannot be told afterwards (`--preload no` tells)";
        writeln!(out, "{why}")?;
    }
    for trouble in &handoff.trouble {
        writeln!(out, "on the way: {}", trouble.in_words())?;
    }
    writeln!(out, "{}", saved_in_words(known, boot))
}

fn write_phases(out: &mut String, boot: &Boot) -> std::fmt::Result {
    let longest = boot.phases.iter().map(|phase| phase.ms).max().unwrap_or_default().max(1);
    for phase in &boot.phases {
        let bar = "#".repeat(usize::try_from((phase.ms * BAR + longest / 2) / longest).unwrap_or_default());
        let line = format!(
            "  {:<46} {:>10}  {bar}",
            name(boot, phase.phase),
            took(boot, Some(phase.phase), phase.ms)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    match boot.total_ms() {
        Some(ms) => {
            let whole = "from the command to the default target";
            writeln!(out, "  {}", "-".repeat(57))?;
            writeln!(out, "  {whole:<46} {:>10}\n", took(boot, None, ms))
        }
        None if boot.phases.is_empty() => Ok(()),
        None => writeln!(out),
    }
}

/// Describes how the running kernel was started, if not by a handoff; and in a second line the consequence.
fn came_in_words(boot: &Boot) -> String {
    let (how, then) = match (boot.came, boot.asked) {
        (Came::Handoff | Came::Preloaded, _) => ("by a handoff", ""),
        (Came::Jump, _) => ("by a kernel that jumped to it, without nextkernel", ""),
        (Came::Firmware, Some(Asked::Kexec)) => (
            "by the firmware, although another kernel was asked for",
            "that handoff failed: the console's last lines say why, and /sys/fs/pstore where it keeps them",
        ),
        (Came::Firmware, Some(Asked::Reboot)) if boot.failed.is_some() => (
            "by the firmware, although what is staged was to start at this reboot",
            "that handoff failed: the console's last lines say why, and /sys/fs/pstore where it keeps them",
        ),
        (Came::Firmware, Some(Asked::Reboot)) => ("by the firmware, as it was asked for", ""),
        (Came::Firmware, Some(Asked::Poweroff)) => ("by the firmware, after it had been switched off", ""),
        (Came::Firmware, Some(Asked::Halt)) => ("by the firmware, after it had been halted", ""),
        (Came::Firmware, Some(Asked::Nothing)) => (
            "by the firmware, and nobody had asked for that",
            "the system before crashed, was reset, lost its power, or ran without nextkernel-report.service",
        ),
        (Came::Firmware, None) => ("by the firmware", ""),
        (Came::Unknown, Some(Asked::Kexec)) => (
            "without a record, although another kernel was asked for",
            "somebody else's jump did that, or the firmware",
        ),
        (Came::Unknown, _) => ("without a record", "the firmware did that, or somebody else's jump"),
    };
    let line = if then.is_empty() { "" } else { "\n" };
    format!("this kernel, {}, was started on {} UTC {how}{line}{then}", boot.kernel, Date(boot.started_at))
}

/// Names the clock by which the boot was measured.
fn measured_in_words(boot: &Boot) -> Option<String> {
    let both = boot.disagree.map(|Disagree { counter_ms, clock_ms }| {
        let clock = match u64::try_from(clock_ms) {
            Ok(ms) => Seconds(ms).to_string(),
            Err(_) => format!("minus {}", Seconds(clock_ms.unsigned_abs())),
        };
        format!(
            "from the hook to the kernel's start, the processor's counter says {}, the clock says {clock}",
            Time(counter_ms)
        )
    });
    Some(match (boot.measured_by?, both) {
        (By::Counter, _) => "measured by the processor's counter, which the clock confirms".to_owned(),
        (By::CounterAlone, None) => {
            "measured by the processor's counter alone: no chip keeps the time here that could confirm it"
                .to_owned()
        }
        (By::CounterAlone, Some(both)) => format!("{both}: the clock was set, and the counter is taken"),
        (By::Clock, None) => "measured by the clock, to the second: no counter goes on here".to_owned(),
        (By::Clock, Some(both)) => format!("{both}: the clock alone is taken, to the second"),
    })
}

fn saved_in_words(known: &Known, boot: &Boot) -> String {
    if let Some(Saved { ms, of }) = known.saved(boot) {
        let (saved, took) = (Seconds(ms.unsigned_abs()), Seconds(of.total_ms().unwrap_or_default()));
        let yardstick = format!("the last restart through firmware, on {},", Date(of.started_at));
        return if ms < 0 {
            format!("it took {saved} longer than {yardstick} which took {took}")
        } else {
            format!("it saved {saved}: {yardstick} took {took}")
        };
    }
    let why = if boot.total_ms().is_none() {
        "nextkernel-report.service measures it, where it is enabled and runs before and after"
    } else {
        "it is, once this machine has restarted through firmware, too"
    };
    format!("what it saved is not known: {why}")
}

fn write_history(out: &mut String, known: &Known) -> std::fmt::Result {
    writeln!(out, "{:<17} {:<34} {:>10} {:>12}  kernel", "started (UTC)", "by", "took", "saved")?;
    for boot in known.boots().iter().rev() {
        let by = match (boot.came, &boot.handoff, boot.asked) {
            (Came::Handoff | Came::Preloaded, Some(Handoff { id, verb: Some(verb), .. }), _) => {
                format!("handoff {id} at {verb}")
            }
            (Came::Handoff | Came::Preloaded, Some(handoff), _) => format!("handoff {}", handoff.id),
            (Came::Handoff | Came::Preloaded, None, _) => "handoff".to_owned(),
            (Came::Jump, ..) => "somebody else's jump".to_owned(),
            (Came::Firmware, _, Some(Asked::Reboot)) if boot.failed.is_some() => {
                "firmware: the handoff failed".to_owned()
            }
            (Came::Firmware, _, Some(Asked::Kexec)) => "firmware: the handoff failed".to_owned(),
            (Came::Firmware, _, Some(Asked::Reboot)) => "firmware, at reboot".to_owned(),
            (Came::Firmware, _, Some(Asked::Nothing)) => "firmware, without a word".to_owned(),
            (Came::Firmware, ..) => "firmware".to_owned(),
            (Came::Unknown, ..) => "no record".to_owned(),
        };
        let total = boot.total_ms().map_or_else(|| "-".to_owned(), |ms| took(boot, None, ms));
        let saved = known.saved(boot).map_or_else(
            || "-".to_owned(),
            |saved| {
                let sign = if saved.ms < 0 { "-" } else { "" };
                format!("{sign}{}", Seconds(saved.ms.unsigned_abs()))
            },
        );
        let line = format!(
            "{:<17} {by:<34} {total:>10} {saved:>12}  {}",
            Date(boot.started_at).to_string(),
            boot.kernel
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    let kept = known.boots().len();
    if kept >= history::BOOTS_MAX {
        writeln!(out, "({kept} boots are kept)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::boot::tests::{boot, firmware};
    use crate::report::boot::{By, Part};
    use crate::report::known::tests::known;

    #[test]
    fn a_handoff_is_told_part_by_part() {
        assert_eq!(
            of(&known(&[firmware(), boot()])),
            "\
this kernel was started by handoff 00000000000000a7, at kexec, on 2026-11-26 06:11 UTC
kernel 6.12 from debian, with the direct loader

  stop, from the command to the hook                 2.31 s  ##############
  sync                                                41 ms
  teardown                                           180 ms  #
  other hooks and the last sync                       12 ms
  load and jump, to the kernel's start               1.06 s  ######
  kernel, to the initrd                              900 ms  #####
  initrd, to userspace                               2.30 s  ##############
  userspace, to the default target                   5.10 s  ##############################
  ---------------------------------------------------------
  from the command to the default target             11.9 s

the load alone took 410 ms when it was rehearsed by day
measured by the processor's counter, which the clock confirms
on the way: a GPU's driver could not be unloaded
it saved 3 min 10 s: the last restart through firmware, on 2026-11-24 06:00, took 3 min 22 s
"
        );
    }

    #[test]
    fn a_restart_through_firmware_is_told_before_the_last_handoff() {
        let shown = of(&known(&[boot(), firmware()]));
        let first = "\
this kernel, 6.12, was started on 2026-11-24 06:00 UTC by the firmware, as it was asked for
  down, firmware and boot loader                 3 min 14 s  ##############################
";
        assert!(shown.starts_with(first), "{shown}");
        assert!(
            shown.contains("\nthe last handoff that is known: handoff 00000000000000a7, at kexec"),
            "{shown}"
        );
        assert!(of(&known(&[firmware()])).ends_with("\nno handoff is known yet\n"));
    }

    #[test]
    fn what_was_not_measured_is_not_shown_and_what_would_measure_it_is_said() {
        let mut part = boot();
        part.phases.retain(|phase| phase.phase != Part::Stop);
        let shown = of(&known(&[part.clone()]));
        assert!(!shown.contains("stop") && !shown.contains("from the command"), "{shown}");
        assert!(shown.contains("not known: nextkernel-report.service measures it"), "{shown}");
        assert!(of(&known(&[boot()])).contains("not known: it is, once this machine has restarted"));
        let shown = of(&known(&[firmware(), part]));
        assert!(shown.contains("what it saved is not known: nextkernel-report.service"), "{shown}");
    }

    #[test]
    fn clocks_that_disagree_are_both_told() {
        let disagree = Some(Disagree { counter_ms: 4801, clock_ms: 60_000 });
        let by = |measured_by, disagree| {
            of(&known(&[Boot { measured_by: Some(measured_by), disagree, ..boot() }]))
        };
        let shown = by(By::Clock, disagree);
        assert!(
            shown.contains("counter says 4.80 s, the clock says 1 min 00 s: the clock alone is taken"),
            "{shown}"
        );
        assert!(shown.contains("hook                    2 s"), "to the second:\n{shown}");
        let back = by(By::CounterAlone, Some(Disagree { counter_ms: 4801, clock_ms: -5000 }));
        assert!(
            back.contains("the clock says minus 5 s: the clock was set, and the counter is taken"),
            "{back}"
        );
        assert!(by(By::Clock, None).contains("no counter goes on here"));
        assert!(by(By::CounterAlone, None).contains("no chip keeps the time"));
    }

    #[test]
    fn the_history_is_a_line_for_each_boot() {
        let handoff = boot().handoff.map(|handoff| Handoff { verb: None, ..handoff });
        let preloaded = Boot { came: Came::Preloaded, handoff, phases: Vec::new(), ..boot() };
        assert_eq!(
            history(&known(&[boot(), firmware(), preloaded])),
            "\
started (UTC)     by                                       took        saved  kernel
2026-11-26 06:11  handoff 00000000000000a7                    -            -  6.12
2026-11-24 06:00  firmware, at reboot                3 min 22 s            -  6.12
2026-11-26 06:11  handoff 00000000000000a7 at kexec      11.9 s   3 min 10 s  6.12
"
        );
    }
}
