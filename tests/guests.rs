//! Runs all properties that need a guest, in one queue.

mod handoff;
mod night;

use bed::harness::{self, Suite};
use std::process::ExitCode;

const SUITES: [Suite; 2] = [
    // A guest of the hook alone is restored, and ends in a stub; some properties need several guests, or a real
    // next kernel.
    Suite { properties: night::PROPERTIES, budget: 20 },
    // A whole Debian is restored, and then boots its next kernel once or several times, some 20 seconds each.
    Suite { properties: handoff::PROPERTIES, budget: 120 },
];

fn main() -> ExitCode {
    harness::run(&SUITES)
}
