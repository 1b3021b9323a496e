//! The processor's features, as the kernel shows them (`/proc/cpuinfo`, `proc_cpuinfo(5)`). Features that the
//! kernel does not use are hidden there.

use std::fs;

use crate::machine::root::Root;

/// Returns the first processor's line of flags, separated by spaces; empty if there is none.
#[must_use]
pub fn flags(root: &Root) -> String {
    let cpus = fs::read_to_string(root.path("/proc/cpuinfo")).unwrap_or_default();
    cpus.lines().find(|line| line.starts_with("flags")).unwrap_or_default().to_owned()
}

/// Whether the kernel runs with five-level page tables (arch/x86/kernel/cpu).
#[must_use]
pub fn uses_five_levels(root: &Root) -> bool {
    flags(root).split_whitespace().any(|flag| flag == "la57")
}
