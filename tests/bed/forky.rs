//! What is different about Debian's next release: it moves, and cannot be installed on every day.
//!
//! That alone is excused. It is remembered, so that one run tries once, and each property on it then says that it is not
//! tested. Whatever goes wrong after the packages are installed is a failure.

use crate::vm_folder;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's name for it.
pub const SUITE: &str = "forky";

/// How long a failure is remembered: for longer than a run of all tests.
const REMEMBERED: Duration = Duration::from_secs(2 * 3600);

/// Made once all packages are installed.
const INSTALLED: &str = "installed";

/// mmdebstrap's further options. The older mmdebstrap may not know which keys this suite is signed by. A mirror may lag
/// behind by more than Debian's week; what it has is signed all the same, and no guest lives long enough to be attacked by
/// what is too old.
pub(crate) fn options(part: &Path) -> [String; 3] {
    [
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg".into(),
        "--aptopt=Acquire::Check-Valid-Until \"false\"".into(),
        format!("--customize-hook=touch '{}'", part.join(INSTALLED).display()),
    ]
}

/// Why it could not be installed, a short while ago.
pub(crate) fn missing() -> Option<String> {
    let file = file();
    let age = fs::metadata(&file).ok()?.modified().ok()?.elapsed().ok()?;
    (age < REMEMBERED).then(|| fs::read_to_string(&file).ok()).flatten()
}

/// Remembers why mmdebstrap failed, unless all packages were installed.
pub(crate) fn remember(part: &Path, why: &str) -> Result<(), String> {
    if part.join(INSTALLED).exists() {
        return Ok(());
    }
    fs::write(file(), why).map_err(|e| format!("{}: {e}", file().display()))
}

fn file() -> PathBuf {
    vm_folder().join(format!("{SUITE}.missing"))
}
