//! Whether an image is loaded, and whether staging is loading one now.

use rustix::fs::CWD;

use crate::sys::files;

/// Returns whether any program has loaded an image (Documentation/ABI/testing/sysfs-kernel-kexec-kdump).
#[must_use]
pub fn something_is_loaded() -> bool {
    let mut state = [0; 1];
    files::open(CWD, c"/sys/kernel/kexec/loaded")
        .or_else(|_| files::open(CWD, c"/sys/kernel/kexec_loaded"))
        .and_then(|file| files::up_to(&file, &mut state))
        .is_ok_and(|state| state == b"1")
}

/// Returns whether staging is under way, or was killed. Then the loaded image may come from it, and no plan
/// names it.
#[must_use]
pub fn is_being_staged() -> bool {
    files::exists(c"/run/nextkernel/plan.new")
}
