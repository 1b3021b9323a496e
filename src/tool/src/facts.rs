//! Facts on standard output, for a person or for a program.

use std::io::{self, Write};

use serde::Serialize;

/// Prints them: as JSON, or in words.
pub fn print(facts: &impl Serialize, json: bool, in_words: impl FnOnce() -> String) -> io::Result<()> {
    let shown = if json { serde_json::to_string_pretty(facts)? + "\n" } else { in_words() };
    io::stdout().write_all(shown.as_bytes())
}
