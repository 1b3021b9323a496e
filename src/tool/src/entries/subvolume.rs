//! Finds the default subvolume of a btrfs, which a boot loader and the kernel take if none is named. After
//! transactional-update or `snapper rollback` it is not the running one.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::image::cmdline;
use crate::machine::mounts::Mount;
use crate::machine::root::Root;
use crate::machine::sys;
use crate::words::little_endian::wide;

/// The top level, which is the default if nobody has set another (`BTRFS_FS_TREE_OBJECTID`,
/// `include/uapi/linux/btrfs_tree.h`).
const TOP: u64 = 5;

/// The tree of tree roots, the directory in it, and the type of its items (same header).
const ROOT_TREE: u64 = 1;
const DIRECTORY: u64 = 6;
const DIR_ITEM: u32 = 84;

/// The name of the entry that holds the default.
const NAME: &[u8] = b"default";

/// The length of the header before each item found, and of the one before an entry's name
/// (`btrfs_ioctl_search_header`, `btrfs_dir_item`).
const HEADER: usize = 32;
const ENTRY: usize = 30;

/// Returns whether a command line names the root's subvolume (`rootflags=subvol=@`), so that the default has no
/// effect.
#[must_use]
pub fn is_named(line: &str) -> bool {
    let mut options = cmdline::value(line, "rootflags").unwrap_or_default().split(',');
    options.any(|option| option.starts_with("subvol=") || option.starts_with("subvolid="))
}

/// Returns the subvolume that the root is in and the default one, if they differ. Returns `None` if they are
/// the same, if nobody has set a default, or if `path` is on another mount than the root, because its files are
/// then the same for every root. Only root can ask.
pub fn other_than_default(root: &Root, path: &Path) -> io::Result<Option<(u64, u64)>> {
    let mounts = Mount::all(root);
    let of_root = |mount: &&Mount| mount.kind == "btrfs" && mount.point == Path::new("/");
    let Some(mount) = Mount::over(&mounts, path).filter(of_root) else {
        return Ok(None);
    };
    let options = mount.of_system.split(',');
    let current =
        options.filter_map(|option| option.strip_prefix("subvolid=")).find_map(|id| id.parse().ok());
    let Some(current) = current else { return Ok(None) };
    let found = sys::btrfs_search(&File::open(root.path(&mount.point))?, ROOT_TREE, DIRECTORY, DIR_ITEM)?;
    let default = default_in(&found).unwrap_or(TOP);
    Ok((default != TOP && default != current).then_some((current, default)))
}

/// Returns the default subvolume's id from the result of a search. Total: accepts any bytes.
#[must_use]
fn default_in(found: &[u8]) -> Option<u64> {
    let mut rest = found;
    while let Some(header) = rest.get(..HEADER) {
        let length = usize::try_from(crate::words::little_endian::long(header, 28)).ok()?;
        let item = rest.get(HEADER..)?.get(..length)?;
        let mut entries = item;
        // Names with the same hash share an item.
        while let Some(entry) = entries.get(..ENTRY) {
            let [data, name] = [25, 27].map(|at| usize::from(crate::words::little_endian::short(entry, at)));
            let all = ENTRY + data + name;
            if entries.get(ENTRY..ENTRY + name) == Some(NAME) {
                return Some(wide(entry, 0));
            }
            entries = entries.get(all..)?;
        }
        rest = rest.get(HEADER + length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).unwrap_or(0).to_le_bytes();
        let entry = [
            &id.to_le_bytes()[..],
            &[132],
            &u64::MAX.to_le_bytes(),
            &7_u64.to_le_bytes(),
            &[0, 0],
            &length,
            &[2],
            name,
        ];
        entry.concat()
    }

    fn item(entries: &[Vec<u8>]) -> Vec<u8> {
        let bytes = entries.concat();
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        [&[0; 24][..], &84_u32.to_le_bytes(), &length.to_le_bytes(), &bytes].concat()
    }

    #[test]
    fn a_line_that_names_its_subvolume_asks_for_no_default() {
        assert!(is_named("root=x rootflags=rw,subvol=@ quiet") && is_named("rootflags=subvolid=256"));
        assert!(!is_named("root=x rootflags=compress=zstd -- rootflags=subvol=@") && !is_named("subvol=@"));
    }

    #[test]
    fn the_default_is_found_by_its_name_wherever_it_stands() {
        let found =
            [item(&[entry(9, b"other")]), item(&[entry(8, b"defaulu"), entry(300, b"default")])].concat();
        assert_eq!(default_in(&found), Some(300));
        assert_eq!(default_in(&item(&[entry(9, b"other")])), None);
        for length in 0..found.len() {
            assert_eq!(default_in(found.get(..length).unwrap_or_default()), None, "{length}");
        }
    }
}
