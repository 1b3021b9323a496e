//! Where the system's files are: below `/`, or below a directory in a test.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The path at which systemd-shutdown(8) looks for the hook.
pub const HOOK: &str = "/usr/lib/systemd/system-shutdown/nextkernel";

/// The directory that stands for `/`.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Returns the root of the running system.
    #[must_use]
    pub fn system() -> Root {
        Root(PathBuf::from("/"))
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Returns a root below a directory, for tests.
    #[must_use]
    pub fn below(directory: &Path) -> Root {
        Root(directory.to_path_buf())
    }

    /// Maps an absolute path of the system to its path below this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Opens a file for reading. Without `O_NONBLOCK` the open would wait for ever if there is a pipe at this
    /// path.
    pub fn open(&self, absolute: impl AsRef<Path>) -> io::Result<File> {
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(absolute))
    }

    /// Reads a file of which at most `most` bytes are of use. From a larger file, which may be a sparse one
    /// of some gigabytes, it reads one byte more, so that the caller can see that it is too large.
    pub fn read_up_to(&self, absolute: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(absolute))?;
        file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns the first line of one of the kernel's files; `None` if it cannot be read.
    #[must_use]
    pub fn fact(&self, absolute: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    }

    /// Returns the last component of the target of a link in sysfs: for a device's `driver`, the driver's
    /// name.
    #[must_use]
    pub fn link(&self, absolute: &str) -> Option<String> {
        let to = fs::read_link(self.path(absolute)).ok()?;
        Some(to.file_name()?.to_str()?.to_owned())
    }

    /// Whether a kexec image is loaded, by nextkernel or by anything else
    /// (Documentation/ABI/testing/sysfs-kernel-kexec-kdump).
    #[must_use]
    pub fn kexec_loaded(&self) -> bool {
        let fact = self.fact("/sys/kernel/kexec/loaded").or_else(|| self.fact("/sys/kernel/kexec_loaded"));
        fact.as_deref() == Some("1")
    }

    /// Whether the hook is installed where systemd-shutdown(8) looks for it.
    #[must_use]
    pub fn hook_installed(&self) -> bool {
        self.path(HOOK).exists()
    }

    /// Whether systemd is the init (`sd_booted(3)`).
    #[must_use]
    pub fn runs_systemd(&self) -> bool {
        self.path("/run/systemd/system").is_dir()
    }
}
