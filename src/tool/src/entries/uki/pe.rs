//! The sections of an EFI program (PE format), and the texts in them.

use std::io::{Read, Seek, SeekFrom};

use crate::entries::uki::error::{Error, TEXT_MAX};
use crate::image::piece::Section;

/// This machine's type in the header (PE format, "Machine Types").
pub(super) const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    0x8664
} else if cfg!(target_arch = "aarch64") {
    0xaa64
} else if cfg!(target_arch = "riscv64") {
    0x5064
} else {
    0
};

/// The headers of an EFI program, as far as they are needed (PE format, "Section Table").
pub(super) struct Table {
    pub(super) machine: u16,
    pub(super) rows: Vec<Row>,
}

/// A row of the section table.
pub(super) struct Row {
    name: [u8; 8],
    offset: u32,
    size: u32,
}

impl Table {
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Table, Error> {
        let mut bytes = |at: u64, count: u64| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            file.take(count).read_to_end(&mut bytes)?;
            Ok::<_, Error>(bytes)
        };
        let dos = bytes(0, 64)?;
        let header = dos.get(60..).and_then(|rest| rest.first_chunk()).map(|at| u32::from_le_bytes(*at));
        let header = u64::from(header.filter(|_| dos.starts_with(b"MZ")).ok_or(Error::NoPe("no MZ header"))?);
        let coff = bytes(header, 24)?;
        let number =
            |at| word(&coff, at).filter(|_| coff.starts_with(b"PE\0\0")).ok_or(Error::NoPe("no PE header"));
        let (machine, rows, optional) = (number(4)?, number(6)?, number(20)?);
        let table = bytes(header + 24 + u64::from(optional), u64::from(rows) * 40)?;
        let rows: Vec<_> = table.chunks_exact(40).filter_map(Row::parse).collect();
        Ok(Table { machine, rows })
    }
}

impl Row {
    fn parse(row: &[u8]) -> Option<Row> {
        let number = |at: usize| Some(u32::from_le_bytes(*row.get(at..)?.first_chunk()?));
        // The file has padding behind the section, and in memory zeros may follow it. The section's real size
        // is the lesser one.
        Some(Row { name: *row.first_chunk()?, offset: number(20)?, size: number(8)?.min(number(16)?) })
    }

    /// Compares the name. A name of eight bytes has no NUL behind it.
    pub(super) fn is(&self, name: &str) -> bool {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        self.name.get(..end) == Some(name.as_bytes())
    }

    /// Returns the section. An empty section counts as missing.
    pub(super) fn section(&self, name: &'static str) -> Option<Section> {
        (self.size > 0).then(|| Section { name, offset: self.offset.into(), size: self.size.into() })
    }
}

/// Returns the row of that name; of several the first counts.
pub(super) fn find<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.is(name))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a section's text, up to its first NUL.
pub(super) fn text(file: &mut (impl Read + Seek), section: &Section) -> Result<String, Error> {
    if section.size > TEXT_MAX {
        return Err(Error::TooLong(section.name));
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(section.offset))?;
    file.take(section.size).read_to_end(&mut text)?;
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    String::from_utf8(text).map_err(|_| Error::NotText(section.name))
}

/// Converts a command line as systemd-stub does: control characters become spaces, and spaces at both ends are
/// removed (`mangle_stub_cmdline`, src/boot/util.c of systemd).
pub(super) fn cmdline(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_control() { ' ' } else { c })
        .collect::<String>()
        .trim_matches(' ')
        .to_owned()
}

/// Parses lines of `KEY=VALUE` as in os-release(5): quotes are a shell's, and comments begin with `#`.
pub(super) fn environment(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), unquoted(value)))
        .collect()
}

fn unquoted(value: &str) -> String {
    let (mut plain, mut quote, mut characters) = (String::new(), None, value.chars());
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => plain.extend(characters.next().filter(|next| !next.is_control())),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}
