//! Tests that everything that exists is in a manual, and that everything in a manual exists: options, keys,
//! verbs, exit statuses, fields and the lines of the kernel log.
//!
//! The compared parts of the pages are between `<!-- check: NAME -->` and `<!-- end -->`: the terms of the lists
//! there.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use nextkernel_plan::Verb;
use syn::visit::Visit;

use crate::sentences::{self, Literal};
use crate::{PAGES, keys, tool};

/// The code of a term, and the level given after it.
struct Term {
    code: String,
    level: Option<String>,
}

/// Returns the terms of a checked part, which must be in exactly one page.
fn terms(name: &str) -> Vec<Term> {
    let begin = format!("<!-- check: {name} -->");
    let parts: Vec<_> = PAGES.iter().filter_map(|page| page.split_once(&begin)).collect();
    assert_eq!(parts.len(), 1, "{begin} stands in one page");
    let part = parts.first().and_then(|(_, behind)| behind.split_once("<!-- end -->")).unwrap().0;
    let mut terms = Vec::new();
    for paragraph in part.split("\n\n").filter(|paragraph| paragraph.contains("\n:   ")) {
        for line in paragraph.trim_matches('\n').lines().take_while(|line| !line.starts_with(":   ")) {
            let level = line.rsplit_once(" (").and_then(|(_, level)| level.strip_suffix(')'));
            terms.extend(codes(line).into_iter().map(|code| Term { code, level: level.map(str::to_owned) }));
        }
    }
    terms
}

/// Returns the texts between backticks.
fn codes(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        let from = &rest[at..];
        let fence = if from.starts_with("``") { "``" } else { "`" };
        let Some((code, after)) = from[fence.len()..].split_once(fence) else { break };
        found.push(code.to_owned());
        rest = after;
    }
    found
}

fn names(terms: &[Term]) -> BTreeSet<String> {
    terms.iter().map(|term| term.code.split(" =").next().unwrap_or_default().to_owned()).collect()
}

fn source(path: &str) -> syn::File {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns a method of a source.
fn method(path: &str, name: &str) -> syn::ImplItemFn {
    let impls = source(path).items.into_iter().filter_map(|item| match item {
        syn::Item::Impl(item) => Some(item.items),
        _ => None,
    });
    let mut methods = impls.flatten().filter_map(|item| match item {
        syn::ImplItem::Fn(method) => Some(method),
        _ => None,
    });
    methods.find(|method| method.sig.ident == name).unwrap()
}

/// Compares the names in both directions.
fn compare(documented: &BTreeSet<String>, existing: &BTreeSet<String>, page: &str) {
    let missing: Vec<_> = existing.difference(documented).collect();
    let extra: Vec<_> = documented.difference(existing).collect();
    assert!(missing.is_empty(), "not in {page}: {missing:#?}");
    assert!(extra.is_empty(), "in {page}, and nowhere else: {extra:#?}");
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns a log line with `{}` for each placeholder, and the texts that may replace one, `*[…]*`.
fn patterns(code: &str) -> Vec<String> {
    let (mut pattern, mut found) = (String::new(), Vec::new());
    for (at, part) in code.split('*').enumerate() {
        if at % 2 == 0 {
            pattern.push_str(part);
        } else {
            pattern.push_str("{}");
            found.extend(part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).map(str::to_owned));
        }
    }
    found.push(pattern);
    found
}

/// Returns the strings that, joined, form this pattern; `None` if it cannot be formed from them.
fn made_of<'a>(pattern: &str, strings: &'a [&'a str]) -> Option<Vec<&'a str>> {
    if pattern.is_empty() {
        return Some(Vec::new());
    }
    strings.iter().find_map(|string| {
        let rest = pattern.strip_prefix(*string).or_else(|| (string.trim_end() == pattern).then_some(""))?;
        let mut all = made_of(rest, strings)?;
        all.push(*string);
        Some(all)
    })
}

#[test]
fn every_line_of_the_log_is_explained_and_no_other() {
    let mut literals = sentences::literals_below("src/hook/src");
    literals.extend(sentences::literals_below("src/plan/src/plan.rs"));
    // families.rs explains the treatment of each GPU driver; `nextkernel check` prints that while the system
    // runs.
    let sentences: Vec<&Literal> =
        literals.iter().filter(|it| it.is_sentence() && !it.at.starts_with("families.rs")).collect();
    let mut whole: Vec<&str> = literals.iter().map(|literal| literal.text.as_str()).collect();
    whole.sort_unstable();
    let mut parts: Vec<&str> = sentences.iter().map(|literal| literal.text.as_str()).collect();
    parts.extend(["{}", " {}"]);
    // The longest come first, so that a part of a string is not taken for the whole.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));

    let mut explained: BTreeSet<(&str, Option<String>)> = BTreeSet::new();
    let mut unknown = Vec::new();
    let terms = terms("log");
    for term in &terms {
        for pattern in patterns(&term.code) {
            let is = |text: &&&str| text.trim_end() == pattern.trim_end();
            let found = match whole.iter().find(is) {
                Some(text) => Some(vec![*text]),
                None => made_of(&pattern, &parts),
            };
            match found {
                Some(found) => explained.extend(found.into_iter().map(|text| (text, term.level.clone()))),
                None => unknown.push(term.code.clone()),
            }
        }
    }
    assert!(unknown.is_empty(), "man/nextkernel-hook.8.md explains what nothing says: {unknown:#?}");
    let missing: Vec<String> = sentences
        .iter()
        .filter(|literal| {
            let level = literal.level.map(|level| if level == "warn" { "warning" } else { level }.to_owned());
            !explained.iter().any(|(text, its)| *text == literal.text && (level.is_none() || *its == level))
        })
        .map(|literal| format!("{} {}: {}", literal.at, literal.level.unwrap_or(""), literal.text))
        .collect();
    assert!(
        missing.is_empty(),
        "THE LOG in man/nextkernel-hook.8.md lacks these, or their level; a placeholder is *a word* there: {missing:#?}"
    );
}

#[test]
fn every_key_of_the_plan_is_explained_and_no_other() {
    let keys = source("src/plan/src/plan.rs").items.into_iter().find_map(|item| match item {
        syn::Item::Const(item) if item.ident == "KEYS" => {
            Some(strings(|reader| reader.visit_item_const(&item)))
        }
        _ => None,
    });
    let mut terms = terms("plan-keys");
    terms.retain(|term| term.code.contains(" ="));
    compare(&names(&terms), &keys.unwrap(), "man/nextkernel-plan.5.md");
}

#[test]
fn every_key_of_the_configuration_is_explained_and_no_other() {
    struct Arms(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Arms {
        fn visit_arm(&mut self, arm: &'ast syn::Arm) {
            self.0.extend(strings(|reader| reader.visit_pat(&arm.pat)));
        }
    }
    let mut arms = Arms(BTreeSet::new());
    arms.visit_impl_item_fn(&method("src/tool/src/request/conf.rs", "set"));
    let documented = keys::names(keys::FILE).into_iter().filter(|key| !key.starts_with("gpu."));
    compare(&documented.map(str::to_owned).collect(), &arms.0, "docs/nextkernel.conf");
}

#[test]
fn every_verb_and_option_of_the_hook_is_explained_and_no_other() {
    struct Options(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Options {
        fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}
        fn visit_lit_byte_str(&mut self, literal: &'ast syn::LitByteStr) {
            let word = String::from_utf8(literal.value()).unwrap();
            self.0.extend(Some(word).filter(|word| word.len() > 1 && word.starts_with('-')));
        }
    }
    let verbs = Verb::ALL.map(Verb::word);
    compare(&names(&terms("verbs")), &words(&verbs), "man/nextkernel-hook.8.md");

    let mut options = Options(BTreeSet::new());
    options.visit_file(&source("src/hook/src/sys/arguments.rs"));
    compare(&names(&terms("hook-options")), &options.0, "man/nextkernel-hook.8.md");
}

#[test]
fn every_exit_status_is_explained_and_no_other() {
    struct Numbers(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Numbers {
        fn visit_lit_int(&mut self, number: &'ast syn::LitInt) {
            self.0.insert(number.to_string());
        }
    }
    let mut hooks = Numbers(BTreeSet::new());
    hooks.visit_impl_item_fn(&method("src/hook/src/end.rs", "status"));
    compare(&names(&terms("hook-status")), &hooks.0, "man/nextkernel-hook.8.md");

    // Success and failure are from main; 2 is clap's.
    let main = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../src/tool/src/main.rs")).unwrap();
    assert!(!main.contains("ExitCode::from"), "main.rs has an exit status that no manual knows");
    let wrong = tool().try_get_matches_from(["nextkernel", "--no-such-option"]).unwrap_err();
    assert_eq!(wrong.exit_code(), 2);
    compare(&names(&terms("tool-status")), &words(&["0", "1", "2"]), "man/nextkernel.8.md");
}

#[test]
fn every_field_of_the_json_is_explained_and_no_other() {
    struct Fields(BTreeSet<String>);
    impl<'ast> Visit<'ast> for Fields {
        fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
            let says = |attribute: &syn::Attribute, name: &str, word: &str| {
                attribute.path().is_ident(name)
                    && attribute
                        .meta
                        .require_list()
                        .is_ok_and(|list| list.tokens.to_string().split(',').any(|part| part.trim() == word))
            };
            if !item.attrs.iter().any(|attribute| says(attribute, "derive", "Serialize")) {
                return;
            }
            for field in &item.fields {
                let hidden = ["skip", "flatten"]
                    .iter()
                    .any(|word| field.attrs.iter().any(|attribute| says(attribute, "serde", word)));
                self.0.extend(field.ident.as_ref().filter(|_| !hidden).map(ToString::to_string));
            }
        }
    }
    let mut fields = Fields(BTreeSet::new());
    for file in [
        "status/facts",
        "freeing/gpus",
        "commands/check",
        "check/finding",
        "commands/entries",
        "report/json",
        "report/boot",
    ] {
        fields.visit_file(&source(&format!("src/tool/src/{file}.rs")));
    }
    // Names within the text, of objects in a list, count as well as terms.
    let begin = "<!-- check: json -->";
    let part =
        PAGES.iter().find_map(|page| page.split_once(begin)).unwrap().1.split_once("<!-- end -->").unwrap().0;
    let all: BTreeSet<String> = codes(part).into_iter().collect();
    let missing: Vec<_> = fields.0.difference(&all).collect();
    assert!(missing.is_empty(), "not in man/nextkernel.8.md, OUTPUT AS JSON: {missing:#?}");
    let terms: BTreeSet<_> = names(&terms("json"));
    let extra: Vec<_> = terms.difference(&fields.0).collect();
    assert!(extra.is_empty(), "in man/nextkernel.8.md, and no field: {extra:#?}");
}

#[test]
fn no_page_names_an_option_or_a_command_that_does_not_exist() {
    let tool = tool();
    let mut options = words(&["--dry-run", "--help", "--version"]);
    for command in tool.get_subcommands() {
        options.extend(command.get_arguments().filter_map(|it| Some(format!("--{}", it.get_long()?))));
    }
    // These are options of other programs.
    options.extend(words(&[
        "--bootnext",
        "--delete-bootnext",
        "--firmware-setup",
        "--list",
        "--reboot-argument",
    ]));
    let mut commands: BTreeSet<String> = tool.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    commands.extend(words(&["help", "--version", "ENTRY"]));
    for page in PAGES.iter().copied().chain([keys::FILE]) {
        for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            let is_option = word.starts_with("--") && word.len() > 2 && !word.ends_with('-');
            assert!(!is_option || options.contains(word), "{word} is no option");
        }
        for code in page
            .match_indices("`nextkernel ")
            .filter_map(|(at, _)| page[at + 12..].split(['`', ' ', '\n']).next())
        {
            assert!(commands.contains(code), "nextkernel {code} is no command");
        }
    }
}

#[test]
fn every_option_says_what_it_does() {
    let tool = nextkernel::cli::Command::command();
    for command in tool.get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

#[test]
fn no_mark_is_left_in_a_page() {
    for source in PAGES {
        let (name, page) = crate::page(source).unwrap();
        assert!(!page.contains("<!--"), "{name}");
        let is_name =
            |word: &str| word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        let name_left = page.split('@').find(|word| is_name(word));
        assert_eq!(name_left, None, "{name}: no such figure (main.rs)");
    }
}

/// Returns the strings in a part of a source.
fn strings(read: impl FnOnce(&mut Strings)) -> BTreeSet<String> {
    let mut found = Strings(BTreeSet::new());
    read(&mut found);
    found.0
}

struct Strings(BTreeSet<String>);

impl<'ast> Visit<'ast> for Strings {
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.0.insert(literal.value());
    }
}

/// Writes the pages and completions, and returns their temporary directory.
fn written(name: &str) -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("nextkernel-{name}-{}", std::process::id()));
    crate::write(&directory).unwrap();
    directory
}

/// Reports a skipped test on standard error, past the test's own output, which cargo shows only for failures.
fn not_tested(why: &str) {
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {why}");
}

/// Returns a program's verdict and output; reports it and returns `None` if the program is not installed.
fn judged(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        not_tested(&format!("{program} is not installed"));
        return None;
    };
    let says = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&says).into_owned()))
}

#[test]
fn mandoc_has_nothing_against_a_page() {
    let directory = written("pages");
    for page in ["nextkernel.8", "nextkernel-hook.8", "nextkernel.conf.5", "nextkernel-plan.5"] {
        let path = directory.join(page);
        if let Some((_, says)) = judged("mandoc", &["-Tlint", "-Wwarning", path.to_str().unwrap()]) {
            // Pages have no date, so that a build gives the same result at any time.
            let says: Vec<_> = says.lines().filter(|line| !line.contains("missing date")).collect();
            assert!(says.is_empty(), "{page}: {says:#?}");
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

/// A stand-in that lists entries, or fails if the file `fails` exists; it records other arguments like
/// `<stage><arch.conf>`.
const STAND_IN: &str = r#"#!/bin/sh
[ "$*" = "entries --names" ] || { printf '<%s>' "$@" >>told; echo >>told; exit; }
[ ! -e fails ] || { echo "nextkernel: it failed" >&2; exit 1; }
printf '%s\t%s\n' arch.conf 'Arch: "Linux"' bed.efi@two 'Bed, 2' '1>0' Debian
"#;

/// Directory with the completions and the stand-in for the program.
struct Shells {
    directory: std::path::PathBuf,
}

impl Shells {
    fn new() -> Self {
        let directory = written("completions");
        let program = directory.join("nextkernel");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.join("bzImage"), "").unwrap();
        // An entry may have the name of an existing file.
        fs::create_dir(directory.join("arch.conf")).unwrap();
        Shells { directory }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", self.directory.display(), std::env::var("PATH").unwrap());
        command
            .current_dir(&self.directory)
            .env("PATH", path)
            .env("TERM", "dumb")
            .env("HOME", &self.directory);
        command
    }

    /// Returns the arguments that the program gets after these keys; `None` if the shell or script(1) is not
    /// installed.
    fn told(&self, shell: &str, keys: &str) -> Option<String> {
        let (interactive, setup) = match shell {
            "bash" => ("bash --norc --noprofile -i", "source ./nextkernel.bash"),
            _ => ("zsh -f -i", "fpath=($PWD $fpath); autoload -Uz compinit; compinit -D -u"),
        };
        // Unfinished completion may leave a quote open, and the shell waits for its end; hence the timeout.
        let mut terminal = self.command("timeout");
        terminal
            .args(["120", "script", "-qec", interactive, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let is_there = |program| self.command(program).arg("--version").output().is_ok();
        let (true, true, Ok(terminal)) = (is_there(shell), is_there("script"), terminal.spawn()) else {
            not_tested(&format!("{shell} and script are not installed"));
            return None;
        };
        let typed = format!("{setup}\n{keys}exit\n");
        terminal.stdin.as_ref().unwrap().write_all(typed.as_bytes()).unwrap();
        let shown = terminal.wait_with_output().unwrap();
        assert_ne!(shown.status.code(), Some(124), "{shell} has not come to its end in two minutes");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(!shown.contains("it failed"), "{shown}");
        let told = self.directory.join("told");
        let says = fs::read_to_string(&told).unwrap_or(shown);
        let _ = fs::remove_file(told);
        Some(says)
    }
}

#[test]
fn the_shells_take_their_completions_and_complete_entries_files_and_words() {
    let shells = Shells::new();
    let fish = |line: &str| {
        let script = format!("source ./nextkernel.fish; complete -C '{line}'");
        let Ok(output) = shells.command("fish").args(["--no-config", "-c", &script]).output() else {
            not_tested("fish is not installed");
            return None;
        };
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (shell, file) in [("bash", "nextkernel.bash"), ("zsh", "_nextkernel"), ("fish", "nextkernel.fish")] {
        let path = shells.directory.join(file);
        if let Some((takes, says)) = judged(shell, &["-n", path.to_str().unwrap()]) {
            assert!(takes, "{shell}: {says}");
        }
    }
    let pressed = [
        ("stage ar\t", "<stage><arch.conf>"),
        ("reboot --dry-run be\t", "<reboot><--dry-run><bed.efi@two>"),
        ("entries bed.efi@\t", "<entries><bed.efi@two>"),
        // The entry's `>` must be quoted for the shell.
        ("stage 1\t", "<stage><1>0>"),
        ("unstage '1\t", "<unstage><1>0>"),
        ("stage bz\t", "<stage><bz>"),
        ("stage --kernel bz\t", "<stage><--kernel><bzImage>"),
        ("stage --kernel bzImage --initrd a bz\t", "<stage><--kernel><bzImage><--initrd><a><bzImage>"),
        ("stage --loader dir\t", "<stage><--loader><direct>"),
        ("statu\t", "<status>"),
    ];
    let keys: Vec<_> = pressed.iter().map(|(keys, _)| format!("nextkernel {keys}\n")).collect();
    let expected: Vec<_> = pressed.iter().map(|(_, told)| *told).collect();
    for shell in ["bash", "zsh"] {
        if let Some(told) = shells.told(shell, &keys.concat()) {
            assert_eq!(told.lines().collect::<Vec<_>>(), expected, "{shell}");
        }
    }
    for (line, offered) in [
        ("nextkernel stage ", "arch.conf\tArch: \"Linux\"\nbed.efi@two\tBed, 2\n1>0\tDebian\n"),
        ("nextkernel reboot --dry-run be", "bed.efi@two\tBed, 2\n"),
        ("nextkernel stage --kernel bz", "bzImage\n"),
        ("nextkernel stage --kernel bzImage --initrd a bz", "bzImage\n"),
    ] {
        assert_eq!(fish(line).unwrap_or_else(|| offered.to_owned()), offered, "{line}");
    }
    // If the entries cannot be listed, nothing is completed, not even a file, and no error is shown.
    fs::write(shells.directory.join("fails"), "").unwrap();
    for shell in ["bash", "zsh"] {
        let nothing = "<stage><bz>\n";
        assert_eq!(shells.told(shell, "nextkernel stage bz\t\t\n").as_deref().unwrap_or(nothing), nothing);
    }
    assert_eq!(fish("nextkernel stage ").unwrap_or_default(), "");
    fs::remove_dir_all(shells.directory).unwrap();
}

#[test]
fn what_the_shells_ask_is_what_the_program_answers() {
    assert!(tool().try_get_matches_from(["nextkernel", "entries", "--names"]).is_ok());
}
