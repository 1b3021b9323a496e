//! Exceptions for Debian's next release: it keeps changing, and on some days it cannot be installed.
//!
//! Only a failed installation is excused. It is remembered, so that a run tries only once, and each property on
//! this image then reports that it is not tested. Any error after the packages are installed is a failure.

use crate::host::paths::vm_directory;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's name for its next release.
pub const SUITE: &str = "forky";

/// How long a failed installation is remembered: for longer than a run of all tests takes.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// The name of a file that is made once all packages are installed.
const INSTALLED: &str = "installed";

/// Returns additional options for mmdebstrap. An older mmdebstrap may not know which keys sign this suite. A
/// mirror may lag behind by more than Debian's week. Its packages are signed all the same, and no guest lives
/// long enough to be attacked through outdated ones.
pub(crate) fn options(part: &Path) -> [String; 3] {
    [
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg".into(),
        "--aptopt=Acquire::Check-Valid-Until \"false\"".into(),
        format!("--customize-hook=touch '{}'", part.join(INSTALLED).display()),
    ]
}

/// Returns why the last installation failed, if that was a short while ago.
pub(crate) fn missing() -> Option<String> {
    let file = file();
    let age = fs::metadata(&file).ok()?.modified().ok()?.elapsed().ok()?;
    (age < REMEMBERED).then(|| fs::read_to_string(&file).ok()).flatten()
}

/// Records why mmdebstrap failed, unless all packages were installed.
pub(crate) fn remember(part: &Path, why: &str) -> Result<(), String> {
    if part.join(INSTALLED).exists() {
        return Ok(());
    }
    fs::write(file(), why).map_err(|e| format!("{}: {e}", file().display()))
}

fn file() -> PathBuf {
    vm_directory().join(format!("{SUITE}.missing"))
}
