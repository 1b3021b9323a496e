//! Parses any bytes as an entry, a loader.conf, an EFI variable, names and patterns, without a panic. No line of
//! an entry runs into another, comments change nothing, versions and file names have one order, and a pattern's
//! star matches anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::entries::bls::Keys;
use nextkernel::entries::grub::order;
use nextkernel::entries::systemd_boot::{Conf, fits};
use nextkernel::entries::tries::Tries;
use nextkernel::entries::version::compare;
use nextkernel::machine::efi;

fuzz_target!(|bytes: &[u8]| {
    let keys = Keys::parse(bytes);
    assert_eq!(Keys::parse(&[b"# title x\n\r\n", bytes].concat()), keys);
    let texts = [&keys.title, &keys.version, &keys.machine_id, &keys.sort_key, &keys.architecture];
    let texts = texts.into_iter().flatten().chain(&keys.initrds).chain([&keys.options]);
    for text in texts {
        assert!(!text.contains(['\n', '\r', '\0']), "{text:?}");
    }
    let _ = Conf::parse(bytes);
    assert!(efi::decoded(bytes).iter().all(|text| !text.is_empty() && !text.contains('\0')));

    let text = String::from_utf8_lossy(bytes);
    let names: Vec<_> = text.lines().take(8).map(|line| line.chars().take(64).collect::<String>()).collect();
    for a in &names {
        let (name, tries) = Tries::parse(a);
        assert!(a.starts_with(name) && (tries.is_some() || name == a), "{a:?}");
        assert!(fits(&format!("*{}*", name.replace(['\\', '[', '?', '*'], "?")), a), "{a:?}");
        for b in &names {
            let _ = fits(a, b);
            for compare in [compare, order::compare] {
                assert_eq!(compare(a, b), compare(b, a).reverse(), "{a:?} {b:?}");
                for c in &names {
                    assert!(
                        compare(a, b).is_gt() || compare(b, c).is_gt() || compare(a, c).is_le(),
                        "{a:?} {b:?} {c:?}"
                    );
                }
            }
        }
    }
});
