//! How much memory there is (`proc_meminfo(5)`), in bytes.

use crate::root::Root;

/// All of it.
#[must_use]
pub fn total(root: &Root) -> Option<u64> {
    field(root, "MemTotal")
}

/// What can be used before anything must be killed for it: what the kernel could free, and swap.
#[must_use]
pub fn available(root: &Root) -> Option<u64> {
    Some(field(root, "MemAvailable")? + field(root, "SwapFree").unwrap_or(0))
}

/// What is kept for devices that want it contiguous; `None` where the kernel keeps none, or is not to be asked.
#[must_use]
pub fn cma(root: &Root) -> Option<u64> {
    field(root, "CmaTotal")
}

fn field(root: &Root, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(root.path("/proc/meminfo")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn memory_is_counted_in_bytes_and_swap_with_it() {
        let scratch = Scratch::new();
        assert_eq!(available(&scratch.root), None);
        std::fs::create_dir(scratch.root.path("/proc")).unwrap();
        let meminfo = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\nSwapFree:    20 kB\n";
        std::fs::write(scratch.root.path("/proc/meminfo"), meminfo).unwrap();
        assert_eq!((total(&scratch.root), available(&scratch.root)), (Some(1_024_000), Some(532_480)));
    }
}
