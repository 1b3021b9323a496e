//! The stage command: stages, and prints the status.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use nextkernel_plan::Watchdog;
use thiserror::Error;

use crate::machine::elsewhere::{Elsewhere, see_that_this_is_the_system};
use crate::machine::root::Root;
use crate::machine::superuser::{NotRoot, see_that_this_is_root};
use crate::request::choices::{OnVerb, PreloadChoice, SyscallChoice};
use crate::request::conf;
use crate::request::stage::{LineFrom, StageRequest, Target};
use crate::staging::directory::DIRECTORY;
use crate::staging::stage;
use crate::status::stage::stage_and_print;

/// Stage the next kernel
///
/// Without ENTRY and --kernel it is what the boot loader would boot if the machine restarted now, with the
/// entry's own initrds and command line: `nextkernel entries` shows it. Where no boot loader is known it is the
/// system profile of NixOS, or the kernel that the distribution means: where /vmlinuz or /boot/vmlinuz links to, or
/// the only /boot/vmlinuz-VERSION, with the initrd of the same version. Where two answers are possible it is
/// refused. Kernel and initrd are copied to /run/nextkernel and loaded, so that the kernel says now what it has
/// against them. What /etc/nextkernel.conf says is taken over: after a change there, stage again.
#[derive(Args, Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Arguments {
    /// A boot entry, as `nextkernel entries` calls it, or the version of an installed kernel, as in
    /// /boot/vmlinuz-VERSION
    #[arg(conflicts_with_all = ["kernel", "initrd"])]
    pub entry: Option<String>,
    /// The kernel, as a file; of a unified kernel image its first profile, with its initrds and command line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kernel: Option<PathBuf>,
    /// An initrd, as a file; several are joined in the order given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "kernel", num_args = 1..)]
    pub initrd: Vec<PathBuf>,
    /// Add a file or a folder to the initrd, as /PATH or as NAME there, with its mode and owner; NAME/ is a
    /// folder for it. Refused where /run could be written to swap that is not encrypted
    #[arg(long, value_name = "PATH[:NAME]", value_hint = ValueHint::AnyPath)]
    pub extra: Vec<OsString>,
    /// The next kernel's command line
    #[arg(long, value_name = "TEXT", conflicts_with = "reuse_cmdline", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Use the running kernel's command line, without what the boot loader added (the default for a
    /// kernel that no boot entry describes; needed with --kernel)
    #[arg(long)]
    pub reuse_cmdline: bool,
    /// Leave a parameter out of the command line before anything is appended: all of that name, or with
    /// NAME=VALUE those with this value
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub remove: Vec<String>,
    /// Append to the command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Vec<String>,
    /// Let the next kernel restart SECONDS after a panic, instead of standing still; it replaces any panic=
    /// on the command line
    #[arg(long, value_name = "SECONDS", value_parser = panic_seconds)]
    pub panic: Option<u16>,
    /// Stop the hardware watchdog before the jump, or arm it for SECONDS; `nextkernel check` tells how far
    /// it then covers the next kernel
    #[arg(long, value_name = "off|SECONDS", value_parser = watchdog)]
    pub watchdog: Option<Watchdog>,
    /// What starts the staged kernel; give it twice for both. Where it is preloaded, reboot includes kexec
    /// [default: kexec]
    #[arg(long, value_name = "VERB")]
    pub on: Vec<OnVerb>,
    /// Load the image now, so that nobody waits for it later and `systemctl kexec` accepts. With `no` it is loaded at
    /// the end of shutdown, and the report tells each part of that; `only` keeps no copies in /run, and starts nothing
    /// where somebody has unloaded the image [default: yes]
    #[arg(long, value_name = "WHETHER")]
    pub preload: Option<PreloadChoice>,
    /// Which of the kernel's two calls loads it: `kexec_file_load`, which checks, or `kexec_load`, by segments that
    /// are made now, which is faster. Direct is refused where a signature, lockdown or IMA asks for the other
    /// [default: auto]
    #[arg(long, value_name = "WHICH")]
    pub loader: Option<SyscallChoice>,
    /// Unpack kernel and initrd now, so that the next kernel need not; they take two to four times their size in
    /// memory. On x86 it takes the direct loader
    #[arg(long, value_name = "yes|no", num_args = 0..=1, require_equals = true, default_missing_value = "yes",
        value_parser = yes_or_no)]
    pub thaw: Option<bool>,
    /// Do not load the image now: nothing is found out before the night (implies --preload no)
    #[arg(long)]
    pub no_rehearse: bool,
    /// Let an update put another kernel in its place, where the boot loader would then boot that
    #[arg(long, conflicts_with_all = ["entry", "kernel"])]
    pub follow: bool,
}

/// A reason why nothing was staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// `/` is not the running system.
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    /// Staging failed.
    #[error(transparent)]
    Stage(#[from] stage::Error),
}

impl From<Arguments> for StageRequest {
    fn from(given: Arguments) -> StageRequest {
        let target = match (given.kernel, given.entry) {
            (Some(kernel), _) => Target::Files { kernel, initrds: given.initrd },
            (None, Some(entry)) => Target::Entry(entry),
            (None, None) => Target::Default,
        };
        let line = match given.cmdline {
            Some(line) => LineFrom::Given(line),
            None if given.reuse_cmdline => LineFrom::Running,
            None => LineFrom::Entry,
        };
        StageRequest {
            target,
            extra: given.extra,
            line,
            remove: given.remove,
            append: given.append,
            panic: given.panic,
            watchdog: given.watchdog,
            on: given.on,
            preload: given.preload,
            syscall: given.loader,
            decompress: given.thaw,
            skips_test_load: given.no_rehearse,
            follow: given.follow,
            by_update: false,
        }
    }
}

fn panic_seconds(word: &str) -> Result<u16, &'static str> {
    conf::panic_seconds(word).ok_or("a number of seconds from 1 to 65535 is needed")
}

fn yes_or_no(word: &str) -> Result<bool, &'static str> {
    conf::yes_or_no(word).ok_or("`yes` or `no` is needed")
}

fn watchdog(word: &str) -> Result<Watchdog, &'static str> {
    Watchdog::from_word(word).ok_or("`off` or a number of seconds from 1 to 65535 is needed")
}

/// Stages, and prints the status.
pub fn run(root: &Root, request: &StageRequest) -> Result<(), Error> {
    see_that_this_is_root(DIRECTORY)?;
    see_that_this_is_the_system(root)?;
    stage_and_print(root, request)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_request_is_the_same_after_it_was_stored() {
        let all = "stage --kernel k --initrd a b --extra /e:n --cmdline=-x --remove r --append --y --panic 3 --watchdog 9 \
                   --on kexec --on reboot --preload no --loader direct --thaw=no --no-rehearse";
        let request = StageRequest::from(Command::parse_from(all.split_ascii_whitespace()).arguments);
        let files = Target::Files { kernel: "k".into(), initrds: vec!["a".into(), "b".into()] };
        assert!(request.target == files && request.line == LineFrom::Given("-x".to_owned()));
        assert!(request.on == [OnVerb::Kexec, OnVerb::Reboot] && request.preload == Some(PreloadChoice::No));
        assert!(request.skips_test_load && request.decompress == Some(false));
        assert_eq!(request.watchdog, Some(Watchdog::Seconds(9)));
        let by_update =
            StageRequest { by_update: true, follow: true, ..StageRequest::of_entry(Some("e".to_owned())) };
        for request in [request, StageRequest::default(), by_update] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<StageRequest>(&text).unwrap(), request, "{text}");
        }
    }
}
