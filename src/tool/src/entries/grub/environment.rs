//! grubenv, GRUB's environment block (GRUB manual, "Environment block"; the format is grub-core/lib/envblk.c's).

use thiserror::Error;

/// The beginning of every block.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// Limit in bytes. grub-editenv makes 1024; a larger file is something else of that name.
pub const SIZE_MAX: usize = 64 * 1024;

/// The reason why the block cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// The signature is missing.
    #[error("grubenv is no GRUB environment block; `grub-editenv grubenv create` makes one")]
    NoSignature,
    /// The file is too large for a block.
    #[error("grubenv is larger than {SIZE_MAX} bytes; `grub-editenv grubenv create` makes one of 1024")]
    TooLarge,
    /// A name or a value is not UTF-8.
    #[error("grubenv holds a variable that is not plain text; remove it with `grub-editenv grubenv unset`")]
    NotText,
}

/// The variables that are saved in the block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values, in order. If a name occurs twice, GRUB takes the last value.
    pub variables: Vec<(String, String)>,
}

impl Environment {
    /// Reads the block as GRUB's `load_env` does, which silently passes over a last line without an end.
    pub fn parse(bytes: &[u8]) -> Result<Environment, Broken> {
        if bytes.len() > SIZE_MAX {
            return Err(Broken::TooLarge);
        }
        let mut rest = bytes.strip_prefix(SIGNATURE).ok_or(Broken::NoSignature)?;
        let mut variables = Vec::new();
        while let Some((line, after)) = split_line(rest) {
            rest = after;
            if line.starts_with(b"#") {
                continue;
            }
            let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = line.split_at(equals);
            let value = unescaped(value.get(1..).unwrap_or_default());
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| Broken::NotText);
            variables.push((text(name.to_vec())?, text(value)?));
        }
        Ok(Environment { variables })
    }

    /// Returns the value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Returns the block without a variable, of the same length, as `grub-editenv unset` leaves it. Returns `None`
/// if it is not a block, or does not hold the variable. A one-shot entry is consumed this way while the system
/// runs.
#[must_use]
pub fn without(block: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut rest = block.strip_prefix(SIGNATURE)?;
    let mut kept = SIGNATURE.to_vec();
    while let Some((line, after)) = split_line(rest) {
        let (whole, _) = rest.split_at(rest.len() - after.len());
        rest = after;
        let value = line.strip_prefix(name.as_bytes());
        if !value.is_some_and(|value| value.starts_with(b"=")) {
            kept.extend_from_slice(whole);
        }
    }
    kept.extend_from_slice(rest);
    let was_there = kept.len() < block.len();
    kept.resize(block.len(), b'#');
    was_there.then_some(kept)
}

/// Splits off a line, without its end. A backslash takes the next byte into the line, even a line feed. Returns
/// `None` if no line ends any more.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = bytes.iter().position(|byte| {
        let ends = *byte == b'\n' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    let (line, after) = bytes.split_at(end);
    Some((line, after.get(1..).unwrap_or_default()))
}

fn unescaped(value: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let kept = value.iter().filter(|byte| {
        escaped = **byte == b'\\' && !escaped;
        !escaped
    });
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::entries::grub::environment::*;

    fn block(lines: &str) -> Vec<u8> {
        let mut block = [SIGNATURE, lines.as_bytes()].concat();
        block.resize(1024, b'#');
        block
    }

    #[test]
    fn names_and_values_are_read_and_escapes_taken_off() {
        let block = block(
            "# WARNING: edited by grub-editenv\nsaved_entry=gnulinux-simple-1\nnext_entry=\n\
             kernelopts=root=UUID=1 ro a=\"b c\" x=\\\\2f\nlines=a\\\nb\n",
        );
        let environment = Environment::parse(&block).unwrap();
        assert_eq!(environment.get("saved_entry"), Some("gnulinux-simple-1"));
        assert_eq!(environment.get("next_entry"), Some(""));
        assert_eq!(environment.get("kernelopts"), Some("root=UUID=1 ro a=\"b c\" x=\\2f"));
        assert_eq!(environment.get("lines"), Some("a\nb"));
        assert_eq!(environment.get("boot_success"), None);
    }

    #[test]
    fn an_end_that_is_cut_off_is_passed_over_as_grub_does() {
        let environment = Environment::parse(b"# GRUB Environment Block\na=1\nb=2").unwrap();
        assert_eq!(environment.variables, [("a".to_owned(), "1".to_owned())]);
        assert_eq!(Environment::parse(b"a=1\n"), Err(Broken::NoSignature));
        assert_eq!(Environment::parse(&block("a=\u{0}\n")[..30]).unwrap().get("a"), Some("\0"));
        assert_eq!(Environment::parse(b"# GRUB Environment Block\na=\xff\n"), Err(Broken::NotText));
    }

    #[test]
    fn a_variable_taken_out_leaves_the_others_and_the_length() {
        let full = block("a=1\nnext_entry=x\\\ny\nb=2\n");
        let left = without(&full, "next_entry").unwrap();
        assert_eq!(left, block("a=1\nb=2\n"));
        assert_eq!(without(&left, "next_entry"), None);
        assert_eq!(without(b"a=1\n", "a"), None);
    }
}
