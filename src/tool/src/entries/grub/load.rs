//! The meaning of words in commands: variables are expanded, file systems searched, kernels named.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::entries::grub::menu::{Device, File, Linux, SIZE_MAX, ScriptError, Wrong};
use crate::entries::grub::script::{self, Part, Statement, Word};
use crate::entries::grub::state::{
    Argument, HOLDS, LABEL, Loaded, PREFIX, SPACE, Scope, State, UUID, Variable,
};
use crate::words::quoted::shown;

/// Limit for the commands that a script runs and the words that it makes: far beyond any menu, and a second's
/// work.
pub const FUEL: usize = 1_000_000;

/// Takes from the fuel that a script may use. Fails if too little is left.
pub fn burn(fuel: &mut usize, scope: &Scope, line: usize, amount: usize) -> Result<(), Wrong> {
    *fuel = fuel.checked_sub(amount).ok_or_else(|| scope.wrong(line, ScriptError::TooMuch))?;
    Ok(())
}

/// Expands the variables in words. Also returns whether the number of words is uncertain.
pub fn expand(
    line: usize,
    words: &[Word],
    state: &State,
    scope: &Scope,
    fuel: &mut usize,
) -> Result<(Vec<Argument>, bool), Wrong> {
    let (mut arguments, mut unsure) = (Vec::new(), false);
    for word in words {
        let mut argument: Option<Argument> = None;
        for part in word {
            let (value, splits) = match part {
                Part::Bare(text) | Part::Quoted(text) => (Ok(text.clone()), false),
                Part::Variable(name) => (state.get(name, line, scope), true),
                Part::QuotedVariable(name) => (state.get(name, line, scope), false),
            };
            burn(fuel, scope, line, 1 + value.as_ref().map_or(0, |value| value.len() / 32))?;
            match (&value, splits) {
                (Err(_), true) => {
                    unsure = true;
                    join(&mut argument, value);
                }
                (Ok(value), true) => {
                    // Splits as `grub_script_argv_split_append` does: an empty value adds no word.
                    let mut pieces = value.split_ascii_whitespace();
                    if value.starts_with(|c: char| c.is_ascii_whitespace()) && argument.is_some() {
                        arguments.extend(argument.take());
                    }
                    if let Some(piece) = pieces.next() {
                        join(&mut argument, Ok(piece.to_owned()));
                    }
                    for piece in pieces {
                        arguments.extend(argument.take());
                        argument = Some(Ok(piece.to_owned()));
                    }
                }
                (_, false) => join(&mut argument, value),
            }
        }
        if let Some(Ok(text)) = &argument {
            burn(fuel, scope, line, text.len() / 32)?;
        }
        arguments.extend(argument);
    }
    Ok((arguments, unsure))
}

fn join(argument: &mut Option<Argument>, more: Argument) {
    match (argument.as_mut(), more) {
        (Some(Ok(text)), Ok(more)) => text.push_str(&more),
        (Some(Err(_)), Ok(_)) => {}
        (_, more) => *argument = Some(more),
    }
}

/// Runs `search` (GRUB manual, "search"). Assumes that the file system is found, because the running system is
/// on it.
pub fn search(
    line: usize,
    name: &str,
    arguments: &[Argument],
    state: &mut State,
    scope: &Scope,
) -> Result<(), Wrong> {
    let wrong = || scope.wrong(line, ScriptError::Arguments("search"));
    let mut by = match name {
        "search.fs_uuid" => Some(UUID),
        "search.fs_label" => Some(LABEL),
        "search.file" => Some(HOLDS),
        _ => None,
    };
    let whole = by.is_some();
    let (mut variable, mut words) = (None, Vec::new());
    let mut arguments = arguments.iter().peekable();
    while let Some(argument) = arguments.next() {
        let argument = argument.as_ref().map_err(Wrong::clone)?;
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (argument.as_str(), None),
        };
        let mut next = || {
            let next = arguments.next_if(|next| next.as_ref().is_ok_and(|next| !next.starts_with('-')));
            next.and_then(|next| next.as_deref().ok())
        };
        match option {
            "--fs-uuid" | "-u" => by = Some(UUID),
            "--label" | "--fs-label" | "-l" => by = Some(LABEL),
            "--file" | "-f" => by = Some(HOLDS),
            "--set" | "-s" => variable = Some(value.or_else(&mut next).unwrap_or("root").to_owned()),
            "--no-floppy" | "-n" | "--efidisk-only" | "--cryptodisk-only" | "--root-dev-only" => {}
            hint if hint.starts_with("--hint") || hint == "-h" => {
                if value.is_none() {
                    next();
                }
            }
            option if option.starts_with('-') => return Err(wrong()),
            _ => words.push(argument.clone()),
        }
    }
    let mut words = words.into_iter();
    let (what, variable) = match (words.next(), variable) {
        // `search.fs_uuid UUID VARIABLE HINTS`
        (Some(what), _) if whole => (what, words.next().unwrap_or_else(|| "root".to_owned())),
        (Some(what), Some(variable)) => (what, variable),
        // `--set UUID`: if there is no other word, this one is not the variable's name.
        (None, Some(what)) => (what, "root".to_owned()),
        // Without a variable, `search` only prints its result.
        (Some(_), None) => return Ok(()),
        (None, None) => return Err(wrong()),
    };
    let by = by.ok_or_else(wrong)?;
    state.set(&variable, Ok(format!("{by}{}", what.replace(' ', SPACE))), None);
    Ok(())
}

/// Runs a command that sets a variable to a value that only GRUB knows: `--set NAME`, `--set=NAME`, and `match`
/// of `hwmatch`.
pub fn set_by_grub(line: usize, name: &str, arguments: &[Argument], state: &mut State, scope: &Scope) {
    let words: Vec<_> = arguments.iter().filter_map(|argument| argument.as_deref().ok()).collect();
    let after = words.iter().zip(words.iter().skip(1)).filter(|(option, _)| is_set(option));
    let mut names: Vec<_> = after.map(|(_, name)| *name).collect();
    names.extend(words.iter().filter_map(|word| word.strip_prefix("--set=")));
    names.extend(match name {
        "hwmatch" => vec!["match"],
        "read" => words.clone(),
        _ => Vec::new(),
    });
    for name in names {
        // `regexp --set NUMBER:NAME`
        let name = name.rsplit(':').next().unwrap_or(name);
        state.set(name, Err(scope.wrong(line, ScriptError::Variable(name.to_owned()))), None);
    }
}

fn is_set(option: &str) -> bool {
    matches!(option, "--set" | "-s")
}

pub fn linux(line: usize, arguments: &[Argument], state: &State, scope: &Scope) -> Result<Linux, Wrong> {
    let (kernel, options) =
        arguments.split_first().ok_or_else(|| scope.wrong(line, ScriptError::Arguments("linux")))?;
    let kernel = file(line, kernel, state, scope)?;
    let options = options.iter().cloned().collect::<Result<Vec<_>, _>>()?;
    let options = cmdline(&options).map_err(|why| scope.wrong(line, why))?;
    // openSUSE's GRUB accepts "y", "yes" and "1".
    let relative = state.get("btrfs_relative_path", line, scope)?;
    let in_default_subvolume = relative.starts_with(['y', '1']);
    Ok(Linux { kernel, initrds: Vec::new(), options, devicetree: None, in_default_subvolume })
}

/// Returns a path, on the device in parentheses before it or on `root`.
pub fn file(line: usize, argument: &Argument, state: &State, scope: &Scope) -> Result<File, Wrong> {
    let argument = argument.as_ref().map_err(Wrong::clone)?;
    let named = argument.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (device, path) = match named {
        Some((device, path)) => (device.to_owned(), path),
        None => (state.get("root", line, scope)?, argument.as_str()),
    };
    if !path.starts_with('/') || path.contains(char::is_control) {
        let path = argument.replace(PREFIX, "$prefix");
        return Err(scope.wrong(line, ScriptError::NotPath(shown(&path))));
    }
    Ok(File { device: Device::parse(&device), path: path.to_owned() })
}

/// Joins words as GRUB writes them for the kernel (`grub_create_loader_cmdline`, grub-core/lib/cmdline.c).
fn cmdline(words: &[String]) -> Result<String, ScriptError> {
    let mut line = String::new();
    for word in words {
        if word.contains(char::is_control) {
            return Err(ScriptError::NotText);
        }
        // Some versions double the backslash of "\x2d", others pass it on as it is.
        let mut after = word.split("\\x").skip(1).map(|rest| rest.chars().take(2));
        if after.any(|two| two.filter(char::is_ascii_hexdigit).count() == 2) {
            return Err(ScriptError::Hexadecimal(shown(word)));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let quote = if word.contains(' ') { "\"" } else { "" };
        line.push_str(quote);
        for c in word.chars() {
            if matches!(c, '\\' | '\'' | '"') {
                line.push('\\');
            }
            line.push(c);
        }
        line.push_str(quote);
    }
    Ok(line)
}

/// Returns the `options` of an entry of loader/entries. `blscfg` expands the variables in them, and makes a
/// script's line of the result.
pub fn bls_options(
    options: &str,
    variables: &BTreeMap<String, Argument>,
    (file, line): (&'static str, usize),
) -> Result<String, Wrong> {
    let wrong = |why| Wrong { file, line, why };
    let text = format!("linux /vmlinuz {}", bls_value(options, variables, &wrong(ScriptError::TooMuch))?);
    let script = script::parse(&text).map_err(|(_, why)| wrong(why))?;
    let [Statement { kind: script::Kind::Command { words, block: None }, .. }] = script.as_slice() else {
        return Err(wrong(ScriptError::Unexpected(format!("what {} makes", shown(options)))));
    };
    let known = variables
        .iter()
        .map(|(name, value)| (name.clone(), Variable { value: value.clone(), from: None, exported: false }));
    let state = State { variables: known.collect(), loaded: Loaded::Nothing };
    let scope = Scope { file, arguments: Rc::default(), maybe: None, in_entry: true };
    let mut fuel = FUEL;
    let (arguments, _) = expand(line, words, &state, &scope, &mut fuel)?;
    let words = arguments.into_iter().skip(2).collect::<Result<Vec<_>, _>>()?;
    cmdline(&words).map_err(wrong)
}

/// Expands variables as `expand_val` of grub-core/commands/blscfg.c, with its quirks: a space follows every
/// variable, and a single character at the beginning before a variable, or at the end, is lost.
fn bls_value(text: &str, variables: &BTreeMap<String, Argument>, too_much: &Wrong) -> Result<String, Wrong> {
    let mut out = String::new();
    let mut append = |is_variable: bool, start: usize, last: usize| -> Result<(), Wrong> {
        let field = text.as_bytes().get(start..=last).unwrap_or_default();
        let field = String::from_utf8_lossy(field);
        if !is_variable {
            out.push_str(&field);
        } else if let Some(value) = variables.get(field.as_ref()) {
            out.push_str(value.as_ref().map_err(Wrong::clone)?);
            out.push(' ');
        }
        if out.len() > SIZE_MAX { Err(too_much.clone()) } else { Ok(()) }
    };
    let (mut start, mut last, mut is_variable) = (0, 0, false);
    let mut before = text.bytes().next();
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'$' && before != Some(b'\\') {
            if start != last {
                append(is_variable, start, last)?;
            }
            (is_variable, start) = (true, at + 1);
        } else if is_variable && !byte.is_ascii_alphanumeric() && byte != b'_' {
            append(true, start, last)?;
            is_variable = false;
            start = at + usize::from(byte == b' ');
        }
        (last, before) = (at, Some(byte));
    }
    if start != last {
        append(is_variable, start, last)?;
    }
    Ok(out)
}
