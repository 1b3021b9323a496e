//! Converts clap's definition of the command line to markup.

use std::fmt::Write;

use clap::{Arg, Command};

/// Returns a line for each command.
pub fn synopsis(tool: &Command) -> String {
    let mut out = String::new();
    for command in tool.get_subcommands() {
        let _ = writeln!(out, "`nextkernel {}`{}\n", command.get_name(), usage(command));
    }
    let _ = writeln!(out, "`nextkernel help` [*COMMAND*]\n\n`nextkernel --version`");
    out
}

/// Returns all commands, each with its arguments and options.
pub fn commands(tool: &Command) -> String {
    let mut out = String::new();
    for command in tool.get_subcommands() {
        let _ = writeln!(out, "### nextkernel {}{}\n", command.get_name(), usage(command));
        out.push_str(&sentences(command.get_long_about().or(command.get_about())));
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            define(argument, &mut out);
        }
    }
    out
}

fn usage(command: &Command) -> String {
    let mut out = String::new();
    let arguments = || command.get_arguments().filter(|argument| !argument.is_hide_set());
    let optional: Vec<_> = arguments().filter(|it| !it.is_positional() && !it.is_required_set()).collect();
    match optional.as_slice() {
        [] => {}
        [one] => {
            let _ = write!(out, " [{}]", option(one));
        }
        _ => out.push_str(" [*OPTIONS*]"),
    }
    for required in arguments().filter(|it| !it.is_positional() && it.is_required_set()) {
        let _ = write!(out, " {}", option(required));
    }
    for positional in command.get_positionals() {
        let name = value(positional);
        let _ = if positional.is_required_set() { write!(out, " {name}") } else { write!(out, " [{name}]") };
    }
    out
}

/// Returns an option with its value, like `--kernel` *FILE*
fn option(argument: &Arg) -> String {
    let mut names = Vec::new();
    names.extend(argument.get_short().map(|short| format!("`-{short}`")));
    names.extend(argument.get_long().map(|long| format!("`--{long}`")));
    let name = names.join(", ");
    if !argument.get_action().takes_values() {
        return name;
    }
    let several =
        if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
    let value = value(argument);
    match argument.get_num_args() {
        Some(range) if range.min_values() == 0 => format!("{name}[`=`{value}]"),
        _ => format!("{name} {value}{several}"),
    }
}

fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().map(|name| format!("*{name}*")).collect::<Vec<_>>().join(" ")
}

fn define(argument: &Arg, out: &mut String) {
    let term = if argument.is_positional() { value(argument) } else { option(argument) };
    let mut text = sentences(argument.get_long_help().or(argument.get_help())).trim_end().to_owned();
    let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !default.is_empty() && argument.get_action().takes_values() {
        let _ = write!(text, "\nThe default is `{}`.", default.join(" "));
    }
    let _ = writeln!(out, "{term}\n:   {}\n", text.replace('\n', "\n    ").replace("\n    \n", "\n\n"));
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && values.iter().any(|value| value.get_help().is_some()) {
        for value in values.iter().filter(|value| !value.is_hide_set()) {
            let help = sentences(value.get_help());
            let _ = writeln!(out, "    `{}`: {}", value.get_name(), help.trim_end());
            out.push('\n');
        }
    }
}

/// Turns help texts, which by custom have no full stop at the end, into sentences.
fn sentences(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let mut out = String::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        let end = if paragraph.ends_with(['.', ':', '!']) { "" } else { "." };
        let _ = writeln!(out, "{paragraph}{end}\n");
    }
    out
}
