//! An EFI program for tests.

#![allow(clippy::unwrap_used)]

/// Returns an EFI program with these sections as a linker makes it, each padded to 512 bytes.
pub(crate) fn efi(machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = [b"MZ", &[0; 58][..], &64u32.to_le_bytes(), b"PE\0\0"].concat();
    file.extend(machine.to_le_bytes());
    file.extend(u16::try_from(sections.len()).unwrap().to_le_bytes());
    file.extend([0; 12]);
    file.extend([240u16.to_le_bytes(), [0; 2]].concat());
    file.extend([0; 240]);
    let mut contents = Vec::new();
    let begin = (file.len() + sections.len() * 40).next_multiple_of(512);
    for (name, content) in sections {
        let mut padded = [0; 8];
        padded.get_mut(..name.len()).unwrap().copy_from_slice(name.as_bytes());
        file.extend(padded);
        let raw = content.len().next_multiple_of(512);
        for number in [content.len(), 0x1000, raw, begin + contents.len()] {
            file.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        file.extend([0; 16]);
        contents.extend_from_slice(content);
        contents.resize(contents.len().next_multiple_of(512), 0xff);
    }
    file.resize(begin, 0);
    file.extend(contents);
    file
}
