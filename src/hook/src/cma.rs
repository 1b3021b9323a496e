//! Memory that is kept for devices that want it contiguous (CMA). Since Linux 6.17 `kexec_file_load(2)` puts a kernel there,
//! where it does not lie as it must: it moves over its own initrd, and panics (seen with 7.3; `kexec_alloc_contig`,
//! `kernel/kexec_file.c`). A flag leaves CMA out. Kernels from before do not know it, and do not need it.

use nextkernel_plan::limits::LOADS_INTO_CMA;
use rustix::fs::CWD;
use rustix::system::uname;

use crate::{files, limits};

/// Whether the running kernel has any, or does not tell.
#[must_use]
pub fn is_there() -> bool {
    let mut text = [0; limits::MEMINFO_MAX];
    let room = text.len();
    let read = files::open(CWD, c"/proc/meminfo").and_then(|file| files::up_to(file, &mut text));
    read.map_or(true, |text| text.len() == room || is_told(text))
}

/// What /proc/meminfo says. It is looked for from the end, near which it stands: the hook counts its instructions.
fn is_told(meminfo: &[u8]) -> bool {
    const NAME: &[u8] = b"\nCmaTotal:";
    let Some(at) = meminfo.windows(NAME.len()).rposition(|line| line == NAME) else { return false };
    let value = meminfo.get(at + NAME.len()..).unwrap_or_default();
    value.iter().take_while(|byte| **byte != b'\n').any(|byte| matches!(byte, b'1'..=b'9'))
}

/// Whether the running kernel is of a release that may load a kernel into CMA, or does not tell.
#[must_use]
pub fn is_loaded_into() -> bool {
    is_since(uname().release().to_bytes())
}

fn is_since(release: &[u8]) -> bool {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0_u32, |number, digit| {
            number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
        })
    });
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= LOADS_INTO_CMA || major == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cma_is_there_where_the_kernel_tells_of_more_than_none() {
        assert!(is_told(b"MemTotal: 1 kB\nCmaTotal:         262144 kB\nCmaFree: 0 kB\n"));
        for without in [
            &b"MemTotal: 1 kB\nCmaTotal:          0 kB\nCmaFree:         12 kB\n"[..],
            b"MemTotal: 1 kB\n",
            b"",
            b"\nCmaTotal:",
        ] {
            assert!(!is_told(without));
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for release in ["6.17.0", "6.18.3+deb14-amd64", "7.0-rc1", "10.2", "odd", ""] {
            assert!(is_since(release.as_bytes()), "{release}");
        }
        for release in ["6.16.12", "6.12.118+deb13-amd64", "5.14.0-611.el9", "6.1.0-57-amd64"] {
            assert!(!is_since(release.as_bytes()), "{release}");
        }
    }
}
