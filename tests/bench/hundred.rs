//! Measures a hundred handoffs in a row: whether one fails, and how much memory is lost.

use crate::report::write_between;
use bed::guest::chain::{self, By};
use bed::harness::Test;
use bed::image::Image;
use std::fmt::Write;
use std::fs;
use std::time::Instant;

/// Number of handoffs.
const HANDOFFS: u32 = 100;

pub fn bench() -> Result<(), String> {
    let mut table =
        "| by | handed over | free memory of the first system | of the last ten, median | time |\n\
                     |---|---|---|---|---|\n"
            .to_owned();
    let ways = [
        (By::Nextkernel, "nextkernel: verified, direct, thawed in turn"),
        (By::KexecTools, "kexec-tools: `-s`, `-c -i`, `-c -i` in turn"),
    ];
    for (by, name) in ways {
        let test = Test { name: format!("bench.hundred.{by:?}"), image: Image::Debian13 };
        let _ = fs::remove_file(test.log());
        let begun = Instant::now();
        let systems = chain::run(&test, by, HANDOFFS)?;
        let first = systems.first().map_or(0, |memory| memory.free);
        let mut last: Vec<_> = systems.iter().rev().take(10).map(|memory| memory.free).collect();
        last.sort_unstable();
        let last = last.get(last.len() / 2).copied().unwrap_or(0);
        let seconds = begun.elapsed().as_secs_f64();
        let _ = writeln!(table, "| {name} | {HANDOFFS} | {first} kB | {last} kB | {seconds:.0} s |");
    }
    println!("{table}");
    write_between("hundred", &table)
}
