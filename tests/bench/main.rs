//! What staging and handing over cost, beside what everybody else uses: in the instructions of guests, and in memory.
//!
//! It writes the tables of docs/performance.md. Nothing is asserted: figures are for people.

mod handoff;
mod hundred;
mod images;
mod loads;
mod report;
mod staging;
mod whole;

use bed::image::Image;
use bed::vm_folder;
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

/// All tables, or those of these names. `large.7` is one row alone, and is written nowhere.
fn bench(names: &[String]) -> Result<(), String> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|one| one == name);
    fs::create_dir_all(vm_folder().join("logs")).map_err(|e| format!("target/vm/logs: {e}"))?;
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
