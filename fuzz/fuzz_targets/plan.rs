//! Parses any bytes as a plan, or reports the line that is wrong. A plan written out and read again is the same
//! plan, made of the same lines: nothing in a text is passed over or taken for something else, and nothing in it
//! can steer the terminal that shows it. The file that arms a handoff is accepted in only one form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel_plan::{Armed, Plan};

fuzz_target!(|bytes: &[u8]| {
    if let Some(armed) = Armed::parse(bytes) {
        assert_eq!(armed.to_string().as_bytes(), bytes);
    }
    match Plan::parse(bytes) {
        Ok(plan) => {
            let text = plan.to_string();
            assert_eq!(Plan::parse(text.as_bytes()).as_ref(), Ok(&plan), "{text}");
            assert_eq!(lines(text.as_bytes()), lines(bytes), "{text}");
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
});

/// Sorts the lines, because a plan's keys may be in any order.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = text.split(|b| *b == b'\n').collect();
    lines.sort_unstable();
    lines
}
