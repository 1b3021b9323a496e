//! Memory that is reserved for devices that need it contiguous (CMA). Since Linux 6.17 `kexec_file_load(2)`
//! may put a kernel there, at an unsuitable address: the kernel moves over its own initrd and panics (seen
//! with 7.3; `kexec_alloc_contig`, `kernel/kexec_file.c`). A flag makes the call avoid CMA, but some kernels
//! that load into CMA refuse that flag. The hook does the same at the end of shutdown.

use nextkernel_plan::may_load_into_cma;

use crate::machine::memory;
use crate::machine::root::Root;

/// Whether the running kernel has reserved any CMA.
#[must_use]
pub fn is_there(root: &Root) -> bool {
    memory::cma(root).is_some_and(|size| size > 0)
}

/// Whether the running kernel is of a release that may load a kernel into CMA. An unreadable release counts
/// as one that may.
#[must_use]
pub fn is_loaded_into(root: &Root) -> bool {
    may_load_into_cma(root.fact("/proc/sys/kernel/osrelease").unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn cma_is_there_where_the_kernel_tells_of_more_than_none() {
        let scratch = Scratch::new();
        for (meminfo, there) in [
            ("CmaTotal:       262144 kB\n", true),
            ("CmaTotal:            0 kB\n", false),
            ("MemTotal: 1 kB\n", false),
        ] {
            scratch.put("/proc/meminfo", meminfo);
            assert_eq!(is_there(&scratch.root), there, "{meminfo}");
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        let scratch = Scratch::new();
        for (release, is) in [
            ("6.17.0-5-generic", true),
            ("7.2.12+deb14-amd64", true),
            ("odd", true),
            ("6.12.118+deb13-amd64", false),
            ("5.14.0-611.el9.x86_64", false),
        ] {
            scratch.put("/proc/sys/kernel/osrelease", release);
            assert_eq!(is_loaded_into(&scratch.root), is, "{release}");
        }
    }
}
