//! Measures the cost of staging and of handing over, compared with the usual tools: in instructions of guests,
//! and in memory.
//!
//! Writes the tables of docs/performance.md, and asserts nothing: the figures are for people.

mod handoff;
mod hundred;
mod images;
mod loads;
mod report;
mod staging;
mod whole;

use bed::host::paths::vm_directory;
use bed::image::Image;
use std::env;
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    match bench(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes all tables, or those with these names. A name like `large.7` measures one row, which is written
/// nowhere.
fn bench(names: &[String]) -> Result<(), String> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    fs::create_dir_all(vm_directory().join("logs")).map_err(|e| format!("target/vm/logs: {e}"))?;
    Image::Debian13.files()?;
    for (initrd, memory) in [("small", 2048), ("large", 4096)] {
        if wanted(initrd) {
            report::handoff(initrd, memory)?;
        }
        for row in names.iter().filter_map(|name| name.strip_prefix(initrd)?.strip_prefix('.')) {
            report::row(initrd, memory, row.parse().map_err(|e| format!("{row}: {e}"))?)?;
        }
    }
    if wanted("loads") {
        loads::bench()?;
    }
    for row in names.iter().filter_map(|name| name.strip_prefix("loads.")) {
        loads::row(row.parse().map_err(|e| format!("{row}: {e}"))?)?;
    }
    if wanted("whole") {
        whole::bench()?;
    }
    for row in names.iter().filter_map(|name| name.strip_prefix("whole.")) {
        whole::row(row.parse().map_err(|e| format!("{row}: {e}"))?)?;
    }
    if wanted("staging") {
        staging::bench()?;
    }
    if wanted("hundred") {
        hundred::bench()?;
    }
    Ok(())
}
