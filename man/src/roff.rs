//! Converts the simple markup of the pages to man(7).
//!
//! Code in backticks is bold, and `*words*` that stand for something are italic, also within code. A paragraph
//! of terms followed by a text after `:   ` is a list of definitions; text indented by four spaces after it
//! belongs to it.

use std::fmt::Write;

/// A page's first line: `# NAME(SECTION): what it is`.
pub struct Title<'a> {
    /// Name of the page.
    pub name: &'a str,
    /// Section of the manual.
    pub section: &'a str,
    /// Description, in half a sentence.
    pub what: &'a str,
}

impl<'a> Title<'a> {
    /// Parses the line; returns `None` if it has another form.
    pub fn parse(line: &'a str) -> Option<Title<'a>> {
        let (name, rest) = line.strip_prefix("# ")?.split_once('(')?;
        let (section, what) = rest.split_once("): ")?;
        Some(Title { name, section, what })
    }
}

/// Returns the whole page: its title and its blocks.
pub fn page(title: &Title<'_>, version: &str, markup: &str) -> String {
    let Title { name, section, what } = title;
    let mut out = format!(
        ".TH \"{}\" \"{section}\" \"\" \"nextkernel {version}\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        plain(name),
        text(what)
    );
    blocks(markup, &mut out);
    out
}

/// Converts paragraphs, headings, lists and examples.
pub fn blocks(markup: &str, out: &mut String) {
    let mut lines = markup.lines().peekable();
    // Further paragraphs of a definition are indented like its first.
    let mut within_definition = false;
    while let Some(line) = lines.next() {
        let indented = line.strip_prefix("    ").filter(|_| within_definition);
        if line.is_empty() || line.starts_with("<!--") {
            continue;
        }
        if let Some(heading) = line.strip_prefix("## ") {
            say(out, ".SH", heading);
        } else if let Some(heading) = line.strip_prefix("### ") {
            say(out, ".SS", heading);
        } else if line.trim_start() == "```" {
            out.push_str(if indented.is_some() { ".IP\n" } else { paragraph_after(out) });
            out.push_str(".RS 4\n.EX\n");
            for line in lines.by_ref().take_while(|line| line.trim_start() != "```") {
                let line = if indented.is_some() { line.strip_prefix("    ").unwrap_or(line) } else { line };
                out.push_str(&guarded(&plain(line)));
                out.push('\n');
            }
            out.push_str(".EE\n.RE\n");
            continue;
        } else {
            let mut paragraph = vec![line];
            while let Some(next) = lines.next_if(|next| !next.is_empty()) {
                paragraph.push(next);
            }
            if indented.is_some() {
                out.push_str(".IP\n");
                body(&paragraph, out);
                continue;
            }
            let terms: Vec<_> = paragraph.iter().take_while(|line| !line.starts_with(":   ")).collect();
            if terms.len() < paragraph.len() {
                for (at, term) in terms.iter().enumerate() {
                    let _ =
                        writeln!(out, "{}\n{}", if at == 0 { ".TP" } else { ".TQ" }, guarded(&text(term)));
                }
                let definition: Vec<_> = paragraph
                    .iter()
                    .skip(terms.len())
                    .map(|line| line.trim_start_matches([':', ' ']))
                    .collect();
                body(&definition, out);
                within_definition = true;
                continue;
            }
            if line.starts_with("- ") {
                list(&paragraph, out);
            } else {
                out.push_str(paragraph_after(out));
                body(&paragraph, out);
            }
        }
        within_definition = false;
    }
}

/// Returns the request for a new paragraph, unless a heading has already begun one.
fn paragraph_after(out: &str) -> &'static str {
    let last = out.trim_end().rsplit('\n').next().unwrap_or_default();
    if last.starts_with(".S") { "" } else { ".PP\n" }
}

fn list(paragraph: &[&str], out: &mut String) {
    for line in paragraph {
        match line.strip_prefix("- ") {
            Some(item) => {
                let _ = writeln!(out, ".IP \\(bu 3\n{}", guarded(&text(item)));
            }
            None => body(&[line.trim_start()], out),
        }
    }
}

fn body(lines: &[&str], out: &mut String) {
    // Code may continue in the next line.
    for line in text(&lines.join("\n")).lines() {
        out.push_str(&guarded(line.trim_start()));
        out.push('\n');
    }
}

fn say(out: &mut String, macro_name: &str, heading: &str) {
    let _ = writeln!(out, "{macro_name} \"{}\"", text(heading).replace('"', "\\(dq"));
}

/// Returns a line that man(7) does not take for a request, whatever it begins with.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

/// Returns a literal text: without markup, and with every '-' as the character that can be typed.
pub fn plain(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti")
}

/// Converts the markup within a paragraph.
pub fn text(markup: &str) -> String {
    let mut out = String::new();
    // The delimiter that ends the open code; code that contains backticks is between double ones.
    let mut code = None;
    let mut rest = markup;
    while let Some(at) = rest.find(['`', '*']) {
        let (before, from) = rest.split_at(at);
        piece(before, code.is_some(), &mut out);
        let fence = if from.starts_with("``") { "``" } else { "`" };
        if code.is_none() && from.starts_with('`') {
            code = Some(fence);
            out.push_str("\\fB");
            rest = &from[fence.len()..];
        } else if let Some(after) = code.and_then(|fence| from.strip_prefix(fence)) {
            code = None;
            out.push_str("\\fR");
            rest = after;
        } else if let Some((word, after)) = italic(from) {
            let _ = write!(out, "\\fI{}{}", plain(word), if code.is_some() { "\\fB" } else { "\\fR" });
            rest = after;
        } else {
            out.push_str(if from.starts_with('`') { "\\(ga" } else { "*" });
            rest = &from[1..];
        }
    }
    piece(rest, code.is_some(), &mut out);
    out
}

/// Returns the words in `*words*` at the start of a text, and the text after them.
fn italic(text: &str) -> Option<(&str, &str)> {
    let (word, after) = text.strip_prefix('*')?.split_once('*')?;
    let is_word = word.starts_with(|c: char| !c.is_whitespace()) && !word.contains(['`', '\n']);
    is_word.then_some((word, after))
}

/// Converts a piece of text. In prose a '-' is a hyphen, except in options, which are bold everywhere.
fn piece(text: &str, code: bool, out: &mut String) {
    if code {
        out.push_str(&plain(text));
        return;
    }
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        let (before, from) = rest.split_at(at);
        out.push_str(&prose(before));
        let end = from.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(from.len());
        let (option, after) = from.split_at(end);
        let _ = write!(out, "\\fB{}\\fR", plain(option));
        rest = after;
    }
    out.push_str(&prose(rest));
}

fn prose(text: &str) -> String {
    text.replace('\\', "\\e").replace('^', "\\(ha").replace('~', "\\(ti")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_bold_what_stands_for_something_italic_and_an_option_can_be_typed() {
        assert_eq!(text("`unload *driver*`, *now*"), "\\fBunload \\fIdriver\\fB\\fR, \\fInow\\fR");
        assert_eq!(text("one-shot --on kexec"), "one-shot \\fB\\-\\-on\\fR kexec");
        assert_eq!(text("2 * 3"), "2 * 3");
        assert_eq!(text("``a `b` *c*``"), "\\fBa \\(gab\\(ga \\fIc\\fB\\fR");
        assert_eq!(text("`'a\\b'`"), "\\fB\\(aqa\\eb\\(aq\\fR");
    }

    #[test]
    fn every_block_has_its_request() {
        let mut out = String::new();
        blocks(
            "## FILES\n\nHere.\n\n`a`\n`b`\n:   One.\n    Two.\n\n    Three.\n\n- x\n- y\n\nEnd.\n\n```\n.x\n```\n",
            &mut out,
        );
        assert_eq!(
            out,
            ".SH \"FILES\"\nHere.\n.TP\n\\fBa\\fR\n.TQ\n\\fBb\\fR\nOne.\nTwo.\n.IP\nThree.\n.IP \\(bu 3\nx\n.IP \\(bu 3\ny\n\
             .PP\nEnd.\n.PP\n.RS 4\n.EX\n\\&.x\n.EE\n.RE\n"
        );
    }
}
