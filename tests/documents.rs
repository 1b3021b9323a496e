//! Tests that everything named in the documents exists: files, headings, and crates that the oldest promised
//! compiler builds.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns every file of the tree, relative to its top, without build outputs and files of others.
fn files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(top().join(&directory)) else { continue };
        for entry in entries.flatten() {
            let path = format!("{directory}{}", entry.file_name().to_string_lossy());
            if ["target", ".git"].contains(&&*entry.file_name().to_string_lossy()) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(path + "/");
            } else {
                files.insert(path);
            }
        }
    }
    files
}

fn pages() -> Vec<String> {
    files().into_iter().filter(|path| has_extension(path, "md")).collect()
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// Returns a page without its code blocks, in which a '[' or a '#' has no meaning.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let kept = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Returns the targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page).replace('\n', " ");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|target| target.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

/// Returns the anchors of a page's headings, as forges make them: in lower case, without punctuation, with '-'
/// for a space.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page);
    let headings =
        headings.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = read(&top().join(&page));
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let there = top().join(&page);
            let there = if path.is_empty() { there } else { there.with_file_name("").join(path) };
            if !there.exists() || !(anchor.is_empty() || anchors(&read(&there)).contains(anchor)) {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// Returns the lines of docs/architecture.md that say where a change goes: a path, two spaces, and a
/// description.
fn table() -> Vec<(String, String)> {
    let page = read(&top().join("docs/architecture.md"));
    let table = page.split("## Where a change goes").nth(1).unwrap_or_default();
    let lines = table.lines().skip_while(|line| !line.starts_with("    "));
    let lines = lines.take_while(|line| line.starts_with("    "));
    let mut crate_directory = String::new();
    let split = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let (path, text) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        let path = path.split(' ').next().unwrap_or_default();
        (indent, path.to_owned(), text.to_owned())
    };
    lines
        .map(|line| {
            let (indent, path, text) = split(line);
            match indent {
                4 => {
                    crate_directory.clone_from(&path);
                    (path, text)
                }
                // This is the crate's own source, or the continuation of a sentence.
                _ if indent < 12 && path.contains('/') && !path.starts_with("tests/") => {
                    (format!("{crate_directory}{path}"), text)
                }
                _ => (String::new(), format!("{path} {text}")),
            }
        })
        .collect()
}

#[test]
fn the_picture_of_the_tree_names_what_is_there() {
    let files = files();
    let is_there = |path: &str| files.iter().any(|file| file == path || file.starts_with(path));
    let mut wrong = Vec::new();
    for (path, text) in table() {
        if !path.is_empty() && !is_there(&path) {
            wrong.push(format!("{path} is named and not there"));
        }
        let words = text.split([' ', ',', ':', ';', '(', ')', '\'']).map(|word| word.trim_end_matches('.'));
        for name in words.filter(|word| has_extension(word, "rs")) {
            if !files.iter().any(|file| *file == name || file.ends_with(&format!("/{name}"))) {
                wrong.push(format!("{name} is named and not there"));
            }
        }
    }
    let page = read(&top().join("docs/architecture.md"));
    let drawn = page.split("\n| ").next().unwrap_or_default();
    for path in drawn.split([' ', ',', ';', ':', '(', ')', '\n']).filter(|word| word.starts_with("src/")) {
        if !is_there(&format!("{path}/")) {
            wrong.push(format!("{path} is drawn and not there"));
        }
    }
    for file in &files {
        let mut parts = file.split('/');
        let directory = match (parts.next(), parts.next(), parts.next()) {
            (Some(of @ ("src" | "tests" | "initramfs" | "units")), Some(part), Some(_)) => {
                format!("{of}/{part}/")
            }
            (Some(part), Some(_), _) if !part.starts_with('.') => format!("{part}/"),
            _ => continue,
        };
        let of = directory.split('/').next().unwrap_or_default();
        let whole = ["initramfs", "units"].contains(&of) && page.contains(&format!("    {of}/ "));
        let named = page.contains(&directory) || page.contains(directory.trim_end_matches('/')) || whole;
        let told = format!("{directory} is there and not named");
        if !named && !wrong.contains(&told) {
            wrong.push(told);
        }
    }
    assert!(wrong.is_empty(), "docs/architecture.md:\n{}", wrong.join("\n"));
}

/// Returns a version's first two numbers.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[test]
fn no_crate_asks_for_a_newer_compiler_than_we_promise() {
    for workspace in ["Cargo.toml", "src/Cargo.toml"] {
        let manifest = top().join(workspace);
        let promised = read(&manifest);
        let promised =
            promised.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap_or_default();
        let promised = version(promised.trim_matches('"'));
        assert!(promised > (1, 0), "{workspace} promises no compiler");
        let cargo = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--locked",
                "--format-version",
                "1",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .arg("--manifest-path")
            .arg(&manifest)
            .output();
        let told = cargo.map(|output| output.stdout).unwrap_or_default();
        let metadata: Value = serde_json::from_slice(&told).unwrap_or_default();
        let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
        assert!(packages.len() > 3, "cargo metadata tells nothing of {workspace}");
        for package in packages {
            let of = |key| package.get(key).and_then(Value::as_str).unwrap_or_default();
            assert!(
                version(of("rust_version")) <= promised,
                "{} of {workspace} asks for Rust {}",
                of("name"),
                of("rust_version")
            );
        }
    }
}

#[test]
fn the_files_for_fleets_and_forges_are_yaml_and_say_what_the_page_says() {
    let yaml: Vec<_> = files()
        .into_iter()
        .filter(|path| path.starts_with("fleets/") || path.starts_with(".github/"))
        .filter(|path| has_extension(path, "yaml") || has_extension(path, "yml"))
        .collect();
    assert!(yaml.len() > 5, "{yaml:?}");
    let parse = "import sys, yaml\nfor name in sys.argv[1:]: assert yaml.safe_load(open(name)), name";
    let python = Command::new("/usr/bin/python3").args(["-c", parse]).args(&yaml).current_dir(top()).output();
    match python {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("not tested: whether {yaml:?} are YAML, for want of python3: {error}"),
    }
    let page = read(&top().join("docs/fleets.md"));
    for (file, before) in [
        ("fleets/kubernetes/kured.yaml", "--reboot-command="),
        ("fleets/ansible/roles/nextkernel/tasks/main.yml", "reboot_command: "),
    ] {
        let text = read(&top().join(file));
        let command = text.split(before).nth(1).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let run = page.lines().any(|line| {
            line.strip_suffix(" --dry-run").unwrap_or(line).ends_with(command) && line.starts_with(['/', 'u'])
        });
        assert!(!command.is_empty() && run, "{file}: {command:?} is not what docs/fleets.md runs");
    }
}
