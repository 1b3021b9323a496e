//! The plain convention: `/boot/vmlinuz-VERSION` with an initrd of the same version beside it, and `/vmlinuz`
//! as a link to the kernel that is meant. Debian, Fedora, openSUSE, Arch and Alpine name their files this way.

use std::fs;
use std::path::{Path, PathBuf};

use crate::entries::entry::{Entry, EntryKind, Error};
use crate::machine::root::Root;

/// Links to the kernel that the distribution prefers (Debian's linux-update-symlinks(1)), in the order in which
/// they are checked.
const LINKS: [&str; 2] = ["/vmlinuz", "/boot/vmlinuz"];

/// The name of the initrd of `vmlinuz-VERSION`: Debian; Fedora, Arch and Void; openSUSE; Alpine.
const INITRDS: [(&str, &str); 4] =
    [("initrd.img-", ""), ("initramfs-", ".img"), ("initrd-", ""), ("initramfs-", "")];

/// Returns every kernel that is installed this way, sorted by name. One that cannot be staged carries the
/// reason.
pub fn all(root: &Root) -> Vec<Entry> {
    let entry = |version: String| {
        let kernel = Path::new("/boot").join(format!("vmlinuz-{version}"));
        let (initrds, reason) = match initrd(root, &kernel, &version) {
            Ok(initrd) => (vec![initrd.into()], None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let version_too = Some(version.clone());
        Entry { version: version_too, initrds, reason, ..Entry::new(EntryKind::Convention, version, kernel) }
    };
    installed(root).into_iter().map(entry).collect()
}

/// Returns the kernel that the distribution would boot.
pub fn default<'a>(root: &Root, all: &'a [Entry]) -> Result<&'a Entry, Error> {
    let linked = linked(root);
    match (all.iter().find(|entry| Some(&entry.id) == linked.as_ref()), all) {
        (Some(linked), _) => Ok(linked),
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::None),
        (None, _) => Err(Error::Several(all.iter().map(|entry| entry.id.clone()).collect())),
    }
}

/// Returns the versions of the kernels in /boot, sorted by name.
fn installed(root: &Root) -> Vec<String> {
    let files = fs::read_dir(root.path("/boot")).into_iter().flatten().flatten();
    let versions = files.filter_map(|file| {
        let version = version_of(&file.path())?;
        file.path().is_file().then_some(version)
    });
    let mut versions: Vec<_> = versions.collect();
    versions.sort();
    versions
}

/// Returns the version that a link of the distribution leads to.
fn linked(root: &Root) -> Option<String> {
    let targets = LINKS.iter().filter_map(|link| fs::read_link(root.path(link)).ok());
    let mut versions = targets.filter_map(|target| version_of(&target));
    versions.find(|version| root.path("/boot").join(format!("vmlinuz-{version}")).is_file())
}

fn version_of(kernel: &Path) -> Option<String> {
    let version = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
    // Leftovers of package managers and of `make install` are not versions.
    let leftover = [".old", ".dpkg-tmp", ".dpkg-new", ".bak"].iter().any(|end| version.ends_with(end));
    (!version.is_empty() && !leftover).then(|| version.to_owned())
}

fn initrd(root: &Root, kernel: &Path, version: &str) -> Result<PathBuf, Error> {
    let names = INITRDS.map(|(before, after)| format!("/boot/{before}{version}{after}"));
    let there: Vec<_> = names.iter().filter(|name| root.path(name).is_file()).cloned().collect();
    match there.as_slice() {
        [one] => Ok(PathBuf::from(one)),
        [] => Err(Error::NoInitrd { kernel: kernel.to_path_buf(), looked: names.to_vec() }),
        _ => Err(Error::SeveralInitrds { kernel: kernel.to_path_buf(), initrds: there }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    fn system(files: &[&str]) -> Scratch {
        let scratch = Scratch::new();
        for file in files {
            let path = scratch.root.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        scratch
    }

    fn choose(root: &Root) -> Result<Entry, Error> {
        default(root, &all(root))?.clone().stageable()
    }

    #[test]
    fn one_installed_kernel_is_the_one() {
        for (kernel, initrd, name) in [
            ("/boot/vmlinuz-6.1.0-44-amd64", "/boot/initrd.img-6.1.0-44-amd64", "6.1.0-44-amd64"),
            ("/boot/vmlinuz-linux", "/boot/initramfs-linux.img", "linux"),
            ("/boot/vmlinuz-6.17.1-300.fc43", "/boot/initramfs-6.17.1-300.fc43.img", "6.17.1-300.fc43"),
            ("/boot/vmlinuz-6.4-default", "/boot/initrd-6.4-default", "6.4-default"),
            ("/boot/vmlinuz-lts", "/boot/initramfs-lts", "lts"),
        ] {
            let system = system(&[kernel, initrd, "/boot/vmlinuz-6.0.old", "/boot/grub/grub.cfg"]);
            let entry = choose(&system.root).unwrap();
            assert_eq!(
                (entry.id.as_str(), entry.kernel.path.to_str(), entry.cmdline),
                (name, Some(kernel), None)
            );
            assert_eq!(entry.initrds, [PathBuf::from(initrd).into()]);
        }
    }

    #[test]
    fn of_several_kernels_the_distributions_link_tells_which() {
        let files = ["/boot/vmlinuz-1", "/boot/initrd.img-1", "/boot/vmlinuz-2", "/boot/initrd.img-2"];
        let system = system(&files);
        assert_eq!(choose(&system.root), Err(Error::Several(vec!["1".into(), "2".into()])));
        std::os::unix::fs::symlink("boot/vmlinuz-1", system.root.path("/vmlinuz")).unwrap();
        assert_eq!(choose(&system.root).unwrap().id, "1");
        fs::remove_file(system.root.path("/boot/vmlinuz-1")).unwrap();
        assert_eq!(choose(&system.root).unwrap().id, "2", "the link leads nowhere");
    }

    #[test]
    fn what_is_missing_or_ambiguous_is_named() {
        let sentence = |files: &[&str]| choose(&system(files).root).unwrap_err().to_string();
        assert!(sentence(&[]).contains("--kernel"));
        assert!(sentence(&["/boot/vmlinuz-1"]).contains("/boot/initramfs-1.img"));
        let both = ["/boot/vmlinuz-1", "/boot/initrd.img-1", "/boot/initramfs-1.img"];
        assert!(sentence(&both).contains("several initrds"));
    }
}
