/// The first release of Linux (major and minor number) whose `kexec_file_load(2)` puts a kernel into memory
/// that is reserved for devices (CMA), unless a flag excludes that (`kexec_alloc_contig`,
/// `kernel/kexec_file.c`).
const SINCE: (u32, u32) = (6, 17);

/// Whether a kernel of this release may load another one into CMA. A release without readable numbers may.
#[must_use]
pub fn may_load_into_cma(release: &[u8]) -> bool {
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0_u32, |number, digit| {
            number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
        })
    });
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= SINCE || major == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for release in ["6.17.0", "6.18.3+deb14-amd64", "7.0-rc1", "10.2", "odd", ""] {
            assert!(may_load_into_cma(release.as_bytes()), "{release}");
        }
        for release in ["6.16.12", "6.12.118+deb13-amd64", "5.14.0-611.el9", "6.1.0-57-amd64"] {
            assert!(!may_load_into_cma(release.as_bytes()), "{release}");
        }
    }
}
