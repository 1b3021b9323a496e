//! Programs of a night in C: one keeps a device busy, one is stuck, one hides, one mounts, one counts what others take, one
//! fills memory, one looks at it, one says when it was started.

use crate::machine::Scratch;
use crate::{Made, host};
use std::fs;
use std::path::Path;
use std::process::Command;

/// `holder.c`: keeps a device busy.
pub fn program() -> Result<Vec<u8>, String> {
    built("holder.c", &[])
}

/// `stuck.c`: cannot be ended, or lets somebody else get stuck.
pub fn stuck() -> Result<Vec<u8>, String> {
    built("stuck.c", &[])
}

/// `hide.c`: hides from who looks for processes, or is too many for them.
pub fn hide() -> Result<Vec<u8>, String> {
    built("hide.c", &[])
}

/// `mounts.c`: mounts more than anybody looks for.
pub fn mounts() -> Result<Vec<u8>, String> {
    built("mounts.c", &[])
}

/// `count.c`: runs a program and says what it took.
pub fn count() -> Result<Vec<u8>, String> {
    built("count.c", &[])
}

/// `steps.c`: counts what a program and its children do in user mode.
pub fn steps() -> Result<Vec<u8>, String> {
    built("steps.c", &[])
}

/// `fill.c`: takes memory until so much is left.
pub fn fill() -> Result<Vec<u8>, String> {
    built("fill.c", &[])
}

/// `reserved.c`: counts the pages of memory that are reserved.
pub fn reserved() -> Result<Vec<u8>, String> {
    built("reserved.c", &[])
}

/// `arrived.c`: an /init whose first instruction is the next system's, and which says when that was.
pub fn arrived() -> Result<Vec<u8>, String> {
    built("arrived.c", &["-nostdlib"])
}

/// `restored.c`: waits for a guest's files, and takes them.
pub fn restored() -> Result<Vec<u8>, String> {
    built("restored.c", &[])
}

/// A program of the host's compiler, static. Each is built once in a process.
fn built(source: &'static str, more: &[&str]) -> Result<Vec<u8>, String> {
    static BUILT: Made = Made::new();
    BUILT.get(source, || build(source, more))
}

fn build(source: &str, more: &[&str]) -> Result<Vec<u8>, String> {
    let scratch = Scratch::new()?;
    let (source, built) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(source), scratch.path("program"));
    let mut gcc = Command::new("gcc");
    host(
        gcc.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror"])
            .args(more)
            .arg("-o")
            .arg(&built)
            .arg(source),
    )?;
    fs::read(&built).map_err(|e| format!("{}: {e}", built.display()))
}
