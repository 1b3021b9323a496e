//! Memory reserved for devices that need it contiguous (CMA). Since Linux 6.17 `kexec_file_load(2)` places a
//! kernel there, which is the wrong place: the kernel moves itself over its own initrd, and panics (seen with
//! 7.3; `kexec_alloc_contig`, `kernel/kexec_file.c`). A flag leaves CMA out. Older kernels do not know the
//! flag, and do not need it.

use core::mem::{ManuallyDrop, MaybeUninit};

use nextkernel_plan::may_load_into_cma;
use rustix::fs::CWD;
use rustix::io::read;
use rustix::system::uname;

use crate::sys::{files, limits};

/// Returns whether the running kernel has CMA, or does not say. Only for a process that ends soon, because the
/// file stays open.
#[must_use]
pub fn is_there() -> bool {
    let mut buffer = [const { MaybeUninit::uninit() }; limits::MEMINFO_MAX];
    let file = files::open(CWD, c"/proc/meminfo").map(ManuallyDrop::new);
    match file.and_then(|file| read(&*file, &mut buffer)) {
        Ok((text, room)) => room.is_empty() || is_told(text),
        Err(_) => true,
    }
}

/// Length of nearly all lines of /proc/meminfo (`show_val_kb`, fs/proc/meminfo.c).
const LINE: usize = 28;

/// Returns whether /proc/meminfo reports CMA. Goes from line to line without searching for their ends, because
/// a test limits the number of instructions that the hook executes.
fn is_told(meminfo: &[u8]) -> bool {
    let mut rest = meminfo;
    while !rest.is_empty() {
        if rest.first_chunk() == Some(b"CmaTotal") {
            let mut value = rest.iter().take_while(|byte| **byte != b'\n');
            return value.any(|byte| matches!(byte, b'1'..=b'9'));
        }
        let length = match rest.get(LINE - 1) {
            Some(b'\n') => LINE,
            _ => rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1),
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// Returns whether the running kernel's release is one that may load a kernel into CMA, or is unknown.
#[must_use]
pub fn is_loaded_into() -> bool {
    may_load_into_cma(uname().release().to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cma_is_there_where_the_kernel_tells_of_more_than_none() {
        assert!(is_told(b"MemTotal: 1 kB\nCmaTotal:         262144 kB\nCmaFree: 0 kB\n"));
        assert!(is_told(
            b"FilePmdMapped:         0 kB\nHugePages_Rsvd:        0\nCmaTotal:          65536 kB\n"
        ));
        for without in [
            &b"MemTotal: 1 kB\nCmaTotal:          0 kB\nCmaFree:         12 kB\n"[..],
            b"MemTotal: 1 kB\n",
            b"",
            b"CmaTotal:",
        ] {
            assert!(!is_told(without));
        }
    }
}
