//! The test bed: real Debian guests in QEMU, in which the product hands one kernel over to the next while the
//! tests watch the machine.
//!
//! A [`guest::Guest`] is a whole Debian. A [`initramfs::Night`] is only its kernel and the real systemd-shutdown,
//! from the moment when the file systems are gone.

pub mod bios;
pub mod boards;
pub mod chain;
pub mod cpio;
pub mod dracut;
pub mod esp;
pub mod feed;
pub mod forky;
pub mod guest;
pub mod harness;
pub mod holder;
pub mod image;
pub mod initramfs;
pub mod inits;
pub mod kexec_tools;
pub mod machine;
pub mod modules;
pub mod monitor;
pub mod shim;
pub mod signed;
pub mod snapshot;
pub mod standins;
pub mod storage;
pub mod stub;
pub mod uki;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Returns the directory with the images, the logs and the installed product: `target/vm`.
#[must_use]
pub fn vm_folder() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).join("target/vm")
}

/// Returns the product as `make guest-install` has installed it, or the one that `NEXTKERNEL_INSTALLED` names.
#[must_use]
pub fn installed() -> PathBuf {
    env::var_os("NEXTKERNEL_INSTALLED").map_or_else(|| vm_folder().join("installed"), PathBuf::from)
}

/// Bytes that are made once in a process, each under a name.
pub(crate) struct Made(Mutex<BTreeMap<&'static str, Vec<u8>>>);

impl Made {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Returns the bytes of that name, and makes them at the first call.
    pub(crate) fn get(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Vec<u8>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = all.get(name) {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        all.insert(name, bytes.clone());
        Ok(bytes)
    }
}

/// Returns the directory in which `make cross` has built the programs for another architecture. If there is none,
/// it prints that they are not tested.
#[must_use]
pub fn built_for(target: &str) -> Option<PathBuf> {
    let built = vm_folder().join("../built").join(target);
    if !built.exists() {
        eprintln!("not tested: there is nothing in target/built/{target} (`make cross`)");
        return None;
    }
    Some(built)
}

/// Runs a program of the host and returns its output. An error names the program and contains its error messages.
pub fn host(command: &mut Command) -> Result<String, String> {
    host_bytes(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Does the same as [`host`], for output that is not text.
pub fn host_bytes(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()))
}
