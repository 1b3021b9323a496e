//! Output: facts on standard output, for a person or for a program, and messages on standard output or
//! standard error.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Prints the facts, as JSON or in words.
pub fn print(facts: &impl Serialize, json: bool, in_words: impl FnOnce() -> String) -> io::Result<()> {
    let shown = if json { serde_json::to_string_pretty(facts)? + "\n" } else { in_words() };
    io::stdout().write_all(shown.as_bytes())
}

/// Reports on standard output that something was done. A write error is ignored, because a closed pipe undoes
/// nothing.
pub fn say(sentence: impl Display) {
    to(&mut io::stdout(), sentence);
}

/// Reports something that a person should know, on standard error.
pub fn note(sentence: impl Display) {
    to(&mut io::stderr(), format_args!("nextkernel: {sentence}"));
}

/// Writes a line and ignores errors; `println!` would end the process if the pipe is closed.
fn to(out: &mut impl Write, sentence: impl Display) {
    let _ = writeln!(out, "{sentence}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn where_nobody_listens_any_more_nothing_ends() {
        let (mut out, reader) = UnixStream::pair().unwrap();
        to(&mut out, "heard");
        let mut heard = [0; 6];
        io::Read::read_exact(&mut &reader, &mut heard).unwrap();
        assert_eq!(&heard, b"heard\n");
        drop(reader);
        assert!(out.write_all(b"x").is_err());
        to(&mut out, "unheard");
    }
}
