//! The files beside an image that systemd-stub passes on (systemd-stub(7), "Companion Files"): where they are,
//! and their places in the initrd.

use std::fs;
use std::path::{Path, PathBuf};

use crate::entries::tries::Tries;
use crate::image::piece::{Packed, Piece};
use crate::machine::root::Root;

/// Returns the files beside an image that are for the initrd: credentials and extensions, its own and those for
/// all images (systemd-stub(7), "Companion Files").
pub(super) fn beside(root: &Root, uki: &Path, point: &Path) -> Vec<Piece> {
    let (own, credentials) = (extra_directory(uki), point.join("loader/credentials"));
    let extensions = point.join("loader/extensions");
    let kinds = [
        (&own, ".cred", "", "credentials"),
        (&credentials, ".cred", "", "global_credentials"),
        (&own, ".raw", ".confext.raw", "sysext"),
        (&extensions, ".raw", ".confext.raw", "global_sysext"),
        (&own, ".confext.raw", "", "confext"),
        (&extensions, ".confext.raw", "", "global_confext"),
    ];
    let pieces = kinds.into_iter().flat_map(|(directory, ending, but, to)| {
        let files = files(root, directory, ending, but);
        files
            .into_iter()
            .map(move |path| Piece { packed: Packed::below(&path, to).map(Box::new), ..path.into() })
    });
    pieces.collect()
}

impl Packed {
    /// Returns the path where systemd's boot loader and stub put a credential or extension of one entry, by its
    /// name. Returns `None` if the file is neither (Boot Loader Specification, `extra`).
    #[must_use]
    pub fn extra(path: &Path) -> Option<Packed> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let kinds = [(".cred", "credentials"), (".confext.raw", "confext"), (".sysext.raw", "sysext")];
        let (_, to) = kinds.into_iter().find(|(ending, _)| name.ends_with(ending))?;
        Packed::below(path, to)
    }

    fn below(path: &Path, directory: &str) -> Option<Packed> {
        let name = path.file_name()?.to_str()?;
        let (of_directory, file) =
            if directory.ends_with("credentials") { (0o500, 0o400) } else { (0o555, 0o444) };
        Some(Packed { name: format!(".extra/{directory}/{name}"), directory: of_directory, file })
    }
}

/// Returns the directory `FILE.extra.d`. The boot counters are not part of its name.
pub(super) fn extra_directory(uki: &Path) -> PathBuf {
    let name = uki.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, ending) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    let (stem, _) = Tries::parse(stem);
    uki.with_file_name(format!("{stem}{ending}.extra.d"))
}

/// Returns the files in a directory that have an ending, sorted by name, as the firmware finds them. A missing
/// directory has none.
pub(super) fn files(root: &Root, directory: &Path, ending: &str, but: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(root.path(directory)).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| {
        let lower = name.to_ascii_lowercase();
        let other = !but.is_empty() && lower.ends_with(but);
        let is_name = name.is_ascii() && name.len() <= 255 && !name.starts_with('.');
        is_name && lower.ends_with(ending) && !other && root.path(directory.join(name)).is_file()
    });
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_or_an_extension_of_an_entry_has_its_place() {
        let place = |path: &str| Packed::extra(Path::new(path)).map(|packed| (packed.name, packed.file));
        assert_eq!(place("/efi/a.CRED"), Some((".extra/credentials/a.CRED".to_owned(), 0o400)));
        assert_eq!(place("/efi/a.sysext.raw"), Some((".extra/sysext/a.sysext.raw".to_owned(), 0o444)));
        assert_eq!(place("/efi/a.confext.raw"), Some((".extra/confext/a.confext.raw".to_owned(), 0o444)));
        assert_eq!(place("/efi/a.raw"), None);
    }
}
