//! Where the system's files are: below `/`, or below a folder in a test.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where systemd-shutdown(8) looks for the hook.
pub const HOOK: &str = "/usr/lib/systemd/system-shutdown/nextkernel";

/// The folder that stands for `/`.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The system itself.
    #[must_use]
    pub fn system() -> Root {
        Root(PathBuf::from("/"))
    }

    /// Whether it is `/`.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// A system in a folder, as tests make one.
    #[must_use]
    pub fn below(folder: &Path) -> Root {
        Root(folder.to_path_buf())
    }

    /// Where an absolute path of the system is.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    /// Opens a file for reading. Without `O_NONBLOCK` the open itself would wait for ever at a pipe that stands in
    /// its place.
    pub fn open(&self, absolute: impl AsRef<Path>) -> io::Result<File> {
        File::options().read(true).custom_flags(libc::O_NONBLOCK).open(self.path(absolute))
    }

    /// A file of which no more than so many bytes are of use: of a larger one, as a sparse file of some gigabytes, there is one
    /// byte more, by which its reader knows it.
    pub fn read_up_to(&self, absolute: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(absolute))?;
        file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The first line of one of the kernel's files, where it is there and can be read.
    #[must_use]
    pub fn fact(&self, absolute: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.lines().next().unwrap_or_default().to_owned())
    }

    /// The name of what one of sysfs's links leads to: of a device's `driver`, the driver's.
    #[must_use]
    pub fn link(&self, absolute: &str) -> Option<String> {
        let to = fs::read_link(self.path(absolute)).ok()?;
        Some(to.file_name()?.to_str()?.to_owned())
    }

    /// Whether an image is loaded, by whomever (Documentation/ABI/testing/sysfs-kernel-kexec-kdump).
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
