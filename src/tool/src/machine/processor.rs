//! What the processor has, as the kernel shows it (`/proc/cpuinfo`, `proc_cpuinfo(5)`): what it does not use is hidden.

use std::fs;

use crate::machine::root::Root;

/// The first one's flags, with spaces between.
#[must_use]
pub fn flags(root: &Root) -> String {
    let cpus = fs::read_to_string(root.path("/proc/cpuinfo")).unwrap_or_default();
    cpus.lines().find(|line| line.starts_with("flags")).unwrap_or_default().to_owned()
}

/// Whether the kernel runs with five levels of page tables (arch/x86/kernel/cpu).
#[must_use]
pub fn uses_five_levels(root: &Root) -> bool {
    flags(root).split_whitespace().any(|flag| flag == "la57")
}
