//! Properties common to all boot loaders: the entry marked as default is the one that nextkernel stages and
//! starts, and the one that the boot loader itself boots.

use bed::guest::whole::Guest;
use serde_json::Value;

use super::kexec::{TOLD, hand_over, reboot, restart};

/// Parameters that a boot loader or the handoff adds to a kernel's command line.
const ADDED: [&str; 3] = ["BOOT_IMAGE=", "initrd=", "nextkernel."];

/// An entry that is to be booted next.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    /// Id of the entry.
    pub id: &'a str,
    /// The setting that chose the entry.
    pub by: &'a str,
    /// A word that only this entry's command line has.
    pub word: &'a str,
}

impl Next<'_> {
    /// Proves that only this entry is marked, that it is staged without being named, and that its kernel starts.
    /// Uses `kexec_load`, which is faster here. Returns the output of staging.
    pub fn jumps(&self, guest: &mut Guest) -> Result<String, String> {
        self.is_marked(guest)?;
        let said = guest.ok("nextkernel stage --loader direct 2>&1")?;
        let staged = guest.ok("sed -n 's/^cmdline = //p' /run/nextkernel/plan")?;
        hand_over(guest, "systemctl kexec", "kexec")?;
        self.is_running(guest)?;
        let arrived = told(guest)?;
        if arrived == own(&staged) {
            return Ok(said);
        }
        Err(guest.tell(&format!("staged was {staged:?}, and the next kernel was told {arrived:?}")))
    }

    /// Proves that only this entry is marked, and that the boot loader boots it with the command line that would
    /// be staged.
    pub fn boots(&self, guest: &mut Guest) -> Result<(), String> {
        let staged = self.would_be_staged(guest)?;
        reboot(guest, "systemctl reboot")?;
        self.is_running(guest)?;
        let booted = told(guest)?;
        same(guest, &staged, &booted)
    }

    /// Proves the same at the end of a test, where the new kernel's first log lines are enough.
    pub fn boots_at_last(&self, guest: &mut Guest) -> Result<(), String> {
        let staged = self.would_be_staged(guest)?;
        restart(guest, "systemctl reboot")?;
        let told = guest.await_console(TOLD)?;
        let (_, booted) = told.split_once(TOLD).unwrap_or_default();
        if !booted.split_whitespace().any(|word| word == self.word) {
            return Err(guest.tell(&format!("{} does not run: the kernel was told {booted:?}", self.id)));
        }
        same(guest, &staged, booted)
    }

    /// Returns the command line that would be staged now.
    fn would_be_staged(&self, guest: &mut Guest) -> Result<String, String> {
        self.is_marked(guest)?;
        guest.ok("nextkernel stage --no-rehearse")?;
        let staged = guest.ok("sed -n 's/^cmdline = //p' /run/nextkernel/plan")?;
        guest.ok("nextkernel unstage").map(|_| staged)
    }

    /// Proves that only this entry is marked, and by which setting.
    pub fn is_marked(&self, guest: &mut Guest) -> Result<(), String> {
        let list = entries(guest)?;
        let marked = rows(&list).filter(|row| row.get("default") == Some(&true.into()));
        let marked: Vec<_> = marked.filter_map(|row| text(row, "id")).collect();
        if marked == [self.id] && text(&list, "default_by") == Some(self.by) {
            return Ok(());
        }
        Err(guest.tell(&format!("marked is {marked:?}, not {} by {}:\n{list:#}", self.id, self.by)))
    }

    /// Proves that the running kernel was started from this entry.
    pub fn is_running(&self, guest: &mut Guest) -> Result<(), String> {
        let cmdline = guest.ok("cat /proc/cmdline")?;
        if cmdline.split_whitespace().any(|word| word == self.word) {
            return Ok(());
        }
        Err(guest.tell(&format!("{} does not run: the kernel was told {cmdline:?}", self.id)))
    }
}

/// Returns the output of `nextkernel entries --json`.
pub fn entries(guest: &mut Guest) -> Result<Value, String> {
    let json = guest.ok("nextkernel entries --json")?;
    serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))
}

/// Returns the entries of that output.
pub fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("entries").and_then(Value::as_array).into_iter().flatten()
}

/// Returns the string under a key.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn same(guest: &Guest, staged: &str, booted: &str) -> Result<(), String> {
    if own(booted) == own(staged) {
        return Ok(());
    }
    Err(guest.tell(&format!("staged would have been {staged:?}, and the loader told {booted:?}")))
}

/// Returns the running kernel's command line, with only the parameters that come from its entry.
fn told(guest: &mut Guest) -> Result<String, String> {
    Ok(own(&guest.ok("cat /proc/cmdline")?))
}

fn own(cmdline: &str) -> String {
    let words = cmdline.split_whitespace().filter(|word| !ADDED.iter().any(|key| word.starts_with(key)));
    words.collect::<Vec<_>>().join(" ")
}
