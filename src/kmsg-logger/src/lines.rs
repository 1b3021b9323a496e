//! Turning a message into lines. All code here is pure, except for the [`Sink`] that takes the lines.

use core::fmt::{self, Write};
use log::Level;

/// The longest record that is written, in bytes, with its `<N>` and its final newline.
///
/// `/dev/kmsg` refuses a longer write with `EINVAL` (`devkmsg_write` in `kernel/printk/printk.c`).
/// The limit is `PRINTKRB_RECORD_MAX` = 1024 in newer kernels, and was `LOG_LINE_MAX` = 1024 - 32,
/// or 1024 - 48 with `CONFIG_PRINTK_CALLER`, in older ones; this is the least of the three.
pub const RECORD_MAX: usize = 1024 - 48;

/// The end of a line that was cut.
const MARK: &str = "[cut]";

/// The room in a record without its newline.
const LINE_MAX: usize = RECORD_MAX - 1;

/// The longest prefix in characters: more than any program's name needs, and at four bytes each still far
/// from [`RECORD_MAX`].
const PREFIX_MAX_CHARS: usize = 48;

/// The destination of finished lines.
pub(crate) trait Sink {
    /// Takes one whole record, `<N>PREFIX: text\n`. Returns false if it could not be delivered.
    fn kmsg(&self, record: &[u8]) -> bool;
    /// Takes a line that kmsg has refused, `PREFIX: text\r\n`.
    fn console(&self, line: &[u8]);
}

/// Sends each line of `message` to `sink`.
pub(crate) fn send(level: Level, prefix: &str, message: fmt::Arguments, sink: &impl Sink) {
    let mut lines = Lines::new(level, prefix, sink);
    // If a Display fails midway, the text before that is sent all the same.
    let _ = lines.write_fmt(message);
    lines.end();
}

/// The current line. At each newline it is sent, and the next one begins.
struct Lines<'a, S> {
    sink: &'a S,
    /// `<N>PREFIX: text`, and room for the console's two-byte line end.
    bytes: [u8; RECORD_MAX + 1],
    /// The number of bytes in use.
    len: usize,
    /// The start of the text, behind `<N>PREFIX: `, which stays from line to line.
    start: usize,
    /// The end of the last character behind which the mark still fits.
    cut_at: usize,
    /// Whether the mark was added. The rest of the line is then dropped.
    cut: bool,
}

impl<'a, S: Sink> Lines<'a, S> {
    fn new(level: Level, prefix: &str, sink: &'a S) -> Self {
        let (bytes, len) = ([0; RECORD_MAX + 1], 0);
        let mut lines = Self { sink, bytes, len, start: 0, cut_at: 0, cut: false };
        lines.append(syslog(level));
        prefix.chars().take(PREFIX_MAX_CHARS).for_each(|c| lines.put(c));
        if !prefix.is_empty() {
            lines.append(": ");
        }
        lines.start = lines.len;
        lines
    }

    /// Adds one character of text.
    fn put(&mut self, c: char) {
        if self.cut {
            return;
        }
        let c = if c.is_control() && c != '\t' { '?' } else { c };
        if self.len + c.len_utf8() > LINE_MAX {
            self.len = self.cut_at;
            self.append(MARK);
            self.cut = true;
            return;
        }
        self.append(c.encode_utf8(&mut [0; 4]));
        if self.len + MARK.len() <= LINE_MAX {
            self.cut_at = self.len;
        }
    }

    /// Adds `part` as it is. The callers make sure that there is room; without room it would be left out.
    fn append(&mut self, part: &str) {
        let end = self.len + part.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(part.as_bytes());
            self.len = end;
        }
    }

    /// Sends the line, unless it is empty, and begins the next.
    fn end(&mut self) {
        let line_end = self.len;
        if line_end > self.start {
            self.append("\n");
            if !self.sink.kmsg(self.from(0)) {
                self.len = line_end;
                self.append("\r\n");
                self.sink.console(self.from("<N>".len()));
            }
        }
        self.len = self.start;
        self.cut = false;
    }

    fn from(&self, start: usize) -> &[u8] {
        self.bytes.get(start..self.len).unwrap_or_default()
    }
}

impl<S: Sink> Write for Lines<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Most pieces are printable ASCII, and leave room for the mark.
        let fits = !self.cut && self.len + text.len() + MARK.len() <= LINE_MAX;
        if fits && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.append(text);
            self.cut_at = self.len;
            return Ok(());
        }
        for c in text.chars() {
            if c == '\n' { self.end() } else { self.put(c) }
        }
        Ok(())
    }
}

/// Returns the kernel's code for a level (`include/linux/kern_levels.h`).
fn syslog(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use std::cell::RefCell;

    /// Remembers its input as text. A record that is not UTF-8 fails the test.
    #[derive(Default)]
    struct Seen {
        broken: bool,
        kmsg: RefCell<Vec<String>>,
        console: RefCell<Vec<String>>,
    }

    impl Sink for Seen {
        fn kmsg(&self, record: &[u8]) -> bool {
            self.kmsg.borrow_mut().push(String::from_utf8(record.to_vec()).unwrap());
            !self.broken
        }
        fn console(&self, line: &[u8]) {
            self.console.borrow_mut().push(String::from_utf8(line.to_vec()).unwrap());
        }
    }

    fn records(message: impl fmt::Display) -> Vec<String> {
        let seen = Seen::default();
        send(Level::Info, "test", format_args!("{message}"), &seen);
        assert!(seen.console.borrow().is_empty(), "kmsg took it, so the console must not get it");
        seen.kmsg.into_inner()
    }

    /// The room for the text between `<6>test: ` and the newline.
    const ROOM: usize = RECORD_MAX - "<6>test: \n".len();

    #[test]
    fn levels_are_the_syslog_ones() {
        for (level, record) in [
            (Level::Error, "<3>test: x\n"),
            (Level::Warn, "<4>test: x\n"),
            (Level::Info, "<6>test: x\n"),
            (Level::Debug, "<7>test: x\n"),
            (Level::Trace, "<7>test: x\n"),
        ] {
            let seen = Seen::default();
            send(level, "test", format_args!("x"), &seen);
            assert_eq!(*seen.kmsg.borrow(), [record]);
        }
    }

    #[test]
    fn each_line_of_a_message_is_a_record() {
        assert_eq!(records("a\nb\n"), ["<6>test: a\n", "<6>test: b\n"]);
    }

    #[test]
    fn an_empty_line_is_skipped() {
        assert_eq!(records("\n\na\n\nb"), ["<6>test: a\n", "<6>test: b\n"]);
        assert!(records("").is_empty());
    }

    #[test]
    fn a_message_in_pieces_is_one_record() {
        assert_eq!(records(format_args!("{}{:>4}{:?}", "a", 7, "b")), ["<6>test: a   7\"b\"\n"]);
    }

    #[test]
    fn control_characters_cannot_reach_a_terminal() {
        assert_eq!(records("\x1b[2J\u{9b}1m\0\r\x7f\ta"), ["<6>test: ?[2J?1m???\ta\n"]);
    }

    #[test]
    fn a_record_of_the_greatest_length_is_whole() {
        let text = "x".repeat(ROOM);
        let records = records(&text);
        assert_eq!(records, [format!("<6>test: {text}\n")]);
        assert_eq!(records.concat().len(), 976);
    }

    #[test]
    fn a_long_record_is_cut_with_a_mark_and_not_lost() {
        let text = "x".repeat(ROOM + 1);
        let cut = "x".repeat(ROOM - MARK.len());
        assert_eq!(records(&text), [format!("<6>test: {cut}[cut]\n")]);
    }

    #[test]
    fn a_cut_costs_the_line_and_not_the_next() {
        let records = records(format_args!("{}\nb", "x".repeat(5000)));
        assert_eq!(records.last().unwrap(), "<6>test: b\n");
        assert_eq!(records.len(), 2);
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for c in ['é', '€', '🦀'] {
            for offset in 0..4 {
                let text = "x".repeat(offset) + &c.to_string().repeat(1000);
                let records = records(&text); // it is UTF-8, or Seen would have failed
                let kept = records.concat();
                let kept = kept.strip_prefix("<6>test: ").unwrap().strip_suffix("[cut]\n").unwrap();
                assert!(text.starts_with(kept));
                assert!(ROOM - kept.len() < MARK.len() + c.len_utf8(), "more was cut than needed");
            }
        }
    }

    #[test]
    fn a_display_that_fails_has_still_said_something() {
        struct Fails;
        impl fmt::Display for Fails {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("one\ntwo")?;
                Err(fmt::Error)
            }
        }
        let seen = Seen::default();
        send(Level::Info, "test", format_args!("{Fails} three"), &seen);
        assert_eq!(*seen.kmsg.borrow(), ["<6>test: one\n", "<6>test: two\n"]);
    }

    #[test]
    fn an_endless_prefix_leaves_room_for_text() {
        let seen = Seen::default();
        send(Level::Info, &"🦀\n".repeat(1000), format_args!("text"), &seen);
        assert_eq!(*seen.kmsg.borrow(), [format!("<6>{}: text\n", "🦀?".repeat(24))]);
    }

    #[test]
    fn no_prefix_is_no_colon() {
        let seen = Seen::default();
        send(Level::Info, "", format_args!("text"), &seen);
        assert_eq!(*seen.kmsg.borrow(), ["<6>text\n"]);
    }

    #[test]
    fn the_console_gets_each_line_that_kmsg_refuses() {
        let seen = Seen { broken: true, ..Seen::default() };
        let whole = "x".repeat(ROOM);
        send(Level::Info, "test", format_args!("a\n\n{whole}\nb"), &seen);
        let whole = format!("test: {whole}\r\n");
        assert_eq!(*seen.console.borrow(), ["test: a\r\n", &whole, "test: b\r\n"]);
        assert_eq!(seen.kmsg.borrow().len(), 3, "each line asks kmsg anew");
    }

    /// Marsaglia's xorshift64: the same messages in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % n as u64).unwrap()
        }

        fn char(&mut self) -> char {
            match self.below(1000) {
                0 => '\n',
                1..5 => char::from(u8::try_from(self.below(0xa0)).unwrap()),
                5..50 => char::from_u32(u32::try_from(self.below(0x11_0000)).unwrap()).unwrap_or('€'),
                _ => 'x',
            }
        }

        /// Returns a message in pieces, because a message reaches the logger in pieces.
        fn message(&mut self) -> Vec<String> {
            let longest = [3, 40, 900, 1100][self.below(4)];
            let piece = |r: &mut Self| (0..r.below(longest)).map(|_| r.char()).collect();
            (0..self.below(6)).map(|_| piece(self)).collect()
        }
    }

    struct Pieces(Vec<String>);

    impl fmt::Display for Pieces {
        fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
            self.0.iter().try_for_each(|piece| f.write_str(piece))
        }
    }

    #[test]
    fn whatever_is_said_arrives_harmless_and_whole_up_to_the_limit() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let (mut whole, mut cut) = (0, 0);
        for _ in 0..4000 {
            let message = Pieces(random.message());
            let said = message.0.concat().replace(|c: char| c.is_control() && c != '\t' && c != '\n', "?");
            let said: Vec<_> = said.split('\n').filter(|line| !line.is_empty()).collect();
            let records = records(message);
            assert_eq!(records.len(), said.len());
            for (record, said) in records.iter().zip(said) {
                assert!(record.len() <= RECORD_MAX);
                let line = record.strip_prefix("<6>test: ").unwrap().strip_suffix('\n').unwrap();
                assert!(!line.contains(|c: char| c.is_control() && c != '\t'));
                if said.len() <= ROOM {
                    assert_eq!(line, said);
                    whole += 1;
                } else {
                    assert!(said.starts_with(line.strip_suffix(MARK).unwrap()));
                    assert!(line.len() + 4 > ROOM);
                    cut += 1;
                }
            }
        }
        assert!(whole > 1000 && cut > 10, "the messages are of both kinds: {whole}, {cut}");
    }
}
