//! The menu of U-Boot or syslinux on this machine: the path of its file, and the paths at which the files of
//! its labels are seen.

use std::path::{Path, PathBuf};

use crate::entries::entry::{Entry, EntryKind, Error, devicetree, missing};
use crate::entries::extlinux::choice::Because;
use crate::entries::extlinux::menu::{self, Config, Fdt, Label, Linux};
use crate::machine::attach::Attached;
use crate::machine::file_systems::{FileSystem, Name};
use crate::machine::mounts::Mount;
use crate::machine::root::Root;

/// The directories in which EXTLINUX and U-Boot look, on a partition of its own at /boot or on the root
/// (EXTLINUX's wiki page, "Configuration file", and core/fs/lib/loadconfig.c; U-Boot's doc/develop/bootstd).
/// Only EXTLINUX looks at the top, and in the directory where it was installed, which is /boot itself on
/// Alpine.
const DIRECTORIES: [&str; 6] = ["/boot/extlinux", "/boot/syslinux", "/boot", "/extlinux", "/syslinux", "/"];
const NAMES: [&str; 2] = ["extlinux.conf", "syslinux.cfg"];

/// The menu, and the label that boots next.
#[derive(Debug)]
pub struct Menu {
    /// The menu's file.
    pub from: PathBuf,
    /// The entries of its labels, in order.
    pub entries: Vec<Entry>,
    config: Config,
}

/// Returns every file that has a menu.
#[must_use]
pub fn configs(root: &Root) -> Vec<PathBuf> {
    let paths = DIRECTORIES.iter().flat_map(|directory| NAMES.map(|name| Path::new(directory).join(name)));
    paths.filter(|path| root.path(path).is_file()).collect()
}

impl Menu {
    /// Reads the menu. `attached` mounts the file systems that its labels are on.
    pub fn read(root: &Root, attached: &mut Attached, from: &Path) -> Result<Menu, Error> {
        let text = root.read_up_to(from, menu::SIZE_MAX).map_err(|error| Error::unreadable(from, &error))?;
        let config = Config::parse(&text);
        let config =
            config.map_err(|wrong| Error::Menu { path: from.to_path_buf(), why: wrong.to_string() })?;
        let entries = config.labels.iter().map(|label| entry(root, attached, from, label)).collect();
        Ok(Menu { from: from.to_path_buf(), entries, config })
    }

    /// Returns the label that boots next, and the setting that decided.
    pub fn next(&self) -> Result<(&Entry, &'static str), Error> {
        let undecided = |why: String| Error::Undecided { path: self.from.clone(), why };
        let (number, because) = self.config.next().map_err(|error| undecided(error.to_string()))?;
        let entry = self.entries.get(number).ok_or(Error::NoEntry)?;
        let why = match because {
            Because::Default => "DEFAULT",
            Because::OnTimeout => "ONTIMEOUT",
            Because::MenuDefault => "MENU DEFAULT",
            Because::First => "the first label",
        };
        Ok((entry, why))
    }
}

fn entry(root: &Root, attached: &mut Attached, from: &Path, label: &Label) -> Entry {
    let made = match &label.boots {
        Ok(linux) => made(root, attached, from, &label.name, linux),
        Err(wrong) => Err(Error::Menu { path: from.to_path_buf(), why: wrong.to_string() }),
    };
    let made = made.unwrap_or_else(|reason| Entry::refused(EntryKind::Extlinux, label.name.clone(), reason));
    Entry { title: Some(label.title.clone()), from: Some(from.to_path_buf()), ..made }
}

fn made(
    root: &Root,
    attached: &mut Attached,
    from: &Path,
    name: &str,
    linux: &Linux,
) -> Result<Entry, Error> {
    let mut on = |path: &str| on(root, attached, from, path);
    let kernel = on(&linux.kernel)?;
    let initrds = linux.initrds.iter().map(|path| on(path)).collect::<Result<Vec<_>, _>>()?;
    let mut notes = Vec::new();
    let trees = linux.fdt.iter().map(|fdt| match fdt {
        Fdt::File(path) | Fdt::Directory(path) => path.as_str(),
    });
    for tree in trees.chain(linux.overlays.iter().map(String::as_str)) {
        notes.push(devicetree(root, from, tree)?);
    }
    // syslinux passes `initrd=` on to the kernel, which does not know it.
    let options = crate::image::cmdline::without(&linux.options, "initrd");
    Ok(Entry {
        initrds: initrds.into_iter().map(Into::into).collect(),
        cmdline: Some(options),
        notes,
        reason: missing(root, from, &kernel),
        ..Entry::new(EntryKind::Extlinux, name.to_owned(), kernel)
    })
}

/// Returns the path at which a file of the menu is seen; it is on the file system of the menu.
fn on(root: &Root, attached: &mut Attached, from: &Path, path: &str) -> Result<PathBuf, Error> {
    let unseen = |why: String| Error::Unseen { from: from.to_path_buf(), path: path.to_owned(), why };
    let mounts = Mount::all(root);
    let told = || unseen("what it lies on cannot be told".to_owned());
    let directory =
        from.parent().and_then(|directory| FileSystem::own_path(&mounts, directory)).ok_or_else(told)?;
    let source = Mount::over(&mounts, from).map(|mount| mount.source.clone()).ok_or_else(told)?;
    let own = menu::path(&directory.to_string_lossy(), path);
    attached.path(&Name::Device(source), &own, false).map_err(|error| unseen(error.to_string()))
}
