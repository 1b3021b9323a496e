//! How the running kernel was built, where somebody has kept that.

use std::fs;
use std::process::Command;

use crate::root::Root;

/// The configuration of the running kernel.
#[derive(Debug)]
pub struct Kconfig(String);

impl Kconfig {
    /// Looks where distributions keep it, and at last asks the kernel, which has it compressed.
    #[must_use]
    pub fn find(root: &Root) -> Option<Kconfig> {
        let release = root.fact("/proc/sys/kernel/osrelease")?;
        let kept = [format!("/boot/config-{release}"), format!("/usr/lib/modules/{release}/config")];
        let kept = kept.iter().find_map(|path| fs::read_to_string(root.path(path)).ok());
        kept.or_else(|| unpacked(root)).map(Kconfig)
    }

    /// Whether something was built in.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let set =
            |line: &str| line.strip_prefix("CONFIG_").and_then(|line| line.strip_prefix(name)) == Some("=y");
        self.0.lines().any(set)
    }
}

/// Each system has gzip, and to read one file by day it is enough.
fn unpacked(root: &Root) -> Option<String> {
    let file = fs::File::open(root.path("/proc/config.gz")).ok()?;
    let output = Command::new("gzip").arg("-dc").stdin(file).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_was_built_in_is_read_from_where_the_running_kernels_configuration_is_kept() {
        let scratch = Scratch::new();
        scratch.put("/boot/config-6.1", "CONFIG_KEXEC_SIG=y\n");
        assert!(Kconfig::find(&scratch.root).is_none());
        scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
        assert!(Kconfig::find(&scratch.root).is_none());
        let config = "CONFIG_KEXEC=y\n# CONFIG_KEXEC_SIG is not set\nCONFIG_KEXEC_FILE=m\n";
        for path in ["/usr/lib/modules/6.12/config", "/boot/config-6.12"] {
            scratch.put(path, config);
            let config = Kconfig::find(&scratch.root).unwrap();
            assert!(config.has("KEXEC") && !config.has("KEXEC_SIG") && !config.has("KEXEC_FILE"));
            fs::remove_file(scratch.root.path(path)).unwrap();
        }
    }
}
