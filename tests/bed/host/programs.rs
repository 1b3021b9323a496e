//! C programs for the guests of tests and benchmarks, and for the bed itself.

use crate::host::command;
use crate::host::made::Made;
use crate::host::scratch::Scratch;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Returns `holder.c`, which keeps a device busy.
pub fn holder() -> Result<Vec<u8>, String> {
    built("holder.c", &[])
}

/// Returns `stuck.c`, which gets stuck so that nothing can end it, or makes another process get stuck.
pub fn stuck() -> Result<Vec<u8>, String> {
    built("stuck.c", &[])
}

/// Returns `hide.c`, which hides from a search for processes, or is too many processes for it.
pub fn hide() -> Result<Vec<u8>, String> {
    built("hide.c", &[])
}

/// Returns `mounts.c`, which makes more mounts, or longer lines in mountinfo, than anybody expects.
pub fn mounts() -> Result<Vec<u8>, String> {
    built("mounts.c", &[])
}

/// Returns `count.c`, which runs a program and prints the instructions and the memory that it took.
pub fn count() -> Result<Vec<u8>, String> {
    built("count.c", &[])
}

/// Returns `steps.c`, which counts the work of a program and its children in user mode.
pub fn steps() -> Result<Vec<u8>, String> {
    built("steps.c", &[])
}

/// Returns `fill.c`, which takes memory until only a given amount is free.
pub fn fill() -> Result<Vec<u8>, String> {
    built("fill.c", &[])
}

/// Returns `reserved.c`, which counts the pages of memory that are reserved.
pub fn reserved() -> Result<Vec<u8>, String> {
    built("reserved.c", &[])
}

/// Returns `arrived.c`, an /init whose first instruction is the first of the next system, and which prints when
/// that was.
pub fn arrived() -> Result<Vec<u8>, String> {
    built("arrived.c", &["-nostdlib"])
}

/// Returns `restored.c`, which waits for a guest's files and receives them.
pub fn restored() -> Result<Vec<u8>, String> {
    built("restored.c", &[])
}

/// Builds a static program with the host's compiler, once in a process.
fn built(source: &'static str, more: &[&str]) -> Result<Vec<u8>, String> {
    static BUILT: Made = Made::new();
    BUILT.get(source, || build(source, more))
}

fn build(source: &str, more: &[&str]) -> Result<Vec<u8>, String> {
    let scratch = Scratch::new()?;
    let (source, built) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(source), scratch.path("program"));
    let mut gcc = Command::new("gcc");
    command::run(
        gcc.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror"])
            .args(more)
            .arg("-o")
            .arg(&built)
            .arg(source),
    )?;
    fs::read(&built).map_err(|e| format!("{}: {e}", built.display()))
}
