//! Amounts of memory (`proc_meminfo(5)`), in bytes.

use crate::machine::root::Root;

/// Returns the total amount.
#[must_use]
pub fn total(root: &Root) -> Option<u64> {
    field(root, "MemTotal")
}

/// Returns how much memory can be used before a process must be killed for it: the memory that the kernel
/// could free, and free swap on disks. Swap on zram does not count, because it is memory itself.
#[must_use]
pub fn available(root: &Root) -> Option<u64> {
    let swap = swap_on_disks(root).or_else(|| field(root, "SwapFree")).unwrap_or(0);
    Some(field(root, "MemAvailable")? + swap)
}

/// Returns the memory in unused huge pages, which no load can get.
#[must_use]
pub fn unused_huge_pages(root: &Root) -> u64 {
    // HugePages_Free is a number of pages.
    let pages = line(root, "HugePages_Free").and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    field(root, "Hugepagesize").unwrap_or(0).saturating_mul(pages)
}

/// Returns the free swap that is not on zram, from `proc_swaps(5)`: name, type, size, used, priority; size
/// and used are in KiB. White space in a name is escaped there.
fn swap_on_disks(root: &Root) -> Option<u64> {
    let text = std::fs::read_to_string(root.path("/proc/swaps")).ok()?;
    let free = text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, _) = (words.next()?, words.next()?);
        let mut size = || words.next()?.parse::<u64>().ok();
        let free = size()?.saturating_sub(size()?).saturating_mul(1024);
        let device = name.strip_prefix("/dev/").unwrap_or_default();
        // Only zram devices have this file (Documentation/admin-guide/blockdev/zram.rst).
        let is_zram = root.path(format!("/sys/class/block/{device}/comp_algorithm")).is_file();
        (!is_zram).then_some(free)
    });
    Some(free.sum())
}

/// Returns the memory that is reserved for devices that need it contiguous; `None` if the kernel has no CMA,
/// or /proc/meminfo cannot be read.
#[must_use]
pub fn cma(root: &Root) -> Option<u64> {
    field(root, "CmaTotal")
}

fn field(root: &Root, name: &str) -> Option<u64> {
    line(root, name)?.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn line(root: &Root, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.path("/proc/meminfo")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn memory_is_counted_in_bytes_and_swap_with_it() {
        let scratch = Scratch::new();
        assert_eq!(available(&scratch.root), None);
        std::fs::create_dir(scratch.root.path("/proc")).unwrap();
        let meminfo = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\nSwapFree:    20 kB\n";
        std::fs::write(scratch.root.path("/proc/meminfo"), meminfo).unwrap();
        assert_eq!((total(&scratch.root), available(&scratch.root)), (Some(1_024_000), Some(532_480)));
    }

    #[test]
    fn what_lies_in_memory_is_no_more_memory() {
        let scratch = Scratch::new();
        scratch.put(
            "/proc/meminfo",
            "MemAvailable: 500 kB\nSwapFree: 90 kB\nHugePages_Free: 3\nHugepagesize: 2048 kB\n",
        );
        scratch.put(
            "/proc/swaps",
            "Filename Type Size Used Priority\n/dev/zram0 partition 100 30 100\n/swap\\040file file 60 40 -2\n",
        );
        assert_eq!(available(&scratch.root), Some((500 + 70 + 20) * 1024));
        scratch.put("/sys/class/block/zram0/comp_algorithm", "lzo [zstd]\n");
        assert_eq!(available(&scratch.root), Some((500 + 20) * 1024));
        assert_eq!(unused_huge_pages(&scratch.root), 6 << 20);
    }
}
