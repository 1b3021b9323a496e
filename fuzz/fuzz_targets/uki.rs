//! Reads any file as a unified kernel image, or refuses it, without a panic. An image has a kernel in each
//! profile, and its texts cannot steer a terminal.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use nextkernel::entries::uki::image::Uki;

fuzz_target!(|bytes: &[u8]| {
    let mut file = Cursor::new(bytes);
    let is_one = Uki::is_one(&mut file);
    match Uki::read(&mut file) {
        Ok(uki) => {
            assert!(is_one && !uki.profiles.is_empty());
            for profile in &uki.profiles {
                assert!(profile.linux.size > 0);
                let said = [&profile.id, &profile.title, &profile.cmdline];
                let values = profile.osrel.iter().map(|(_, value)| value);
                said.into_iter().flatten().chain(values).for_each(|text| plain(text));
                let line = profile.cmdline.as_deref().unwrap_or_default();
                assert_eq!(line.trim_matches(' '), line);
            }
        }
        Err(error) => plain(&error.to_string()),
    }
});

fn plain(text: &str) {
    assert!(!text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}
