//! The completions of the shells: what clap makes, and this machine's entries, of which it knows nothing.
//!
//! Those are asked of `nextkernel entries`, by a few lines of each shell in man/completions. Which commands take one, and
//! which options are given instead, comes from clap, too.

use std::io;

use clap::{Arg, Command, ValueHint};
use clap_complete::{Shell, generate};

/// The argument that names one.
const ENTRY: &str = "entry";

/// How an argument ends of which nothing is known, and how one that is an entry does, in zsh.
const UNKNOWN: &str = ":_default' \\";
const KNOWN: &str = ":_nextkernel_entries' \\";

/// Each, and the name of its file.
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

/// zsh's: it calls itself at its end, so that functions stand before; and says of each argument what completes it.
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

/// A shell's lines, with what clap knows in them.
fn filled(lines: &str, tool: &Command, or: &str) -> String {
    let is_folder = |argument: &Arg| argument.get_value_hint() == ValueHint::DirPath;
    let commands = |takes: &dyn Fn(&Command) -> bool| -> Vec<String> {
        tool.get_subcommands().filter(|it| takes(it)).map(|it| it.get_name().to_owned()).collect()
    };
    let takes_entry = commands(&|command| entry(command).is_some());
    let takes_folder = commands(&|command| command.get_positionals().any(is_folder));
    let valued = tool
        .get_subcommands()
        .flat_map(Command::get_opts)
        .filter(|option| option.get_action().takes_values() && !option.is_require_equals_set());
    let instead = tool.get_subcommands().filter_map(|command| Some((command, entry(command)?)));
    let instead = instead.flat_map(|(command, entry)| command.get_arg_conflicts_with(entry));
    lines
        .replace("@ENTRY@", &takes_entry.join(or))
        .replace("@FOLDER@", &takes_folder.join(or))
        .replace("@VALUED@", &options(valued, " "))
        .replace("@INSTEAD@", &options(instead, "|"))
}

/// Their names, each once.
fn options<'a>(options: impl Iterator<Item = &'a Arg>, or: &str) -> String {
    let mut names: Vec<_> = options.filter_map(Arg::get_long).map(|name| format!("--{name}")).collect();
    names.sort_unstable();
    names.dedup();
    names.join(or)
}
