//! Unpacks a kernel from any bytes, or refuses them, without a panic. A kernel that is not packed comes out
//! unchanged, and a truncated one as the beginning of the whole. No bytes after a whole one pass unnoticed. Any
//! kernel header is parsed.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nextkernel::image::header::Header;
use nextkernel::image::unpack::{HEAD, Unpacked, Wrapping};

/// Limit for the unpacked bytes that are compared.
const MOST: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let header = Header::parse(bytes);
    assert!(matches!(header, Header::Bz(_) | Header::Flat(_)) || header.takes(0) == 0);
    let head = &bytes[..bytes.len().min(usize::try_from(HEAD).unwrap_or(usize::MAX))];
    let Some(wrapping) = Wrapping::of(head) else {
        return assert_eq!(unpacked(bytes), Some((bytes.to_vec(), true)));
    };
    let length = bytes.len() as u64;
    let _ = wrapping.told(&mut Cursor::new(bytes), 0, length);
    let _ = wrapping.told(&mut Cursor::new(bytes), length / 2, u64::MAX);
    // The bytes read from a truncated kernel are the beginning of the whole.
    if let (Some(whole), Some(part)) = (unpacked(bytes), unpacked(&bytes[..bytes.len() / 2])) {
        assert!(whole.0.starts_with(&part.0) || part.0.starts_with(&whole.0), "{wrapping:?}");
    }
    // A zboot image states its own length, so that bytes after it are allowed.
    let is_zboot = matches!(wrapping, Wrapping::Zboot { .. });
    if unpacked(bytes).is_some_and(|(all, whole)| whole && !is_zboot && all.len() < MOST) {
        let more = [bytes, b"x"].concat();
        assert!(!unpacked(&more).is_some_and(|(_, whole)| whole), "{wrapping:?}");
    }
});

/// Returns the unpacked bytes, and whether they are whole; `None` if nothing can be unpacked.
fn unpacked(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let (mut all, mut part) = (Vec::new(), vec![0; 4096]);
    let mut kernel = Unpacked::new(bytes).ok()?;
    while all.len() < MOST {
        match kernel.read(&mut part) {
            Ok(0) => return Some((all, true)),
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(_) => return Some((all, false)),
        }
    }
    Some((all, true))
}
