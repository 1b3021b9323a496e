//! A system to test against.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::root::Root;

/// A system in a folder of its own, gone with the test.
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
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}
