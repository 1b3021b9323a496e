//! The configuration that the running kernel was built with, if it is stored anywhere.

use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;

use crate::machine::root::Root;

/// Far above the size of a real kernel configuration, which is some 300 KB.
const SIZE_MAX: u64 = 4 << 20;

/// The text of the running kernel's configuration.
#[derive(Debug)]
pub struct Kconfig(String);

impl Kconfig {
    /// Reads the configuration from where distributions store it, or else from the kernel itself, which has
    /// it compressed.
    #[must_use]
    pub fn find(root: &Root) -> Option<Kconfig> {
        let release = root.fact("/proc/sys/kernel/osrelease")?;
        let kept = [format!("/boot/config-{release}"), format!("/usr/lib/modules/{release}/config")];
        let kept = kept.iter().find_map(|path| fs::read_to_string(root.path(path)).ok());
        kept.or_else(|| unpacked(root)).map(Kconfig)
    }

    /// Whether an option is `y`; `m` does not count.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let set =
            |line: &str| line.strip_prefix("CONFIG_").and_then(|line| line.strip_prefix(name)) == Some("=y");
        self.0.lines().any(set)
    }
}

/// Returns the kernel's own copy (`CONFIG_IKCONFIG_PROC`).
fn unpacked(root: &Root) -> Option<String> {
    let file = fs::File::open(root.path("/proc/config.gz")).ok()?;
    let mut text = String::new();
    GzDecoder::new(file).take(SIZE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::io::Write;

    #[test]
    fn what_was_built_in_is_read_from_where_the_running_kernels_configuration_is_kept() {
        let scratch = Scratch::new();
        scratch.put("/boot/config-6.1", "CONFIG_KEXEC_SIG=y\n");
        assert!(Kconfig::find(&scratch.root).is_none());
        scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
        assert!(Kconfig::find(&scratch.root).is_none());
        let config = "CONFIG_KEXEC=y\n# CONFIG_KEXEC_SIG is not set\nCONFIG_KEXEC_FILE=m\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(config.as_bytes()).unwrap();
        scratch.put("/proc/config.gz", "");
        fs::write(scratch.root.path("/proc/config.gz"), packed.finish().unwrap()).unwrap();
        assert!(Kconfig::find(&scratch.root).unwrap().has("KEXEC"));
        fs::remove_file(scratch.root.path("/proc/config.gz")).unwrap();
        for path in ["/usr/lib/modules/6.12/config", "/boot/config-6.12"] {
            scratch.put(path, config);
            let config = Kconfig::find(&scratch.root).unwrap();
            assert!(config.has("KEXEC") && !config.has("KEXEC_SIG") && !config.has("KEXEC_FILE"));
            fs::remove_file(scratch.root.path(path)).unwrap();
        }
    }
}
