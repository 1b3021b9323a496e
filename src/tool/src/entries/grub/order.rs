//! The order in which `blscfg` puts the entries of loader/entries into the menu: the newest first, by the name,
//! version and release in the file's name, compared as RPM compares (rpm-version(7); Fedora's
//! grub-core/commands/blscfg.c).

use std::cmp::Ordering;

use crate::entries::version::{number, taken};

/// Compares two files' names, without their ending; the newer one is the greater.
#[must_use]
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    let each = a.iter().zip(b).map(|(a, b)| newer(a, b));
    each.fold(Ordering::Equal, Ordering::then)
}

/// Returns the name, version and release. With only one dash there is no name, and without dashes no release
/// either.
fn parts(name: &str) -> [&str; 3] {
    match name.rsplit_once('-') {
        None => ["", name, ""],
        Some((rest, release)) => match rest.rsplit_once('-') {
            None => ["", rest, release],
            Some((name, version)) => [name, version, release],
        },
    }
}

/// Compares as `rpmvercmp`: numbers by value and above words, words by their bytes, `~` before everything, even
/// the end.
fn newer(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        (a, b) = (skipped(a), skipped(b));
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) => {
                (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) | (Some(_), None) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), Some(_)) => {}
        }
        let is_number = a.first().is_some_and(u8::is_ascii_digit);
        let kind = if is_number { u8::is_ascii_digit } else { u8::is_ascii_alphabetic };
        let (x, y) = (taken(&mut a, kind), taken(&mut b, kind));
        // A number is newer than a word.
        if y.is_empty() {
            return if is_number { Ordering::Greater } else { Ordering::Less };
        }
        let order = if is_number {
            let (x, y) = (number(x), number(y));
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            x.cmp(y)
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn skipped(text: &[u8]) -> &[u8] {
    let means = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'~';
    text.iter().position(means).and_then(|at| text.get(at..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::entries::grub::order::*;

    #[test]
    fn the_newest_kernel_is_first_and_the_rescue_entry_last() {
        let id = "0f0e0d0c0b0a4444";
        let mut names = [
            format!("{id}-0-rescue"),
            format!("{id}-6.9.12-200.fc40.x86_64"),
            format!("{id}-6.11.4-301.fc41.x86_64"),
            format!("{id}-6.11.4-301.fc41.x86_64+debug"),
            format!("{id}-6.11.0~rc7-1.fc41.x86_64"),
            format!("{id}-6.11.0-63.fc41.x86_64"),
        ];
        names.sort_by(|a, b| compare(b, a));
        let rest: Vec<_> = names.iter().filter_map(|name| name.strip_prefix(id)).collect();
        assert_eq!(
            rest,
            [
                "-6.11.4-301.fc41.x86_64+debug",
                "-6.11.4-301.fc41.x86_64",
                "-6.11.0-63.fc41.x86_64",
                "-6.11.0~rc7-1.fc41.x86_64",
                "-6.9.12-200.fc40.x86_64",
                "-0-rescue",
            ]
        );
    }

    #[test]
    fn versions_are_compared_as_rpm_compares_them() {
        use Ordering::{Equal, Greater, Less};
        for (a, order, b) in [
            ("1.0", Equal, "1.0"),
            ("1.0", Less, "1.0.1"),
            ("10", Greater, "9"),
            ("010", Equal, "10"),
            ("a", Less, "1"),
            ("1a", Less, "1.1"),
            ("1.0~rc1", Less, "1.0"),
            ("1.0~rc1", Less, "1.0~rc2"),
            ("5.fc4", Greater, "5"),
            ("", Less, "0"),
            ("1_0", Equal, "1.0"),
        ] {
            assert_eq!(newer(a, b), order, "{a} {b}");
            assert_eq!(newer(b, a), order.reverse(), "{b} {a}");
        }
    }
}
