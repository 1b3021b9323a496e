//! Parses any extlinux.conf into labels, or reports the line that is wrong, in words that cannot steer a
//! terminal. Comments and the case of keywords change nothing; the next label is one of the file's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::entries::extlinux::choice::Because;
use nextkernel::entries::extlinux::menu::Config;

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let read = Config::parse(bytes);
    let commented = Config::parse(&[bytes, b"\n\n# the end"].concat());
    let config = match read {
        Ok(config) => config,
        Err(wrong) => {
            assert!((1..=lines).contains(&wrong.line), "{wrong}");
            return plain(&wrong.to_string());
        }
    };
    // Within 13 bytes of the maximum size, the comment makes the file too large.
    assert!(commented.is_err() || commented.as_ref() == Ok(&config));
    for label in &config.labels {
        assert!(!label.name.is_empty() && label.line <= lines, "{label:?}");
        match &label.boots {
            Ok(linux) => {
                assert!(!linux.kernel.is_empty() && linux.initrds.iter().all(|initrd| !initrd.is_empty()));
                // The options may contain a tab; the command line's own check refuses it.
                plain(&linux.options.replace('\t', " "));
            }
            Err(wrong) => {
                assert!((1..=lines).contains(&wrong.line), "{wrong}");
                plain(&wrong.to_string());
            }
        }
    }
    match config.next() {
        Ok((number, because)) => {
            assert!(number < config.labels.len() && (because != Because::First || number == 0));
        }
        Err(undecided) => plain(&undecided.to_string()),
    }
});

fn plain(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
