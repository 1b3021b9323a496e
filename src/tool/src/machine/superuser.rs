//! Whether this process runs as root.

use thiserror::Error;

/// The directory belongs to root, and the caller is not root.
#[derive(Debug, Error)]
#[error("{directory} belongs to root; run this with sudo")]
pub struct NotRoot {
    directory: &'static str,
}

/// Returns whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Checks that this process runs as root, who alone may write to the directory.
pub fn see_that_this_is_root(directory: &'static str) -> Result<(), NotRoot> {
    if is_root() { Ok(()) } else { Err(NotRoot { directory }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_and_the_remedy_are_named() {
        let error = NotRoot { directory: "/run/nextkernel" };
        assert_eq!(error.to_string(), "/run/nextkernel belongs to root; run this with sudo");
    }
}
