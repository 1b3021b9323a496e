//! Boot Loader Specification Type #2 entries: unified kernel images ("Type #2 EFI Unified Kernel Images"), with
//! an entry for each profile.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::entries::entry::{Entry, EntryKind, Error};
use crate::entries::found::{self, Found};
use crate::entries::partition::Partition;
use crate::entries::tries;
use crate::entries::uki::error::Error as ImageError;
use crate::entries::uki::image::{Profile, Uki};
use crate::entries::uki::stub::boots;
use crate::machine::root::Root;

/// Returns the entries on a partition. Files that are not entries are noted. systemd-boot knows profiles since
/// version 257.
pub fn read(
    root: &Root,
    partition: &Partition,
    with_profiles: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, Error> {
    let directory = partition.point.join("EFI/Linux");
    let mut found = Vec::new();
    for name in found::names(root, &directory, ".efi", notes)? {
        let file = directory.join(&name);
        let image = match Uki::open(root, &file) {
            Ok(image) => image,
            // systemd-boot passes over a file that is not an EFI program. Of any other it boots the parts that
            // it understands.
            Err(error @ ImageError::NoPe(_)) => {
                notes.push(format!("{} is passed over: {error}", file.display()));
                continue;
            }
            Err(error) => {
                found.push(unsure(&file, &name, &error));
                continue;
            }
        };
        let most = if with_profiles { image.profiles.len() } else { 1 };
        for (number, profile) in image.profiles.iter().enumerate().take(most) {
            match one(root, partition, &file, &name, &image, (number, profile)) {
                Some(one) => found.push(one),
                None => notes.push(format!(
                    "{} is passed over, as systemd-boot does: it does not say what system it is (.osrel)",
                    file.display()
                )),
            }
        }
    }
    Ok(found)
}

/// Returns the entry for an image of which too little is understood; systemd-boot may boot it all the same.
fn unsure(file: &Path, name: &str, error: &ImageError) -> Found {
    let (id, tries) = tries::id(name, ".efi");
    let reason = Error::Image { path: file.to_path_buf(), why: error.to_string() };
    Found {
        offered: true,
        foreign: false,
        file: name.to_owned(),
        base: None,
        number: 0,
        unsure: true,
        sort_key: None,
        machine_id: None,
        entry: Entry {
            from: Some(file.to_path_buf()),
            tries,
            reason: Some(reason),
            ..Entry::new(EntryKind::Uki, id, file)
        },
    }
}

/// Returns `None` if the image does not name its system (systemd's `bootspec_pick_name_version_sort_key`).
fn one(
    root: &Root,
    partition: &Partition,
    file: &Path,
    name: &str,
    image: &Uki,
    (number, profile): (usize, &Profile),
) -> Option<Found> {
    let says = |key: &str| {
        let mut values = profile.osrel.iter().rev().filter(|(name, value)| name == key && !value.is_empty());
        values.next().map(|(_, value)| value.clone())
    };
    let first = |keys: &[&str]| keys.iter().find_map(|key| says(key));
    let system = first(&["PRETTY_NAME", "NAME", "ID"])?;
    let (base, tries) = tries::id(name, ".efi");
    let id = match (number, &profile.id) {
        (0, _) => base.clone(),
        (_, Some(id)) => format!("{base}@{id}"),
        (_, None) => format!("{base}@{number}"),
    };
    let title = match (number, &profile.title, &profile.id) {
        (_, Some(title), _) => format!("{system} ({title})"),
        (0, None, _) => system,
        (_, None, Some(id)) => format!("{system} ({id})"),
        (_, None, None) => format!("{system} (Profile #{})", number + 1),
    };
    let mut entry =
        with_image(root, image, file, number, &partition.point, Entry::new(EntryKind::Uki, id, file));
    entry.title = Some(title);
    entry.version = first(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]);
    entry.tries = tries;
    entry.aliases = (number > 0).then(|| format!("{base}@{number}")).into_iter().collect();
    entry.from = Some(file.to_path_buf());
    Some(Found {
        offered: true,
        foreign: !image.is_native(),
        file: name.to_owned(),
        base: (number > 0).then_some(base),
        number,
        unsure: false,
        sort_key: first(&["IMAGE_ID", "ID"]),
        machine_id: None,
        entry,
    })
}

/// Returns the entry with the kernel, initrds and command line of an image's profile, or with the reason why
/// they cannot be staged.
fn with_image(root: &Root, image: &Uki, file: &Path, number: usize, point: &Path, entry: Entry) -> Entry {
    match boots(root, image, file, number, None, point) {
        Ok(boots) => Entry {
            kernel: boots.kernel,
            initrds: boots.initrds,
            cmdline: Some(boots.cmdline.unwrap_or_default()),
            notes: boots.notes,
            ..entry
        },
        Err(why) => {
            let reason = Error::Image { path: file.to_path_buf(), why: why.to_string() };
            Entry { reason: Some(reason), ..entry }
        }
    }
}

/// Completes a Type #1 entry that names an image (`uki`, or `efi` if the program is an image) and a profile of
/// it.
#[must_use]
pub fn named(root: &Root, file: &Path, number: usize, point: &Path, entry: Entry) -> Entry {
    match Uki::open(root, file) {
        Ok(image) => with_image(root, &image, file, number, point, entry),
        Err(error) => {
            let reason = Error::Image { path: file.to_path_buf(), why: error.to_string() };
            Entry { reason: Some(reason), ..entry }
        }
    }
}

/// Returns whether a file is a unified kernel image.
#[must_use]
pub fn is_one(root: &Root, file: &Path) -> bool {
    let is_file = |file: &File| file.metadata().is_ok_and(|found| found.is_file());
    root.open(file).is_ok_and(|mut file| is_file(&file) && Uki::is_one(&mut file))
}

/// Returns the mount point of the partition that an image is on, where its addons are.
#[must_use]
pub fn point(root: &Root, file: &Path) -> PathBuf {
    let mounts = crate::machine::mounts::Mount::all(root);
    crate::machine::mounts::Mount::over(&mounts, file)
        .map_or_else(|| PathBuf::from("/"), |mount| mount.point.clone())
}
