//! Tables for the terminal and for docs/performance.md.

use crate::handoff::{self, FLOOR, METHODS, Taken, USUAL};
use crate::images::{Images, Pair, megabytes};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Measures all handoffs with the initrd of this name, on a machine with `memory` MiB, and writes the table.
pub fn handoff(which: &str, memory: u32) -> Result<(), String> {
    let images = Images::make()?;
    let size = megabytes(&initrd(&images, which).packed)?;
    let rows: Result<Vec<_>, _> = (0..METHODS.len()).map(|number| row(which, memory, number)).collect();
    let text = table(size, memory, &rows?);
    println!("{text}");
    write_between(which, &text)
}

/// Measures one handoff, and prints it.
pub fn row(which: &str, memory: u32, number: usize) -> Result<Taken, String> {
    let images = Images::make()?;
    let method = METHODS.get(number).ok_or_else(|| format!("there is no row {number}"))?;
    let begun = Instant::now();
    let taken =
        handoff::measure(method, &images, initrd(&images, which), memory, &format!("{which}.{number}"))?;
    eprintln!(
        "bench: {which}, {}: {:.3} G + {:.3} G, {:?} and {:?} kB ({:.0} s)",
        method.name,
        taken.before / 1e9,
        taken.waits / 1e9,
        taken.program,
        taken.system,
        begun.elapsed().as_secs_f64()
    );
    Ok(taken)
}

fn initrd<'a>(images: &'a Images, which: &str) -> &'a Pair {
    if which == "small" { &images.small } else { &images.large }
}

fn table(size: f64, memory: u32, all: &[Taken]) -> String {
    let waits = |at: usize| all.get(at).map_or(f64::NAN, |taken| taken.waits);
    let mut text = format!(
        "| initrd of {size:.0} MB, machine of {memory} MiB | before | a person waits for | of `kexec -s` | of no handoff | \
         memory of the program | of the system |\n|---|---|---|---|---|---|---|\n"
    );
    let megabytes =
        |kilobytes: Option<f64>| kilobytes.map_or("-".into(), |it| format!("{:.0} MB", it * 1024.0 / 1e6));
    for (method, taken) in METHODS.iter().zip(all) {
        let _ = writeln!(
            text,
            "| {} | {:.2} G | {:.2} G | {:.3} | {:.3} | {} | {} |",
            method.name,
            taken.before / 1e9,
            taken.waits / 1e9,
            taken.waits / waits(USUAL),
            taken.waits / waits(FLOOR),
            megabytes(taken.program),
            megabytes(taken.system),
        );
    }
    text
}

/// Puts a table between its two marks in docs/performance.md.
pub fn write_between(name: &str, table: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let failed = |e| format!("{}: {e}", path.display());
    let old = fs::read_to_string(&path).map_err(failed)?;
    let (begin, end) =
        (format!("<!-- {name}: `make bench` writes this -->\n"), format!("<!-- {name}: to here -->"));
    let parts = old.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, behind) =
        parts.ok_or_else(|| format!("{}: the marks of {name} are missing", path.display()))?;
    fs::write(&path, format!("{before}{begin}{}\n{end}{behind}", table.trim_end())).map_err(failed)
}
