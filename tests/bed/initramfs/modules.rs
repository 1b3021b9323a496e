//! Debian's own modules for an initramfs: a few of the image's tree, decompressed, where `modprobe` looks for
//! them.

use crate::host::command;
use crate::image::Files;
use crate::initramfs::cpio::Cpio;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Some modules, and all modules that they need.
pub struct Modules {
    directory: String,
    /// The content of modules.dep: a line for each module, with the modules that it needs.
    needs: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Modules {
    /// Reads the modules of these names, in any spelling that `modprobe` accepts.
    pub fn of(image: &Files, names: &[&str]) -> Result<Self, String> {
        let directory = format!("usr/lib/modules/{}", image.release()?);
        let tree = image.tree().join(&directory);
        let all = tree.join("modules.dep");
        let all = fs::read_to_string(&all).map_err(|e| format!("{}: {e}", all.display()))?;
        let mut modules = Self { directory, needs: String::new(), files: BTreeMap::new() };
        for name in names {
            let line = all.lines().find(|line| line.split(':').next().is_some_and(|path| is(path, name)));
            let line = line.ok_or_else(|| format!("{name} is no module of the image"))?;
            for path in line.split([':', ' ']).filter(|path| !path.is_empty()) {
                modules.files.insert(unpacked(path).into(), read(&tree.join(path))?);
            }
            modules.needs += &line.replace(".ko.xz", ".ko");
            modules.needs += "\n";
        }
        Ok(modules)
    }

    /// Puts the modules into an initramfs. There `modprobe NAME` loads one, with the parameters that the kernel's
    /// command line gives as `NAME.PARAMETER=`.
    pub fn put(&self, cpio: &mut Cpio) {
        for (path, bytes) in &self.files {
            cpio.file(&format!("{}/{path}", self.directory), 0o644, bytes);
        }
        cpio.file(&format!("{}/modules.dep", self.directory), 0o644, self.needs.as_bytes());
    }
}

/// Returns whether a path is that of a module. The kernel treats '-' and '_' alike.
fn is(path: &str, name: &str) -> bool {
    let file = unpacked(path).rsplit('/').next().and_then(|file| file.strip_suffix(".ko"));
    file.is_some_and(|file| file.replace('-', "_") == name.replace('-', "_"))
}

fn unpacked(path: &str) -> &str {
    path.strip_suffix(".xz").unwrap_or(path)
}

/// Reads a module, and decompresses it if it is compressed. Debian 13 compresses its modules, Debian 12 does not.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    }
    command::run_bytes(Command::new("xz").arg("-dc").arg(path))
}
