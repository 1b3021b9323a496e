//! Any running command line gives one to reuse: made of whole parameters of the first, without those
//! that the boot loader or the last handoff added, and the same when it is reused again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::cmdline::{checked, without_added};
use nextkernel_plan::Record;

fuzz_target!(|line: &str| {
    let reused = without_added(line);
    assert_eq!(without_added(&reused), reused, "{line:?}");
    assert!(reused.len() <= line.len());
    assert!(!reused.starts_with("initrd=") && !reused.starts_with("BOOT_IMAGE="), "{reused:?}");
    if !reused.contains('"') {
        assert_eq!(Record::find(&reused), None, "{reused:?}");
    }
    if let Ok(whole) = checked(&reused, &[]) {
        assert!(whole.matches('"').count() % 2 == 0 && !whole.contains(char::is_control), "{whole:?}");
    }
});
