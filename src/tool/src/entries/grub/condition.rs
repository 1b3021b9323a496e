//! `[ ... ]` as GRUB judges it (grub-core/commands/test.c), if some words and files are unknown.

/// Limit for the depth of nested parentheses.
const DEPTH_MAX: usize = 16;

/// Returns whether the condition holds; `None` if that is unknown. `exists` says whether a file exists, if it
/// can.
pub fn holds(words: &[Option<String>], exists: &dyn Fn(&str) -> Option<bool>) -> Option<bool> {
    let words = match words {
        [inner @ .., Some(last)] if last == "]" => inner,
        _ => words,
    };
    Test { words, at: 0, exists }.judge(0)
}

struct Test<'a> {
    words: &'a [Option<String>],
    at: usize,
    exists: &'a dyn Fn(&str) -> Option<bool>,
}

impl Test<'_> {
    fn judge(&mut self, depth: usize) -> Option<bool> {
        let (mut all, mut any, mut inverted) = (Some(true), Some(false), false);
        loop {
            let words = self.words;
            let word = |on: usize| words.get(self.at + on).map(Option::as_deref);
            let Some(first) = word(0) else { break };
            let value = match (first, word(1), word(2)) {
                (left, Some(Some(operator)), Some(right)) if is_binary(operator) => {
                    let value = compared(left, operator, right);
                    self.at += 3;
                    value
                }
                (Some("-n"), Some(operand), _) => {
                    self.at += 2;
                    operand.map(|text| !text.is_empty())
                }
                (Some("-z"), Some(operand), _) => {
                    self.at += 2;
                    operand.map(str::is_empty)
                }
                (Some("-d" | "-e" | "-f" | "-s"), Some(operand), _) => {
                    self.at += 2;
                    operand.and_then(self.exists)
                }
                (Some(")"), ..) => {
                    self.at += 1;
                    break;
                }
                (Some("("), ..) if depth == DEPTH_MAX => {
                    self.at = self.words.len();
                    return None;
                }
                (Some("("), ..) => {
                    self.at += 1;
                    self.judge(depth + 1)
                }
                (Some("!"), ..) => {
                    self.at += 1;
                    inverted = !inverted;
                    continue;
                }
                (Some("-a"), ..) => {
                    self.at += 1;
                    continue;
                }
                (Some("-o"), ..) => {
                    self.at += 1;
                    any = or(any, all);
                    all = Some(true);
                    continue;
                }
                (Some(text), ..) => {
                    self.at += 1;
                    Some(!text.is_empty())
                }
                // The word may be an operator, too.
                (None, ..) => return None,
            };
            all = and(all, if inverted { value.map(|value| !value) } else { value });
            inverted = false;
        }
        or(any, all)
    }
}

fn and(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn is_binary(operator: &str) -> bool {
    let plain =
        ["=", "==", "!=", "<", "<=", ">", ">=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-pgt", "-plt"];
    plain.contains(&operator) || operator.starts_with("-nt") || operator.starts_with("-ot")
}

fn compared(left: Option<&str>, operator: &str, right: Option<&str>) -> Option<bool> {
    let (left, right) = (left?, right?);
    // A stand-in for a value that only GRUB knows.
    if left.contains('\u{1}') || right.contains('\u{1}') {
        return None;
    }
    let numbers = || Some((left.parse::<i64>().ok()?, right.parse::<i64>().ok()?));
    Some(match operator {
        "=" | "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "-eq" => numbers().map(|(left, right)| left == right)?,
        "-ne" => numbers().map(|(left, right)| left != right)?,
        "-lt" => numbers().map(|(left, right)| left < right)?,
        "-le" => numbers().map(|(left, right)| left <= right)?,
        "-gt" => numbers().map(|(left, right)| left > right)?,
        "-ge" => numbers().map(|(left, right)| left >= right)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::entries::grub::condition::*;

    /// Judges a test in which a '?' is an unknown word.
    fn judged(test: &str) -> Option<bool> {
        let word = |word: &str| match word {
            "?" => None,
            "''" => Some(String::new()),
            word => Some(word.to_owned()),
        };
        let words: Vec<_> = test.split(' ').map(word).collect();
        holds(&words, &|path| (path != "/unknown").then_some(path == "/there"))
    }

    #[test]
    fn what_is_known_is_judged_as_grub_does() {
        for (test, value) in [
            ("a ]", Some(true)),
            ("'' ]", Some(false)),
            ("]", Some(true)),
            ("a = a ]", Some(true)),
            ("a != a ]", Some(false)),
            ("-n '' ]", Some(false)),
            ("-z '' -a -f /gone ]", Some(false)),
            ("-s /there ]", Some(true)),
            ("! a -o b ]", Some(true)),
            ("( a = b ) -o ! ( a = c ) ]", Some(true)),
            ("a -a '' -o '' ]", Some(false)),
            ("1 -lt 10 ]", Some(true)),
            ("! insmod bli ]", Some(false)),
        ] {
            assert_eq!(judged(test), value, "{test}");
        }
    }

    #[test]
    fn what_is_not_known_makes_nothing_true_or_false_that_hangs_on_it() {
        for (test, value) in [
            ("? ]", None),
            ("? = a ]", None),
            ("-n ? ]", None),
            ("-e /unknown ]", None),
            ("! -e /unknown ]", None),
            ("'' -a ? = x ]", Some(false)),
            ("? = x -o a ]", Some(true)),
            ("? = x -a a ]", None),
            ("\u{1}here = a ]", None),
            ("a -nt b ]", None),
            ("x -lt 1 ]", None),
        ] {
            assert_eq!(judged(test), value, "{test}");
        }
        assert_eq!(judged(&"( ".repeat(40)), None);
    }
}
