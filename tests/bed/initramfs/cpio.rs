//! Writes an initramfs in the format of `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// An archive that is being written. Parent directories are added automatically.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    count: usize,
}

impl Cpio {
    /// Returns an archive of everything in a directory of the host: directories, files with their modes, symbolic
    /// links.
    pub fn of(tree: &Path) -> Result<Self, String> {
        let mut cpio = Self::default();
        cpio.add(tree, "")?;
        Ok(cpio)
    }

    fn add(&mut self, directory: &Path, within: &str) -> Result<(), String> {
        let failed = |path: &Path, e| format!("{}: {e}", path.display());
        let mut entries: Vec<_> =
            fs::read_dir(directory).map_err(|e| failed(directory, e))?.filter_map(Result::ok).collect();
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            let (path, inside) = (entry.path(), format!("{within}/{}", entry.file_name().to_string_lossy()));
            let found = path.symlink_metadata().map_err(|e| failed(&path, e))?;
            if found.is_dir() {
                self.directory(&inside);
                self.add(&path, &inside)?;
            } else if found.is_symlink() {
                let target = fs::read_link(&path).map_err(|e| failed(&path, e))?;
                self.link(&inside, &target.to_string_lossy());
            } else {
                let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
                self.file(&inside, found.mode() & 0o7777, &bytes);
            }
        }
        Ok(())
    }

    /// Adds a directory, unless the archive has it already.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.directories.insert(path.into()) {
            return;
        }
        self.parent(path);
        self.member(path, 0o040_755, (0, 0), &[]);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.member(path, 0o100_000 | mode, (0, 0), bytes);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.member(path, 0o120_777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        let path = path.trim_matches('/');
        self.parent(path);
        self.member(path, 0o020_600, (major, minor), &[]);
    }

    /// Ends the archive and returns it. Another archive can be appended to it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.member("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn member(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.count += 1;
        let (inode, size, name) = (self.count, content.len(), path.len() + 1);
        // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}\
             {major:08x}{minor:08x}{name:08x}{0:08x}{path}\0",
            0, 1
        );
        self.bytes.extend(header.as_bytes());
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
