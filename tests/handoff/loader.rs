//! What is asked of every boot loader: the entry that is marked is the one that is staged, that arrives, and that
//! the loader itself boots.

use bed::guest::Guest;
use serde_json::Value;

use super::kexec::{TOLD, hand_over, reboot, restart};

/// What a loader, or the jump past it, puts on a kernel's command line of its own.
const ADDED: [&str; 3] = ["BOOT_IMAGE=", "initrd=", "nextkernel."];

/// An entry that is to be the next one.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    /// What it is called.
    pub id: &'a str,
    /// What decided.
    pub by: &'a str,
    /// A word that its command line alone has.
    pub word: &'a str,
}

impl Next<'_> {
    /// Proves that it alone is marked, that it is staged without being named, and that it arrives. Returns what was
    /// said. The direct loader is the quicker one here.
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

    /// Proves that it alone is marked, and that the loader boots it, just as it would have been staged.
    pub fn boots(&self, guest: &mut Guest) -> Result<(), String> {
        let staged = self.would_be_staged(guest)?;
        reboot(guest, "systemctl reboot")?;
        self.is_running(guest)?;
        let booted = told(guest)?;
        same(guest, &staged, &booted)
    }

    /// The same for the end of a test: what the kernel says first of all is enough.
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

    /// The command line that would be staged now.
    fn would_be_staged(&self, guest: &mut Guest) -> Result<String, String> {
        self.is_marked(guest)?;
        guest.ok("nextkernel stage --no-rehearse")?;
        let staged = guest.ok("sed -n 's/^cmdline = //p' /run/nextkernel/plan")?;
        guest.ok("nextkernel unstage").map(|_| staged)
    }

    /// Proves that it alone is marked, and by what.
    pub fn is_marked(&self, guest: &mut Guest) -> Result<(), String> {
        let list = entries(guest)?;
        let marked = rows(&list).filter(|row| row.get("default") == Some(&true.into()));
        let marked: Vec<_> = marked.filter_map(|row| text(row, "id")).collect();
        if marked == [self.id] && text(&list, "default_by") == Some(self.by) {
            return Ok(());
        }
        Err(guest.tell(&format!("marked is {marked:?}, not {} by {}:\n{list:#}", self.id, self.by)))
    }

    /// Proves that this kernel runs because of it.
    pub fn is_running(&self, guest: &mut Guest) -> Result<(), String> {
        let cmdline = guest.ok("cat /proc/cmdline")?;
        if cmdline.split_whitespace().any(|word| word == self.word) {
            return Ok(());
        }
        Err(guest.tell(&format!("{} does not run: the kernel was told {cmdline:?}", self.id)))
    }
}

/// `nextkernel entries --json`.
pub fn entries(guest: &mut Guest) -> Result<Value, String> {
    let json = guest.ok("nextkernel entries --json")?;
    serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))
}

/// The entries in it.
pub fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("entries").and_then(Value::as_array).into_iter().flatten()
}

/// A text in it.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn same(guest: &Guest, staged: &str, booted: &str) -> Result<(), String> {
    if own(booted) == own(staged) {
        return Ok(());
    }
    Err(guest.tell(&format!("staged would have been {staged:?}, and the loader told {booted:?}")))
}

/// What this kernel was told by its entry alone.
fn told(guest: &mut Guest) -> Result<String, String> {
    Ok(own(&guest.ok("cat /proc/cmdline")?))
}

fn own(cmdline: &str) -> String {
    let words = cmdline.split_whitespace().filter(|word| !ADDED.iter().any(|key| word.starts_with(key)));
    words.collect::<Vec<_>>().join(" ")
}
