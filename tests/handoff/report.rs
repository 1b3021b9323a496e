//! Tests what `nextkernel report` shows for each boot, whatever the times are.

use bed::guest::whole::Guest;
use bed::harness::Test;
use serde_json::Value;

use super::kexec::{boot, refused};

/// Waits for the unit, which is disabled by default, and prints the number of boots in the history.
const KEPT: &str =
    "systemctl -q enable --now nextkernel-report.service && wc -l </var/lib/nextkernel/history";

/// Reading the report does not need root.
const REPORT: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups nextkernel report --json";

/// Returns the report, once the running boot is the history's line with this number.
fn report(guest: &mut Guest, line: usize) -> Result<Value, String> {
    let kept = guest.ok(KEPT)?;
    if kept.trim() != line.to_string() {
        return Err(guest.tell(&format!("the history has {kept:?} lines, not {line}")));
    }
    let json = guest.ok(REPORT)?;
    let report: Value = serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))?;
    if text(&report, "/boot/boot_id") == guest.boot.boot_id { Ok(report) } else { Err(guest.tell(&json)) }
}

fn text<'a>(report: &'a Value, pointer: &str) -> &'a str {
    report.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(report: &Value, pointer: &str) -> i64 {
    report.pointer(pointer).and_then(Value::as_i64).unwrap_or(-1)
}

/// Returns whether the phases have these names, and their sum is the total and more than zero.
fn is_whole(report: &Value, parts: &[&str]) -> bool {
    let phases = report.pointer("/boot/phases").and_then(Value::as_array).cloned().unwrap_or_default();
    let names: Vec<_> = phases.iter().map(|phase| text(phase, "/phase")).collect();
    let sum: i64 = phases.iter().map(|phase| number(phase, "/ms")).sum();
    names == parts && sum > 0 && sum == number(report, "/boot/total_ms")
}

/// Proves that the running kernel's start is recorded without times, because measuring did not begin with the
/// boot.
pub fn begins(guest: &mut Guest) -> Result<(), String> {
    let report = report(guest, 1)?;
    let measured = report.pointer("/boot/total_ms").or(report.pointer("/last_handoff"));
    if text(&report, "/boot/came") == "firmware" && measured.is_none() {
        return Ok(());
    }
    Err(guest.tell(&report.to_string()))
}

/// A handoff that fails because its image changed meanwhile ends in a full reboot, and is remembered until a
/// person acknowledges it.
pub fn a_handoff_that_failed_is_told_and_leaves_restarts_to_the_firmware_where_that_is_wanted(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok(KEPT)?;
    guest.ok("nextkernel stage --preload no && for kernel in /run/nextkernel/*/kernel; do echo more >>$kernel; done")?;
    guest.send("systemctl start --no-block --job-mode=replace-irreversibly kexec.target")?;
    let after = guest.await_boot()?;
    if after.resets != 1 {
        return Err(guest.tell(&format!("it came back so: {after:?}")));
    }
    guest.ok("nextkernel check | grep '^warn *handoffs *a handoff failed'")?;
    guest.ok("nextkernel stage && nextkernel reboot --dry-run 2>&1 | grep 'the last handoff failed'")?;
    guest.ok("nextkernel unstage; echo 'handoff-failed = 1' >/etc/nextkernel.conf")?;
    refused(&mut guest, "nextkernel stage", "a handoff failed, and `handoff-failed = 1` leaves restarts")?;
    refused(&mut guest, "nextkernel reboot", "handoffs: a handoff failed")?;
    guest.ok("nextkernel report --history | grep 'firmware: the handoff failed'")?;
    guest.ok("nextkernel report --seen && nextkernel stage && nextkernel reboot --dry-run").map(drop)
}

/// Proves that the running kernel came by a handoff, that each of its phases was measured, and that counter and
/// clock agree. The time saved is reported only if there is a baseline.
pub fn tells_the_handoff(guest: &mut Guest, line: usize, verb: &str, saved: bool) -> Result<(), String> {
    let report = report(guest, line)?;
    let record = guest.ok("grep -o 'nextkernel.record=[0-9a-f]*:[a-z]*' /proc/cmdline")?;
    let came = text(&report, "/boot/came");
    let word = if came == "preloaded" { came } else { verb };
    let told = format!("nextkernel.record={}:{word}\n", text(&report, "/boot/handoff/id"));
    let is_saved = number(&report, "/boot/saved_ms")
        == number(&report, "/yardstick/total_ms") - number(&report, "/boot/total_ms");
    // kexec_file_load takes the record before the teardown is over, and a preloaded image took it long before.
    let parts: &[&str] = match (came, text(&report, "/boot/handoff/loader")) {
        ("preloaded", _) => &["down", "kernel", "userspace"],
        (_, "direct") => &["stop", "sync", "teardown", "settle", "jump", "kernel", "userspace"],
        _ => &["stop", "sync", "jump", "kernel", "userspace"],
    };
    // On a busy host the guest's kernel may declare its counter unstable; nextkernel then uses the clock.
    let steady = "grep -w tsc /sys/devices/system/clocksource/clocksource0/available_clocksource";
    let is_steady = guest.run(steady)?.status == 0;
    let by = if text(&report, "/boot/measured_by") == "clock" && !is_steady { "clock" } else { "counter" };
    let right = told == record
        && text(&report, "/boot/handoff/verb") == verb
        && text(&report, "/boot/asked") == verb
        && text(&report, "/boot/measured_by") == by
        && is_whole(&report, parts)
        && number(&report, "/boot/handoff/load_rehearsed_ms") > 0
        && report.pointer("/boot/saved_ms").is_some() == saved
        && (is_saved || !saved)
        && report.pointer("/boot") == report.pointer("/last_handoff");
    let table =
        guest.ok("nextkernel report; nextkernel report --history; cat /var/lib/nextkernel/history")?;
    if right && table.contains("what it saved is not known") != saved {
        return Ok(());
    }
    Err(guest.tell(&format!("{report:#}\n{table}")))
}

/// Proves that the running kernel came by a requested full reboot, which is the baseline from now on.
pub fn tells_the_restart(guest: &mut Guest, line: usize) -> Result<(), String> {
    let report = report(guest, line)?;
    let right = text(&report, "/boot/came") == "firmware"
        && text(&report, "/boot/asked") == "reboot"
        && is_whole(&report, &["firmware", "kernel", "userspace"])
        && report.pointer("/yardstick") == report.pointer("/boot")
        && report.pointer("/last_handoff/saved_ms").is_some();
    if right { Ok(()) } else { Err(guest.tell(&format!("{report:#}"))) }
}
