//! The report for fleets: Prometheus' text format, as `node_exporter`'s textfile collector reads it.
//!
//! Each metric has its lines `HELP` and `TYPE` once, and its samples together. There are no timestamps, because
//! that collector refuses them (Prometheus' documentation, "Exposition formats"; the README of
//! `node_exporter`).

use std::fmt::{self, Write};

use super::boot::Trouble;
use crate::report::known::Known;

/// Returns the report.
#[must_use]
pub fn of(known: &Known) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut text, known);
    text
}

fn write_all(out: &mut String, known: &Known) -> fmt::Result {
    let running = known.running();
    let came = Word(&running.came).to_string();
    head(out, "nextkernel_boot_info", "How the running kernel was started.")?;
    let kernel = Label(&running.kernel);
    writeln!(out, "nextkernel_boot_info{{came=\"{}\",kernel=\"{kernel}\"}} 1", Label(&came))?;
    head(out, "nextkernel_boot_by_handoff", "Whether a handoff started the running kernel.")?;
    writeln!(out, "nextkernel_boot_by_handoff {}", u8::from(running.is_by_handoff()))?;
    if let Some(boot) = known.last_handoff() {
        if !boot.phases.is_empty() {
            head(out, "nextkernel_handoff_seconds", "What each part of the last handoff took.")?;
        }
        for phase in &boot.phases {
            let (name, time) = (Word(&phase.phase).to_string(), InSeconds(phase.ms));
            writeln!(out, "nextkernel_handoff_seconds{{phase=\"{}\"}} {time}", Label(&name))?;
        }
        if let Some(ms) = boot.total_ms() {
            let help = "From the command to the default target, at the last handoff.";
            head(out, "nextkernel_handoff_whole_seconds", help)?;
            writeln!(out, "nextkernel_handoff_whole_seconds {}", InSeconds(ms))?;
        }
        if let Some(saved) = known.saved(boot) {
            let help = "How much less that was than the last restart through firmware took.";
            head(out, "nextkernel_handoff_saved_seconds", help)?;
            let sign = if saved.ms < 0 { "-" } else { "" };
            writeln!(out, "nextkernel_handoff_saved_seconds {sign}{}", InSeconds(saved.ms.unsigned_abs()))?;
        }
        let help = "When the kernel started that the last handoff started.";
        head(out, "nextkernel_handoff_timestamp_seconds", help)?;
        writeln!(out, "nextkernel_handoff_timestamp_seconds {}", boot.started_at)?;
        if let Some(handoff) = &boot.handoff {
            let help = "What was not done as it should have been at the last handoff.";
            head(out, "nextkernel_handoff_trouble", help)?;
            for (trouble, _) in Trouble::ALL {
                let (name, is_so) =
                    (Word(&trouble).to_string(), u8::from(handoff.trouble.contains(&trouble)));
                writeln!(out, "nextkernel_handoff_trouble{{kind=\"{}\"}} {is_so}", Label(&name))?;
            }
        }
    }
    if let Some(ms) = known.yardstick().and_then(super::boot::Boot::total_ms) {
        let help = "From the command to the default target, at the last restart through firmware.";
        head(out, "nextkernel_firmware_reboot_seconds", help)?;
        writeln!(out, "nextkernel_firmware_reboot_seconds {}", InSeconds(ms))?;
    }
    Ok(())
}

fn head(out: &mut String, name: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")
}

/// Milliseconds, shown in seconds, which is the base unit.
struct InSeconds(u64);

impl fmt::Display for InSeconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A name as in `--json`.
struct Word<'a, T>(&'a T);

impl<T: serde::Serialize> fmt::Display for Word<'_, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self.0).map_err(|_| fmt::Error)?;
        out.write_str(json.trim_matches('"'))
    }
}

/// A label's value, escaped.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => out.write_str("\\\\"),
            '"' => out.write_str("\\\""),
            '\n' => out.write_str("\\n"),
            c => out.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::boot::tests::{boot, firmware};
    use crate::report::boot::{Boot, Part, Phase};
    use crate::report::known::tests::known;

    #[test]
    fn the_format_is_this() {
        let short = Boot { phases: boot().phases.split_off(6), kernel: "6.12\"\\".to_owned(), ..boot() };
        assert_eq!(
            of(&known(&[short])),
            "\
# HELP nextkernel_boot_info How the running kernel was started.
# TYPE nextkernel_boot_info gauge
nextkernel_boot_info{came=\"handoff\",kernel=\"6.12\\\"\\\\\"} 1
# HELP nextkernel_boot_by_handoff Whether a handoff started the running kernel.
# TYPE nextkernel_boot_by_handoff gauge
nextkernel_boot_by_handoff 1
# HELP nextkernel_handoff_seconds What each part of the last handoff took.
# TYPE nextkernel_handoff_seconds gauge
nextkernel_handoff_seconds{phase=\"initrd\"} 2.300
nextkernel_handoff_seconds{phase=\"userspace\"} 5.100
# HELP nextkernel_handoff_timestamp_seconds When the kernel started that the last handoff started.
# TYPE nextkernel_handoff_timestamp_seconds gauge
nextkernel_handoff_timestamp_seconds 1795673460
# HELP nextkernel_handoff_trouble What was not done as it should have been at the last handoff.
# TYPE nextkernel_handoff_trouble gauge
nextkernel_handoff_trouble{kind=\"gpu_driver_stayed\"} 1
nextkernel_handoff_trouble{kind=\"module_stayed\"} 0
nextkernel_handoff_trouble{kind=\"hook_stayed\"} 0
"
        );
    }

    #[test]
    fn what_was_saved_is_there_with_its_sign_where_it_is_known() {
        let whole = of(&known(&[firmware(), boot()]));
        for line in [
            "nextkernel_handoff_whole_seconds 11.903\n",
            "nextkernel_handoff_saved_seconds 190.397\n",
            "nextkernel_firmware_reboot_seconds 202.300\n",
        ] {
            assert!(whole.contains(line), "{whole}");
        }
        let phases = [Part::Firmware, Part::Kernel, Part::Userspace].map(|phase| Phase { phase, ms: 1 });
        let quick = Boot { phases: phases.to_vec(), ..firmware() };
        assert!(of(&known(&[quick, boot()])).contains("nextkernel_handoff_saved_seconds -11.900\n"));
        assert!(!of(&known(&[firmware()])).contains("nextkernel_handoff_"));
    }
}
