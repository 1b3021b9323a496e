//! Quotes foreign text for an error message.

/// Returns at most `most` characters of the text in quotes. Control characters are escaped, so that none can
/// steer a terminal.
#[must_use]
pub fn quoted(text: &str, most: usize) -> String {
    let shown = text.chars().take(most).flat_map(char::escape_debug).collect::<String>();
    let cut = if text.chars().nth(most).is_some() { "..." } else { "" };
    format!("'{shown}{cut}'")
}

/// Limit in characters for text of a file that an error shows.
const SHOWN_MAX: usize = 60;

/// Returns a text of a file as an error shows it: in quotes, and not longer than a line has room for.
#[must_use]
pub fn shown(text: &str) -> String {
    quoted(text, SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_plain() {
        assert_eq!(quoted("root=x", 6), "'root=x'");
        assert_eq!(quoted("root=xy", 6), "'root=x...'");
        assert_eq!(quoted("a\u{1b}[2J", 40), "'a\\u{1b}[2J'");
    }
}
