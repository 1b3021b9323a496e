//! What is said: facts on standard output, for a person or for a program, and sentences there and beside them.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

/// Prints them: as JSON, or in words.
pub fn print(facts: &impl Serialize, json: bool, in_words: impl FnOnce() -> String) -> io::Result<()> {
    let shown = if json { serde_json::to_string_pretty(facts)? + "\n" } else { in_words() };
    io::stdout().write_all(shown.as_bytes())
}

/// Says on standard output what is done. That nobody listens any more undoes nothing of it.
pub fn say(sentence: impl Display) {
    to(&mut io::stdout(), sentence);
}

/// Says on standard error what a person should know.
pub fn note(sentence: impl Display) {
    to(&mut io::stderr(), format_args!("nextkernel: {sentence}"));
}

/// `println!` would end the process where the pipe is closed.
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
