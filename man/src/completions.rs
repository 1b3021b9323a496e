//! The shells' completions: those that clap generates, and this machine's entries, of which clap knows nothing.
//!
//! A few lines for each shell in man/completions get the entries from `nextkernel entries`. The commands that
//! take an entry, and the options that replace it, come from clap, too.

use std::io;

use clap::{Arg, Command, ValueHint};
use clap_complete::{Shell, generate};

/// Name of the argument that takes an entry.
const ENTRY: &str = "entry";

/// In zsh's completion, the end of an argument without a known type, and of an argument that is an entry.
const UNKNOWN: &str = ":_default' \\";
const KNOWN: &str = ":_nextkernel_entries' \\";

/// Returns the file name and the text of each completion.
pub fn all(tool: &Command) -> io::Result<[(&'static str, String); 3]> {
    let bash = filled(include_str!("../completions/nextkernel.bash"), tool, "|");
    let zsh = filled(include_str!("../completions/_nextkernel"), tool, "|");
    let fish = filled(include_str!("../completions/nextkernel.fish"), tool, " ");
    Ok([
        ("nextkernel.bash", claps(Shell::Bash, tool)? + &bash),
        ("_nextkernel", asking(&claps(Shell::Zsh, tool)?, &zsh, tool)?),
        ("nextkernel.fish", claps(Shell::Fish, tool)? + &fish),
    ])
}

fn claps(shell: Shell, tool: &Command) -> io::Result<String> {
    let mut made = Vec::new();
    generate(shell, &mut tool.clone(), "nextkernel", &mut made);
    String::from_utf8(made).map_err(io::Error::other)
}

/// Adds the functions before zsh's completion, because that calls itself at its end, and makes arguments that
/// are entries use them.
fn asking(made: &str, functions: &str, tool: &Command) -> io::Result<String> {
    let (first, rest) = made.split_once('\n').unwrap_or_default();
    let is_entry = |line: &&str| line.starts_with(&format!("'::{ENTRY} -- ")) && line.ends_with(UNKNOWN);
    let found = rest.lines().filter(is_entry).count();
    let entries = tool.get_subcommands().filter(|command| entry(command).is_some()).count();
    if found != entries {
        return Err(io::Error::other(format!("zsh's completion has {found} of {entries} entries")));
    }
    let lines = rest.lines().map(|line| match line.strip_suffix(UNKNOWN).filter(|_| is_entry(&line)) {
        Some(begin) => format!("{begin}{KNOWN}\n"),
        None => format!("{line}\n"),
    });
    Ok(format!("{first}\n{functions}{}", lines.collect::<String>()))
}

fn entry(command: &Command) -> Option<&Arg> {
    command.get_positionals().find(|argument| argument.get_id() == ENTRY)
}

/// Fills clap's data into a shell's lines.
fn filled(lines: &str, tool: &Command, or: &str) -> String {
    let is_directory = |argument: &Arg| argument.get_value_hint() == ValueHint::DirPath;
    let commands = |takes: &dyn Fn(&Command) -> bool| -> Vec<String> {
        tool.get_subcommands().filter(|it| takes(it)).map(|it| it.get_name().to_owned()).collect()
    };
    let takes_entry = commands(&|command| entry(command).is_some());
    let takes_directory = commands(&|command| command.get_positionals().any(is_directory));
    let valued = tool
        .get_subcommands()
        .flat_map(Command::get_opts)
        .filter(|option| option.get_action().takes_values() && !option.is_require_equals_set());
    let instead = tool.get_subcommands().filter_map(|command| Some((command, entry(command)?)));
    let instead = instead.flat_map(|(command, entry)| command.get_arg_conflicts_with(entry));
    lines
        .replace("@ENTRY@", &takes_entry.join(or))
        .replace("@FOLDER@", &takes_directory.join(or))
        .replace("@VALUED@", &options(valued, " "))
        .replace("@INSTEAD@", &options(instead, "|"))
}

/// Returns the options' names, each once.
fn options<'a>(options: impl Iterator<Item = &'a Arg>, or: &str) -> String {
    let mut names: Vec<_> = options.filter_map(Arg::get_long).map(|name| format!("--{name}")).collect();
    names.sort_unstable();
    names.dedup();
    names.join(or)
}
