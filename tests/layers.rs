//! Tests that the files of a crate form layers: each uses its own layer and those below, no two files use each
//! other, and no command uses another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::Path;

/// The layers of the hook, the lowest first: directories and files of src/hook/src.
const HOOK: &[&[&str]] = &[
    &["sys/"],
    &["scene/"],
    &["bounds/"],
    &["caller.rs"],
    &["acts/"],
    &["decide.rs", "end.rs"],
    &["handoff.rs"],
    &["lib.rs", "main.rs", "start/"],
];

/// The layers of the tool, the lowest first: directories and files of src/tool/src.
const TOOL: &[&[&str]] = &[
    &["words/"],
    &["machine/"],
    &["image/"],
    &["request/"],
    &["entries/"],
    &["freeing/"],
    &["report/"],
    &["loading/"],
    &["staging/"],
    &["check/"],
    &["status/"],
    &["commands/"],
    &["cli.rs"],
    &["lib.rs", "main.rs"],
];

/// The layers of the test bed, the lowest first: directories and files of tests/bed.
const BED: &[&[&str]] = &[
    &["host/"],
    &["machine/"],
    &["snapshot.rs"],
    &["kernel/"],
    &["image/"],
    &["initramfs/"],
    &["disk/"],
    &["harness.rs"],
    &["guest/"],
    &["lib.rs"],
];

/// The directory of the tool's commands, of which none uses another: each has a file or a directory of its own
/// there. An act that two commands need belongs in a layer below.
const COMMANDS: &str = "commands/";

#[test]
fn the_hook_uses_only_what_lies_below_and_no_two_files_use_each_other() {
    let sources = sources("src/hook/src");
    assert_none("src/hook/src", &faults(&sources, "nextkernel_hook", HOOK));
}

#[test]
fn the_tool_uses_only_what_lies_below_and_no_two_files_use_each_other() {
    let sources = sources("src/tool/src");
    assert_none("src/tool/src", &faults(&sources, "nextkernel", TOOL));
}

#[test]
fn the_test_bed_uses_only_what_lies_below_and_no_two_files_use_each_other() {
    let sources = sources("tests/bed");
    assert_none("tests/bed", &faults(&sources, "bed", BED));
}

#[test]
fn no_command_uses_another() {
    let sources = sources("src/tool/src");
    assert!(sources.keys().any(|file| part_of(file, COMMANDS).is_some()), "{COMMANDS} has no files");
    assert_none("src/tool/src", &uses_across(&sources, "nextkernel", COMMANDS));
}

/// Fails with the faults of a crate, if there are any.
fn assert_none(directory: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{directory}:\n{}", faults.join("\n"));
}

/// Reads all sources of a crate, by their paths in its directory.
fn sources(directory: &str) -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    read_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory), "", &mut sources);
    sources
}

/// Reads all sources below a directory, by their paths in it.
fn read_below(folder: &Path, path: &str, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            read_below(&entry.path(), &format!("{path}{name}/"), sources);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            sources.insert(format!("{path}{name}"), fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
}

/// Returns a sentence for each use that points upward, each cycle, each file in no layer and each layer without
/// a file.
fn faults(sources: &BTreeMap<String, String>, name: &str, layers: &[&[&str]]) -> Vec<String> {
    let is_in = |file: &str, place: &str| file == place || (place.ends_with('/') && file.starts_with(place));
    let layer = |file: &str| layers.iter().position(|places| places.iter().any(|place| is_in(file, place)));
    let mut faults = Vec::new();
    for place in layers.iter().copied().flatten() {
        if !sources.keys().any(|file| is_in(file, place)) {
            faults.push(format!("{place} is a layer's, and there is no such file"));
        }
    }
    let files = Modules::of(sources);
    let arrows: BTreeMap<&str, BTreeSet<&str>> =
        sources.iter().map(|(file, text)| (file.as_str(), files.used_by(file, text, name))).collect();
    for (from, used) in &arrows {
        let Some(own) = layer(from) else {
            faults.push(format!("{from} is in no layer"));
            continue;
        };
        let above = used.iter().filter(|to| layer(to).is_some_and(|layer| layer > own));
        faults.extend(above.map(|to| format!("{from} uses {to}, which lies in a layer above it")));
    }
    let mut told = BTreeSet::new();
    for (from, used) in &arrows {
        for to in used {
            let Some(circle) = way(&arrows, to, from) else { continue };
            if told.insert(circle.iter().copied().collect::<BTreeSet<_>>()) {
                faults.push(format!("{from} uses {} in a circle", circle.join(", which uses ")));
            }
        }
    }
    faults
}

/// Returns a sentence for each file in a directory that uses a file of another part of that directory.
fn uses_across(sources: &BTreeMap<String, String>, name: &str, directory: &str) -> Vec<String> {
    let files = Modules::of(sources);
    let mut faults = Vec::new();
    for (from, text) in sources {
        let Some(own) = part_of(from, directory) else { continue };
        let others = files.used_by(from, text, name).into_iter();
        let others = others.filter(|to| part_of(to, directory).is_some_and(|part| part != own));
        faults.extend(others.map(|to| format!("{from} uses {to}, which belongs to another command")));
    }
    faults
}

/// Returns the part of a directory to which a file belongs: a file or a directory in it, by its module's name.
/// The directory's own mod.rs, which declares the parts, belongs to none.
fn part_of<'f>(file: &'f str, directory: &str) -> Option<&'f str> {
    let (part, _) = file.strip_prefix(directory)?.split_once(['/', '.'])?;
    Some(part).filter(|part| *part != "mod")
}

/// Returns the files on the shortest way along the uses, including the first and the last.
fn way<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut reached_from = BTreeMap::from([(from, None)]);
    let mut ends = VecDeque::from([from]);
    while let Some(end) = ends.pop_front() {
        if end == to {
            let steps = std::iter::successors(Some(end), |step| reached_from.get(step).copied().flatten());
            let mut way: Vec<_> = steps.collect();
            way.reverse();
            return Some(way);
        }
        for next in arrows.get(end).into_iter().flatten() {
            if !reached_from.contains_key(next) {
                reached_from.insert(next, Some(end));
                ends.push_back(next);
            }
        }
    }
    None
}

/// A path in Rust, from the root of the crate.
type Segments = Vec<String>;

/// The modules of a crate, and the file that holds each.
struct Modules<'s> {
    files: BTreeMap<Segments, &'s str>,
    /// The modules of main.rs if there is also a lib.rs: they belong to another crate.
    of_main: BTreeSet<String>,
}

impl<'s> Modules<'s> {
    fn of(sources: &'s BTreeMap<String, String>) -> Modules<'s> {
        let files = sources.keys().map(|file| (module_of(file), file.as_str()));
        let mut files: BTreeMap<_, _> = files.filter(|(module, _)| !module.is_empty()).collect();
        let mut of_main = BTreeSet::new();
        if let Some((root, _)) = sources.get_key_value("lib.rs").or(sources.get_key_value("main.rs")) {
            files.insert(Segments::new(), root);
        }
        if let Some(main) = sources.get("main.rs").filter(|_| sources.contains_key("lib.rs")) {
            let tokens = tokens(main);
            let declared = tokens.windows(3).filter_map(|three| match three {
                [first, name, end] if first == "mod" && end == ";" => Some(name.clone()),
                _ => None,
            });
            of_main.extend(declared);
        }
        Modules { files, of_main }
    }

    /// Returns the file that holds a path: that of the longest module with which it begins. In the files of
    /// main.rs, `crate` leads to main.rs itself or below it.
    fn file(&self, path: &[String], in_main: bool) -> Option<&'s str> {
        let lengths = (1..=path.len()).rev();
        let found = lengths.filter_map(|length| path.get(..length)).find_map(|path| self.files.get(path));
        match found {
            Some(file) => Some(file),
            None if in_main => Some("main.rs"),
            None => self.files.get(&Segments::new()).copied(),
        }
    }

    /// Returns the files that a file uses, except for itself.
    fn used_by(&self, file: &str, text: &str, name: &str) -> BTreeSet<&'s str> {
        let own = module_of(file);
        let in_main = file == "main.rs" || own.first().is_some_and(|first| self.of_main.contains(first));
        let tokens = without_tests(tokens(text));
        let mut scope = Scope { modules: self, own, name, names: BTreeMap::new() };
        let (imports, rest) = apart(&tokens);
        scope.declare(&rest);
        // The first pass collects names, because one `use` may begin with the import of another.
        scope.import_all(&imports);
        let mut paths = scope.import_all(&imports);
        paths.extend(scope.written(&rest));
        let used = paths.iter().filter_map(|path| {
            let of_library = path.first().is_some_and(|first| *first == name);
            let path = if of_library { path.get(1..).unwrap_or_default() } else { path };
            self.file(path, in_main && !of_library)
        });
        used.filter(|used| *used != file).collect()
    }
}

/// Returns the path of the module in a file.
fn module_of(file: &str) -> Segments {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Segments::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

/// The names in a file that lead to other files. Inline modules belong to their file. `super` in an inline
/// module is taken for the file's own; of our files only those with tests have such modules.
struct Scope<'m> {
    modules: &'m Modules<'m>,
    /// The file's own module.
    own: Segments,
    /// The name of the crate's library.
    name: &'m str,
    /// The modules that the file declares or imports, by their names there.
    names: BTreeMap<String, Segments>,
}

impl Scope<'_> {
    /// Collects the modules that the file declares. A declaration is not a use.
    fn declare(&mut self, tokens: &[&str]) {
        for three in tokens.windows(3) {
            if let ["mod", name, ";"] = three {
                let name = (*name).to_owned();
                let path = [&self.own[..], std::slice::from_ref(&name)].concat();
                self.names.insert(name, path);
            }
        }
    }

    /// Collects the imported modules, and returns the paths of all imports.
    fn import_all(&mut self, uses: &[Vec<&str>]) -> Vec<Segments> {
        let mut paths = Vec::new();
        for tree in uses {
            self.import(&[], tree, &mut paths);
        }
        paths
    }

    /// Collects one tree of a `use`, after the path before its braces.
    fn import(&mut self, before: &[String], tree: &[&str], paths: &mut Vec<Segments>) {
        let mut path = before.to_vec();
        let mut rest = tree.iter().copied();
        while let Some(token) = rest.next() {
            match token {
                "::" => {}
                "{" => {
                    let inner: Vec<&str> = rest.by_ref().collect();
                    for branch in branches(inner.get(..inner.len().saturating_sub(1)).unwrap_or_default()) {
                        self.import(&path, branch, paths);
                    }
                    return;
                }
                "*" => {
                    let Some(whole) = self.whole(&path) else { return };
                    for module in self.modules.files.keys() {
                        if let Some((name, parent)) =
                            module.split_last().filter(|(_, parent)| *parent == whole)
                        {
                            self.names.insert(name.clone(), [parent, std::slice::from_ref(name)].concat());
                        }
                    }
                    paths.push(whole);
                    return;
                }
                "as" => {
                    let alias = rest.next().unwrap_or_default();
                    self.bind(alias, &path, paths);
                    return;
                }
                "self" if !path.is_empty() => {}
                segment => path.push(segment.to_owned()),
            }
        }
        let name = path.last().cloned().unwrap_or_default();
        self.bind(&name, &path, paths);
    }

    fn bind(&mut self, name: &str, path: &[String], paths: &mut Vec<Segments>) {
        let Some(whole) = self.whole(path) else { return };
        let module = whole.strip_prefix(&[self.name.to_owned()]).unwrap_or(&whole[..]);
        if self.modules.files.contains_key(module) {
            self.names.insert(name.to_owned(), whole.clone());
        }
        paths.push(whole);
    }

    /// Returns every path written in the code: the words that follow `crate`, `super`, `self`, the crate's name,
    /// or a module's name.
    fn written(&self, tokens: &[&str]) -> Vec<Segments> {
        let mut paths = Vec::new();
        let mut path = Segments::new();
        let mut goes_on = false;
        for token in tokens {
            match *token {
                "::" => {
                    // No path begins after `<Type>::`.
                    if path.is_empty() {
                        path.push(String::new());
                    }
                    goes_on = true;
                    continue;
                }
                word if is_word(word) && goes_on => path.push(word.to_owned()),
                word if is_word(word) => {
                    paths.extend(self.whole(&path).filter(|_| path.len() > 1));
                    path = vec![word.to_owned()];
                }
                _ => {
                    paths.extend(self.whole(&path).filter(|_| path.len() > 1));
                    path.clear();
                }
            }
            goes_on = false;
        }
        paths.extend(self.whole(&path).filter(|_| path.len() > 1));
        paths
    }

    /// Returns a path from the root of the crate, if it leads into this crate. A path from main.rs into the
    /// library begins with the library's name.
    fn whole(&self, path: &[String]) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        let base = match first.as_str() {
            "crate" => Segments::new(),
            "self" => self.own.clone(),
            "super" => {
                let supers = path.iter().take_while(|segment| *segment == "super").count();
                let base = self.own.get(..self.own.len().saturating_sub(supers))?;
                return Some([base, path.get(supers..)?].concat());
            }
            name if name == self.name => vec![first.clone()],
            name => self.names.get(name)?.clone(),
        };
        Some([&base[..], rest].concat())
    }
}

/// Separates the trees of all `use` items from the other tokens.
fn apart(tokens: &[String]) -> (Vec<Vec<&str>>, Vec<&str>) {
    let (mut uses, mut others) = (Vec::new(), Vec::new());
    let mut rest = tokens.iter().map(String::as_str).peekable();
    while let Some(token) = rest.next() {
        // `use<'a>` is a bound.
        if token == "use" && rest.peek() != Some(&"<") {
            uses.push(rest.by_ref().take_while(|token| *token != ";").collect());
        } else {
            others.push(token);
        }
    }
    (uses, others)
}

/// Splits the content of braces at its own commas.
fn branches<'t, 's>(tokens: &'t [&'s str]) -> Vec<&'t [&'s str]> {
    let mut depth = 0;
    let split = tokens.split(|token| {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        *token == "," && depth == 0
    });
    split.filter(|branch| !branch.is_empty()).collect()
}

fn is_word(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Leaves out each item after `#[cfg(test)]`: tests may use any file.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut rest = tokens.into_iter();
    while let Some(token) = rest.next() {
        kept.push(token);
        if kept.ends_with(&MARK.map(str::to_owned)) {
            kept.truncate(kept.len() - MARK.len());
            let mut depth = 0;
            for token in rest.by_ref() {
                depth += i32::from(token == "{") - i32::from(token == "}");
                if depth == 0 && (token == "}" || token == ";") {
                    break;
                }
            }
        }
    }
    kept
}

/// Splits a source into words, `::` and single characters. Leaves out comments, strings, characters and
/// lifetimes.
fn tokens(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' || ["b\"", "c\"", "b'"].iter().any(|begin| rest.starts_with(begin)) {
            quoted(rest)
        } else if first == '\'' {
            // A character has its second quote right after it; a lifetime has none.
            let is_character = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
            if is_character { quoted(rest) } else { 1 + word(rest.get(1..).unwrap_or_default()) }
        } else if is_word(rest) || first.is_numeric() {
            let length = word(rest).max(first.len_utf8());
            found.push(rest.get(..length).unwrap_or_default().to_owned());
            length
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else {
            found.extend(Some(first.to_string()).filter(|_| !first.is_whitespace()));
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    found
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Returns the length of `r"…"` or `r#"…"#`, also for byte strings and C strings.
fn raw_string(text: &str) -> Option<usize> {
    let begin = ["r", "br", "cr"].into_iter().find(|begin| {
        text.strip_prefix(begin).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = text.get(begin.len()..)?;
    let marks = rest.len() - rest.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(marks));
    let inner = begin.len() + marks + 1;
    Some(text.get(inner..)?.find(&end).map_or(text.len(), |at| inner + at + end.len()))
}

/// Returns the length of a string or a character in quotes, including the prefix before its first quote.
fn quoted(text: &str) -> usize {
    let mut characters = text.char_indices().skip_while(|(_, c)| *c != '"' && *c != '\'');
    let Some((_, quote)) = characters.next() else { return text.len() };
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// Judges a crate of these files, with the layers low/, high.rs and lib.rs.
fn judge(files: &[(&str, &str)]) -> Vec<String> {
    let files = [
        &[("lib.rs", "pub mod high; pub mod low;"), ("main.rs", ""), ("low/mod.rs", "pub mod a; pub mod b;")],
        files,
    ];
    let sources = files.concat().into_iter().map(|(file, text)| (file.to_owned(), text.to_owned())).collect();
    faults(&sources, "it", &[&["low/"], &["high.rs"], &["lib.rs", "main.rs"]])
}

#[test]
fn an_arrow_that_runs_up_is_named_however_it_is_written() {
    for up in [
        "use crate::high::Thing;",
        "use crate::{low::b, high::{self, Thing}};",
        "use super::super::high as other;",
        "fn f() -> crate::high::Thing { crate::high::thing() }",
        "use crate as root; fn f() { root::high::f() }",
        "use super::super::*; fn f() { high::f() }",
        "macro_rules! m { () => { $crate::high::f() }; }",
        "fn f(c: char) -> bool { c == '\"' || crate::high::f(r#\"\"\"#) }",
    ] {
        let faults = judge(&[("low/a.rs", up), ("low/b.rs", ""), ("high.rs", "use crate::low::a;")]);
        let named = "low/a.rs uses high.rs, which lies in a layer above it";
        assert!(faults.iter().any(|fault| fault == named), "{up}: {faults:?}");
    }
}

#[test]
fn a_circle_is_named_with_its_files_and_once() {
    let circle = [("low/a.rs", "use super::b;"), ("low/b.rs", "use crate::low::a::A;"), ("high.rs", "")];
    assert_eq!(judge(&circle), ["low/a.rs uses low/b.rs, which uses low/a.rs in a circle"]);
    let folder = [("low/a.rs", "use super::Type;"), ("low/b.rs", ""), ("high.rs", "")];
    assert_eq!(judge(&folder), [""; 0]);
    let user =
        [("low/mod.rs", "pub mod a; fn f() { a::f() }"), ("low/a.rs", "use super::Type;"), ("high.rs", "")];
    assert_eq!(judge(&user), ["low/a.rs uses low/mod.rs, which uses low/a.rs in a circle"]);
}

#[test]
fn tests_comments_and_strings_are_no_arrows_and_down_is_no_fault() {
    let low = "// use crate::high;\n/* /* */ use crate::high; */ const A: &str = \"crate::high::A\";\n\
               #[cfg(test)]\nmod tests { use crate::high::B; mod c {} }\nuse super::b::B;";
    let main = ("main.rs", "use it::high; fn main() { high::f() }");
    let high = ("high.rs", "use crate::low::{a, b::B}; fn f<'a>(a: &'a str) { a::f(a) }");
    assert_eq!(judge(&[("low/a.rs", low), ("low/b.rs", ""), high, main]), [""; 0]);
}

#[test]
fn a_file_in_no_layer_and_a_layer_without_a_file_are_named() {
    let faults = judge(&[("other.rs", "")]);
    assert_eq!(faults, ["high.rs is a layer's, and there is no such file", "other.rs is in no layer"]);
}

#[test]
fn a_command_that_uses_another_is_named_with_it_and_its_own_directory_is_free() {
    let files = [
        ("lib.rs", "pub mod commands; pub mod low;"),
        ("low.rs", ""),
        ("commands/mod.rs", "pub mod big; pub mod one; pub mod two;"),
        ("commands/one.rs", "use crate::low; use super::two::act;"),
        ("commands/two.rs", "#[cfg(test)]\nmod tests { use crate::commands::one; }"),
        ("commands/big/mod.rs", "mod inner; use inner::f;"),
        ("commands/big/inner.rs", "fn f() { crate::commands::one::f() }"),
    ];
    let sources = files.map(|(file, text)| (file.to_owned(), text.to_owned())).into();
    assert_eq!(
        uses_across(&sources, "it", "commands/"),
        [
            "commands/big/inner.rs uses commands/one.rs, which belongs to another command",
            "commands/one.rs uses commands/two.rs, which belongs to another command"
        ]
    );
}
