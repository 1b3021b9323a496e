//! Parses any grub.cfg and grubenv into a menu, or reports the line that is wrong, in words that cannot steer a
//! terminal. The next entry is one of the menu and certainly exists; a one-shot entry is consumed completely.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::entries::grub::choice::Because;
use nextkernel::entries::grub::environment::{Environment, without};
use nextkernel::entries::grub::menu::{Boots, Config, Entry, MenuFiles, Named};

/// Separates the files of the directory in an input.
const CUT: &[u8] = b"\n--- cut ---\n";

const BLS: [Named; 2] = [Named { id: "1f-6.17", title: "Linux 6.17" }, Named { id: "6.16", title: "a>b" }];

fuzz_target!(|bytes: &[u8]| {
    let (config, rest) = cut(bytes);
    let (environment, custom) = rest.map_or((None, None), |rest| (Some(cut(rest).0), cut(rest).1));
    if let Some(environment) = environment {
        consumed(environment);
    }
    for platform in [None, Some("efi")] {
        match Config::read(&MenuFiles { config, environment, custom, user: None, platform }) {
            Ok(config) => menu(&config),
            Err(wrong) => plain(&wrong.to_string()),
        }
    }
});

fn cut(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.windows(CUT.len()).position(|window| window == CUT) {
        Some(at) => (&bytes[..at], Some(&bytes[at + CUT.len()..])),
        None => (bytes, None),
    }
}

fn menu(config: &Config) {
    let bls = if config.blscfg.is_some() { &BLS[..] } else { &[] };
    let entries = config.entries(bls);
    for entry in &entries {
        assert!(!entry.place.is_empty() && entry.place.len() == entry.ids.len(), "{entry:?}");
        entry.maybe.iter().for_each(|wrong| plain(&wrong.to_string()));
        match &entry.boots {
            Boots::Linux(linux) => {
                plain(&linux.options);
                for file in [&linux.kernel].into_iter().chain(&linux.initrds).chain(&linux.devicetree) {
                    assert!(file.path.starts_with('/'), "{file:?}");
                    plain(&file.path);
                }
            }
            Boots::Bls(number) => assert!(*number < bls.len()),
            Boots::Refused(wrong) => plain(&wrong.to_string()),
        }
    }
    match config.next(bls) {
        Ok(next) => {
            let found: Vec<&Entry> = entries.iter().filter(|entry| entry.place == next.place).collect();
            assert!(found.iter().any(|entry| entry.maybe.is_none()), "{next:?}, {entries:?}");
            let first = next.place.last() == Some(&0);
            assert!(next.because != Because::First || first || next.place.len() > 1, "{next:?}");
        }
        Err(undecided) => plain(&undecided.to_string()),
    }
    if let Some(blscfg) = &config.blscfg {
        for options in ["$kernelopts $tuned_params x", "a=\"$b c\" \\$d 'e'"] {
            match blscfg.expand(options) {
                Ok(options) => plain(&options),
                Err(wrong) => plain(&wrong.to_string()),
            }
        }
    }
}

fn consumed(block: &[u8]) {
    let Ok(environment) = Environment::parse(block) else { return };
    let Some(left) = without(block, "next_entry") else {
        return assert_eq!(environment.get("next_entry"), None);
    };
    assert_eq!(left.len(), block.len());
    let left = Environment::parse(&left).expect("what was a block is one");
    let others = environment.variables.into_iter().filter(|(name, _)| name != "next_entry");
    assert_eq!(left.variables, others.collect::<Vec<_>>());
}

fn plain(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
