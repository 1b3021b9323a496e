//! The order of versions by the UAPI Version Format Specification ("Version Comparison"), by which the Boot
//! Loader Specification sorts. `systemd-analyze compare-versions` gives the same answers.

use std::cmp::Ordering;

/// Separators, in the order in which they are looked for. A version that has one where the other has something
/// else is older.
const SEPARATORS: [u8; 3] = [b'-', b'^', b'.'];

/// Compares two versions; the newer one is the greater.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        (a, b) = (skipped(a), skipped(b));
        // A pre-release is older than the version it precedes, and even older than the end of the text.
        if let Some(order) = separated(&mut a, &mut b, b'~') {
            return order;
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        for separator in SEPARATORS {
            if let Some(order) = separated(&mut a, &mut b, separator) {
                return order;
            }
        }
        let is_number = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
        let order = if is_number(a) || is_number(b) {
            let (x, y) =
                (number(taken(&mut a, u8::is_ascii_digit)), number(taken(&mut b, u8::is_ascii_digit)));
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            taken(&mut a, u8::is_ascii_alphabetic).cmp(taken(&mut b, u8::is_ascii_alphabetic))
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Skips characters without a meaning.
fn skipped(text: &[u8]) -> &[u8] {
    let means = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'~' || SEPARATORS.contains(byte);
    text.iter().position(means).and_then(|at| text.get(at..)).unwrap_or_default()
}

/// Decides if only one of the two begins with the separator. If both do, moves on behind it.
fn separated(a: &mut &[u8], b: &mut &[u8], separator: u8) -> Option<Ordering> {
    let behind = |rest: &[u8]| rest.first() == Some(&separator);
    match (behind(a), behind(b)) {
        (false, false) => None,
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (true, true) => {
            (*a, *b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            None
        }
    }
}

/// Takes the characters of one kind from the front of a text.
pub(super) fn taken<'a>(text: &mut &'a [u8], kind: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|byte| !kind(byte)).unwrap_or(text.len());
    let (front, behind) = text.split_at_checked(end).unwrap_or((text, &[]));
    *text = behind;
    front
}

/// Strips the leading zeros, so that of two numbers of any length the longer one is greater.
pub(super) fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own order, which `systemd-analyze compare-versions` confirms.
    const ASCENDING: [&str; 12] = [
        "122.1",
        "123~rc1-1",
        "123",
        "123-a",
        "123-a.1",
        "123-1",
        "123-1.1",
        "123^post1",
        "123.a-1",
        "123.1-1",
        "123a-1",
        "124-1",
    ];

    #[test]
    fn versions_are_in_the_specifications_order() {
        for (at, a) in ASCENDING.iter().enumerate() {
            for (other, b) in ASCENDING.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }

    #[test]
    fn the_specifications_examples_hold() {
        use Ordering::{Equal, Greater, Less};
        for (a, order, b) in [
            ("11", Equal, "11"),
            ("systemd-123", Equal, "systemd-123"),
            ("bar-123", Less, "foo-123"),
            ("123a", Greater, "123"),
            ("123.a", Greater, "123"),
            ("123.a", Less, "123.b"),
            ("123a", Greater, "123.a"),
            ("11α", Equal, "11β"),
            ("B", Less, "a"),
            ("", Less, "0"),
            ("0.", Greater, "0"),
            ("0.0", Greater, "0"),
            ("0", Greater, "~"),
            ("", Greater, "~"),
            ("1_", Equal, "1"),
            ("_1", Equal, "1"),
            ("1_", Less, "1.2"),
            ("1_2_3", Greater, "1.3.3"),
            ("1+", Equal, "1"),
            ("1+2+3", Greater, "1.3.3"),
            ("6.12.9", Less, "6.12.57"),
            ("6.1.0-9-amd64", Less, "6.1.0-44-amd64"),
            ("99999999999999999999998", Less, "99999999999999999999999"),
            ("007", Equal, "7"),
        ] {
            assert_eq!((compare(a, b), compare(b, a)), (order, order.reverse()), "{a:?} {b:?}");
        }
    }
}
