//! Debian's own modules for an initramfs: a few of the image's tree, unpacked, as `modprobe` looks for them.

use crate::cpio::Cpio;
use crate::host_bytes;
use crate::image::Files;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Some modules and all that they need.
pub struct Modules {
    folder: String,
    /// What stands in modules.dep: a module, and the modules that it needs.
    needs: String,
    files: BTreeMap<String, Vec<u8>>,
}

impl Modules {
    /// The modules of these names, as `modprobe` takes them.
    pub fn of(image: &Files, names: &[&str]) -> Result<Self, String> {
        let folder = format!("usr/lib/modules/{}", image.release()?);
        let tree = image.tree().join(&folder);
        let all = tree.join("modules.dep");
        let all = fs::read_to_string(&all).map_err(|e| format!("{}: {e}", all.display()))?;
        let mut modules = Self { folder, needs: String::new(), files: BTreeMap::new() };
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

    /// Puts them into an initramfs: `modprobe NAME` loads one, with what `NAME.PARAMETER=` says on
    /// the kernel's command line.
    pub fn put(&self, cpio: &mut Cpio) {
        for (path, bytes) in &self.files {
            cpio.file(&format!("{}/{path}", self.folder), 0o644, bytes);
        }
        cpio.file(&format!("{}/modules.dep", self.folder), 0o644, self.needs.as_bytes());
    }
}

/// Whether a path is that of a module; to the kernel '-' and '_' are the same.
fn is(path: &str, name: &str) -> bool {
    let file = unpacked(path).rsplit('/').next().and_then(|file| file.strip_suffix(".ko"));
    file.is_some_and(|file| file.replace('-', "_") == name.replace('-', "_"))
}

fn unpacked(path: &str) -> &str {
    path.strip_suffix(".xz").unwrap_or(path)
}

/// Debian 13 packs its modules, Debian 12 does not.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    }
    host_bytes(Command::new("xz").arg("-dc").arg(path))
}
