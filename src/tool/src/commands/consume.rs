//! One-shot entries: a boot loader's choice for one boot is consumed once a handoff has started it.
//!
//! A boot loader consumes the choice itself when it boots the entry. A handoff bypasses the boot loader. So the
//! next kernel's command line contains `nextkernel.once=`, and `nextkernel arrived` removes the choice there.
//! Until that kernel runs, the boot loader would still boot the same entry, so a handoff that fails loses
//! nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use thiserror::Error;

use crate::entries::grub;
use crate::entries::grub::environment;
use crate::image::cmdline;
use crate::machine::efi;
use crate::machine::root::Root;
use crate::request::once::{NEXT_ENTRY, Once, VARIABLE};
use crate::words::errno::InWords;
use crate::words::say;

/// Finish a handoff: use up the one-shot entry that it started
///
/// nextkernel-arrived.service does this at every boot that came from one. A one-shot entry that was set anew since
/// stays.
#[derive(Args, Debug, Default)]
pub struct Arguments {}

/// A reason why the one-shot entry is not consumed.
#[derive(Debug, Error)]
pub enum Error {
    /// The parameter names no keeper that nextkernel knows.
    #[error("the command line says {0}, which is no one-shot entry of nextkernel's; nothing is used up")]
    Unknown(String),
    /// The EFI variable cannot be read.
    #[error(transparent)]
    Efi(#[from] efi::Error),
    /// The one-shot entry cannot be removed.
    #[error("the one-shot entry in {} cannot be used up: {}; {way_out}", .path.display(), InWords(.error))]
    Stays {
        /// The file that holds the entry.
        path: PathBuf,
        /// The reason.
        error: io::Error,
        /// The remedy.
        way_out: &'static str,
    },
}

/// Consumes the one-shot entry that this kernel was started from, if any.
pub fn run(root: &Root, _arguments: &Arguments) -> Result<(), Error> {
    let line = cmdline::running(root).unwrap_or_default();
    let Some(parameter) = cmdline::value(&line, Once::KEY) else {
        say::say("this kernel was not started from a one-shot entry by a handoff: nothing is to be used up");
        return Ok(());
    };
    let parameter = format!("{}={parameter}", Once::KEY);
    let used = if parameter.starts_with(&format!("{}=efi:", Once::KEY)) {
        in_variables(root, &parameter)?
    } else if parameter.starts_with(&format!("{}=grub:", Once::KEY)) {
        in_grubenv(root, &parameter)?
    } else {
        return Err(Error::Unknown(crate::words::quoted::quoted(&parameter, 60)));
    };
    match used {
        Some(path) => say::say(format_args!("the one-shot entry in {} is used up", path.display())),
        None => say::say("the one-shot entry is used up already, or was set anew: nothing is done"),
    }
    Ok(())
}

/// Consumes the entry in the EFI variable. Returns its file, or None if another entry is set or none.
fn in_variables(root: &Root, parameter: &str) -> Result<Option<PathBuf>, Error> {
    let current = efi::text(root, VARIABLE)?.map(|current| Once::Efi(current.to_ascii_lowercase()));
    if current.is_none_or(|current| current.parameter() != parameter) {
        return Ok(None);
    }
    let path = efi::path(VARIABLE);
    let way_out = "`bootctl set-oneshot ''` does it";
    let seen = root.path(&path);
    // efivarfs marks variables immutable, to protect them from accidental deletion
    // (Documentation/filesystems/efivarfs.rst).
    if let Ok(file) = File::open(&seen) {
        let _ = ioctl_getflags(&file).map(|flags| ioctl_setflags(&file, flags - IFlags::IMMUTABLE));
    }
    let gone = fs::remove_file(&seen);
    gone.map(|()| Some(path.clone())).map_err(|error| Error::Stays { path, error, way_out })
}

/// Consumes the entry in grubenv. Returns its file, or None if another entry is set or none.
fn in_grubenv(root: &Root, parameter: &str) -> Result<Option<PathBuf>, Error> {
    let way_out = "`grub-editenv - unset next_entry` does it, when GRUB's folder can be seen";
    let failed = |path: PathBuf| move |error| Error::Stays { path, error, way_out };
    let configs = grub::found::configs(root);
    if configs.is_empty() {
        return Err(failed(PathBuf::from("/boot"))(io::ErrorKind::NotFound.into()));
    }
    for config in configs {
        let path = grub::found::grubenv(&config);
        let seen = root.path(&path);
        let block = root.read_up_to(&path, environment::SIZE_MAX).map_err(failed(path.clone()))?;
        let current = environment::Environment::parse(&block).ok();
        let current = current.as_ref().and_then(|environment| environment.get(NEXT_ENTRY));
        if current.is_none_or(|current| Once::Grub(current.to_owned()).parameter() != parameter) {
            continue;
        }
        let Some(without) = environment::without(&block, NEXT_ENTRY) else { continue };
        // In place, as GRUB does: its `save_env` overwrites the blocks that the file has on the disk, and allocates
        // none (grub-core/commands/loadenv.c).
        return overwrite(&seen, &without).map(|()| Some(path.clone())).map_err(failed(path));
    }
    Ok(None)
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::efi::tests::set;
    use crate::machine::scratch::Scratch;

    fn parameter(scratch: &Scratch, once: &Once) {
        scratch.put("/proc/cmdline", &format!("root=x {} -- single\n", once.parameter()));
    }

    #[test]
    fn what_systemd_boot_kept_for_this_boot_is_gone_and_what_was_set_since_stays() {
        let scratch = Scratch::new();
        let is_there = || scratch.root.path(efi::path(VARIABLE)).exists();
        parameter(&scratch, &Once::Efi("arch.conf".to_owned()));
        run(&scratch.root, &Arguments {}).unwrap();
        set(&scratch, VARIABLE, &["Other.conf"]);
        run(&scratch.root, &Arguments {}).unwrap();
        assert!(is_there());
        set(&scratch, VARIABLE, &["Arch.conf"]);
        scratch.put("/proc/cmdline", "root=x");
        run(&scratch.root, &Arguments {}).unwrap();
        assert!(is_there(), "nobody was told");
        parameter(&scratch, &Once::Efi("arch.conf".to_owned()));
        run(&scratch.root, &Arguments {}).unwrap();
        assert!(!is_there());
    }

    #[test]
    fn grubenv_keeps_its_length_and_everything_else() {
        let scratch = Scratch::new();
        let env = |text: &str| format!("{:#<1024}", format!("# GRUB Environment Block\n{text}"));
        scratch.put("/boot/grub/grub.cfg", "");
        scratch.put("/boot/grub/grubenv", &env("saved_entry=a\nnext_entry=1>0\nkernelopts=q\n"));
        let now = || fs::read_to_string(scratch.root.path("/boot/grub/grubenv")).unwrap();
        parameter(&scratch, &Once::Grub("0".to_owned()));
        run(&scratch.root, &Arguments {}).unwrap();
        assert!(now().contains("next_entry"));
        parameter(&scratch, &Once::Grub("1>0".to_owned()));
        run(&scratch.root, &Arguments {}).unwrap();
        assert_eq!(now(), env("saved_entry=a\nkernelopts=q\n"));
    }

    #[test]
    fn a_parameter_of_somebody_else_is_an_error() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "nextkernel.once=lilo:00000000");
        assert!(run(&scratch.root, &Arguments {}).unwrap_err().to_string().contains("lilo"));
    }
}
