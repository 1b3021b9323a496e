//! A system for tests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::root::Root;

/// A system in its own directory, which is removed with the test.
pub(crate) struct Scratch {
    pub(crate) root: Root,
    path: PathBuf,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nextkernel-{}-{count}", std::process::id()));
        fs::create_dir_all(path.join("run")).unwrap();
        Scratch { root: Root::below(&path), path }
    }

    /// Creates a file, and its parent directories.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.root.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Creates a directory, and its parents.
    pub(crate) fn directory(&self, path: &str) {
        fs::create_dir_all(self.root.path(path)).unwrap();
    }

    /// Creates a symbolic link, and its parent directories. The target, too, is below the scratch directory,
    /// because an absolute target would lead into the real system. The links in sysfs are never of that kind.
    pub(crate) fn link(&self, path: &str, to: &str) {
        let path = self.root.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(self.root.path(to), path).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}
