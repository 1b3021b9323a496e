//! Measures the hook's load by segments, for each state of memory.

use crate::handoff::{LINE, between, counted, hook_shutdown};
use crate::images::Images;
use crate::report::write_between;
use bed::guest::shutdown::Ended;
use bed::harness::Test;
use bed::host::programs;
use bed::image::Image;
use bed::machine::{End, with_last_lines};
use std::fmt::Write;
use std::fs;

/// A state of memory.
pub struct State {
    /// Name for the table.
    name: &'static str,
    /// Memory of the machine, in MiB.
    memory: u32,
    /// Shell lines that produce the state before staging; the images are /kernel and /initrd.
    made_by: &'static str,
}

/// All measured states.
pub const STATES: [State; 6] = [
    State { name: "as the guest comes", memory: 2048, made_by: "true" },
    State {
        name: "kernel and initrd once more in a tmpfs",
        memory: 2048,
        made_by: "mkdir /run/twice && cp /kernel /initrd /run/twice",
    },
    State {
        name: "nearly full",
        memory: 1536,
        made_by: "mount -o remount,size=95% /run && fill /run/fill 520",
    },
    State {
        name: "fragmented: every second page is taken",
        memory: 1536,
        made_by: "mount -o remount,size=95% /run && fill /run/fill 520 holes",
    },
    State { name: "memory above 4 GiB", memory: 6144, made_by: "true" },
    State { name: "640 MiB", memory: 640, made_by: "true" },
];

/// Measures all states, and writes the table.
pub fn bench() -> Result<(), String> {
    let mut table = "| state of memory | machine | bytes | the load | for a byte | staging |\n|---|---|---|---|---|---|\n".to_owned();
    for number in 0..STATES.len() {
        table.push_str(&row(number)?);
    }
    println!("{table}");
    write_between("loads", &table)
}

/// Measures one state.
pub fn row(number: usize) -> Result<String, String> {
    let state = STATES.get(number).ok_or_else(|| format!("there is no row {number}"))?;
    let images = Images::make()?;
    let test = Test { name: format!("bench.loads.{number}"), image: Image::Debian13 };
    let _ = fs::remove_file(test.log());
    let mut guest = hook_shutdown(&test, &images.small.packed, state.memory)?;
    guest.file("/usr/bin/fill", 0o755, programs::fill()?);
    let _ = write!(
        guest.scenario,
        "{{ {}; }} || poweroff -f\n\
         count stage nextkernel stage --kernel /kernel --initrd /initrd --cmdline '{LINE}' --thaw --preload no\n\
         test -e /run/nextkernel/plan || poweroff -f\n\
         grep '^segment' /run/nextkernel/plan | sed 's/^/SEGMENT /'\n\
",
        state.made_by
    );
    let ended = guest.run()?;
    ended.expect(End::PoweredOff)?;
    let bytes = bytes(&ended)?;
    let load = between(&ended, "nextkernel: load ", "nextkernel: settle the watchdog")?;
    let [staging, ..] = counted(&ended, "stage")?;
    let row = format!(
        "| {} | {} MiB | {:.1} MB | {:.2} G | {:.2} | {:.2} G |\n",
        state.name,
        state.memory,
        bytes / 1e6,
        load / 1e9,
        load / bytes,
        staging / 1e9
    );
    eprint!("bench: loads.{number} {row}");
    Ok(row)
}

/// Returns the number of bytes loaded.
fn bytes(ended: &Ended) -> Result<f64, String> {
    let lines = ended.console.lines().filter_map(|line| line.trim_start().strip_prefix("SEGMENT segment"));
    let sizes: Option<Vec<f64>> =
        lines.map(|line| line.split("takes=").nth(1)?.trim().parse().ok()).collect();
    let sizes = sizes.filter(|sizes| !sizes.is_empty());
    sizes
        .map(|sizes| sizes.iter().sum())
        .ok_or_else(|| with_last_lines("no segments in the plan", &ended.console))
}
