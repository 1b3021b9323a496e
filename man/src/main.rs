//! Writes the man pages and the shells' completions into a directory: `nextkernel-manuals DIRECTORY`.
//!
//! The prose is in man/*.md. Options come from clap, as in the help; keys from docs/nextkernel.conf; figures
//! from the constants in the code.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod checks;
mod completions;
mod keys;
mod options;
mod roff;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod sentences;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::{Command, CommandFactory};
use nextkernel_plan::{Armed, VERSION, limits};

/// Sources of the pages.
const PAGES: [&str; 4] = [
    include_str!("../nextkernel.8.md"),
    include_str!("../nextkernel-hook.8.md"),
    include_str!("../nextkernel.conf.5.md"),
    include_str!("../nextkernel-plan.5.md"),
];

fn main() -> ExitCode {
    let Some(directory) = env::args_os().nth(1) else {
        eprintln!("nextkernel-manuals: no folder is named; nextkernel-manuals FOLDER writes them there");
        return ExitCode::from(2);
    };
    match write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nextkernel-manuals: {}: {error}", Path::new(&directory).display());
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for source in PAGES {
        let (name, page) = page(source)
            .ok_or_else(|| io::Error::other("a page without a title: # NAME(SECTION): what it is"))?;
        fs::write(directory.join(name), page)?;
    }
    for (name, completions) in completions::all(&tool())? {
        fs::write(directory.join(name), completions)?;
    }
    Ok(())
}

/// Returns the command line's definition, with everything that clap adds to it.
fn tool() -> Command {
    nextkernel::cli::Command::command()
}

/// Returns a page's file name and text.
fn page(source: &str) -> Option<(String, String)> {
    let (title, body) = source.split_once('\n')?;
    let title = roff::Title::parse(title)?;
    let tool = tool();
    let mut markup = body.to_owned();
    for (mark, made) in [
        ("<!-- synopsis -->", &*options::synopsis(&tool)),
        ("<!-- commands -->", &options::commands(&tool)),
        ("<!-- keys -->", &keys::explained(keys::FILE)),
    ] {
        markup = markup.replace(mark, made);
    }
    for (name, value) in figures() {
        markup = markup.replace(&format!("@{name}@"), &value.to_string());
    }
    let page = roff::page(&title, env!("CARGO_PKG_VERSION"), &markup);
    Some((format!("{}.{}", title.name, title.section), page))
}

/// Returns the figures that a page may name: `@NAME@`.
fn figures() -> [(&'static str, u64); 15] {
    let size = |size: usize| size as u64;
    [
        ("VERSION", VERSION.into()),
        ("PLAN_MAX", size(limits::PLAN_MAX)),
        ("CMDLINE_MAX", size(limits::CMDLINE_MAX)),
        ("RECORD_MAX", size(limits::RECORD_MAX)),
        ("NAME_MAX", size(limits::NAME_MAX)),
        ("ENTRY_MAX", size(limits::ENTRY_MAX)),
        ("PATH_MAX", size(limits::PATH_MAX)),
        ("INITRDS_MAX", size(limits::INITRDS_MAX)),
        ("GPU_POLICIES_MAX", size(limits::GPU_POLICIES_MAX)),
        ("MODULES_MAX", size(limits::MODULES_MAX)),
        ("UNBIND_MAX", size(limits::UNBIND_MAX)),
        ("GUARD_MIN", limits::GUARD_MIN.into()),
        ("SEGMENTS_MAX", size(limits::SEGMENTS_MAX)),
        ("SEEDS_MAX", size(limits::SEEDS_MAX)),
        ("ARMED_SECONDS", Armed::SECONDS),
    ]
}
