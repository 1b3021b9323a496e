//! Converts docs/nextkernel.conf to markup: its sections, paragraphs and keys.

use std::fmt::Write;

/// Text of the file that explains every key.
pub const FILE: &str = include_str!("../../docs/nextkernel.conf");

/// Returns all sections; the text before the first is about the file itself, and is left out.
pub fn explained(file: &str) -> String {
    let mut out = String::new();
    let file = file.find("# ---- ").and_then(|at| file.get(at..)).unwrap_or_default();
    for block in file.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty()) {
        let mut keys = Vec::new();
        let mut text = Vec::new();
        for line in block.lines() {
            match line.strip_prefix('#') {
                Some(comment) if comment.is_empty() || comment.starts_with(' ') => text.push(comment),
                key => keys.extend(key),
            }
        }
        if let Some(title) = section(&text) {
            let _ = writeln!(out, "### {title}\n");
            text.remove(0);
        }
        let text = paragraphs(&text);
        if keys.is_empty() {
            out.push_str(&text);
        } else {
            for key in &keys {
                let (key, value) = key.split_once('=').unwrap_or((key, ""));
                let _ = writeln!(out, "`{} = {}`", key.trim(), value.trim());
            }
            let _ = writeln!(
                out,
                ":   {}\n",
                text.trim_end().replace('\n', "\n    ").replace("\n    \n", "\n\n")
            );
        }
    }
    out
}

/// Returns the keys, each once.
#[cfg(test)]
pub fn names(file: &str) -> Vec<&str> {
    let lines = file.lines().filter_map(|line| line.strip_prefix('#'));
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with(' '));
    let mut names: Vec<_> = keys.filter_map(|line| Some(line.split_once('=')?.0.trim())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn section<'a>(text: &[&'a str]) -> Option<&'a str> {
    Some(text.first()?.strip_prefix(" ---- ")?.trim_end_matches('-').trim())
}

/// Returns paragraphs; lines indented by three more spaces are terms with their text.
fn paragraphs(lines: &[&str]) -> String {
    let mut out = String::new();
    for line in lines {
        let is_term = line.strip_prefix("   ").is_some_and(|line| !line.starts_with(' '));
        match line.trim().split_once("  ").filter(|_| is_term) {
            Some((term, text)) => {
                let _ = write!(out, "\n`{term}`\n:   {}\n", text.trim());
            }
            None if line.starts_with("    ") => {
                let _ = writeln!(out, "    {}", line.trim());
            }
            None => {
                let _ = writeln!(out, "{}", line.trim());
            }
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_paragraphs_and_keys_are_told_apart() {
        let file = "# Head.\n\n\n# ---- One ----\n#\n# Two.\n#\n#   a   b\n#       c\n#   d   e\n\n# Three\n# four.\n#k = 1\n#l = 2\n";
        assert_eq!(
            explained(file),
            "### One\n\n\nTwo.\n\n\n`a`\n:   b\n    c\n\n`d`\n:   e\n\n`k = 1`\n`l = 2`\n:   Three\n    four.\n\n"
        );
        assert_eq!(names(file), ["k", "l"]);
    }
}
