//! The directories of the host that hold images, logs and the programs under test.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the directory with the images, the logs and the installed product: `target/vm`.
#[must_use]
pub fn vm_directory() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).join("target/vm")
}

/// Returns the product as `make guest-install` has installed it, or the one that `NEXTKERNEL_INSTALLED` names.
#[must_use]
pub fn installed() -> PathBuf {
    env::var_os("NEXTKERNEL_INSTALLED").map_or_else(|| vm_directory().join("installed"), PathBuf::from)
}

/// Returns the directory in which `make cross` has built the programs for another architecture. If there is none,
/// it prints that they are not tested.
#[must_use]
pub fn built_for(target: &str) -> Option<PathBuf> {
    let built = vm_directory().join("../built").join(target);
    if !built.exists() {
        eprintln!("not tested: there is nothing in target/built/{target} (`make cross`)");
        return None;
    }
    Some(built)
}
