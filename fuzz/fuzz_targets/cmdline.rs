//! Derives a reusable command line from any running one. The result consists of whole parameters of the
//! original, without those added by the boot loader or the last handoff, and reusing it again changes nothing.
//! With the additions for the next kernel it has exactly these, and does not grow from handoff to handoff.
//! Removed parameters are gone at once, and the rest are whole parameters of the line. A record that is found
//! reads the same again, and fits after the longest line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::image::cmdline::{
    Line, is_without_sysfb, parameters, removed, value, with, without, without_added, without_sysfb,
};
use nextkernel_plan::{Record, limits};

fuzz_target!(|line: &str| {
    if let Some(record) = Record::find(line) {
        let text = record.to_string();
        assert_eq!(Record::find(&text), Some(record), "{text}");
        // A running clock shows no time after the year 2500.
        let told = record.course.is_none_or(|course| course.begun_at < 1 << 34);
        assert!(!told || text.len() < limits::RECORD_MAX, "{text}");
    }
    let reused = without_added(line);
    assert_eq!(without_added(&reused), reused, "{line:?}");
    assert!(reused.len() <= line.len());
    assert!(!reused.starts_with("initrd=") && !reused.starts_with("BOOT_IMAGE="), "{reused:?}");
    if !reused.contains('"') {
        assert_eq!(Record::find(&reused), None, "{reused:?}");
    }
    if let Some((named, line)) = line.split_once('\n') {
        if let Some(fewer) = removed(line, named) {
            assert_eq!(removed(&fewer, named), None, "{line:?} without {named:?}");
            let kept = parameters(&fewer).all(|kept| parameters(line).any(|parameter| parameter == kept));
            assert!(kept && fewer.len() < line.len(), "{line:?} without {named:?}: {fewer:?}");
        }
    }
    if let Ok(whole) = Line::new(&reused) {
        let whole = whole.as_str();
        assert!(whole.matches('"').count() % 2 == 0 && !whole.contains(char::is_control), "{whole:?}");
        let staged = completed(whole);
        assert!(value(&staged, "panic") == Some("30") && is_without_sysfb(&staged), "{staged:?}");
        let again = completed(&without_added(&staged));
        assert!(again.len() == staged.len() && completed(&again) == again, "{staged:?}, {again:?}");
    }
});

/// Completes a line as on a machine with `panic = 30` and i915.
fn completed(line: &str) -> String {
    without_sysfb(&with(&without(line, "panic"), "panic=30"))
}
