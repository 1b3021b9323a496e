//! The addons of an image ("PE Addons"): which of them systemd-stub takes, and their sections.

use std::path::{Path, PathBuf};

use crate::entries::uki::companions::{extra_directory, files};
use crate::entries::uki::error::Error;
use crate::entries::uki::pe::{MACHINE, Table, cmdline, find, text};
use crate::image::piece::{Identity, Section};
use crate::machine::root::Root;

/// An addition to an image, from a file of its own ("PE Addons").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addon {
    /// The file.
    pub(super) path: PathBuf,
    /// The addition to the command line.
    pub(super) cmdline: Option<String>,
    /// The initrd, which comes after the image's.
    pub(super) initrd: Option<Section>,
    /// The microcode, which comes before the image's.
    pub(super) ucode: Option<Section>,
    /// The section with a device tree, if there is one.
    pub(super) devicetree: Option<&'static str>,
    /// The file as it was read.
    pub(super) file: Identity,
}

/// Returns the addons of an image: those for all images on its partition, then its own, each sorted by name.
/// Addons that systemd-stub passes over are noted, except those for other machines.
pub(super) fn addons(
    root: &Root,
    uki: &Path,
    point: &Path,
    uname: Option<&str>,
    notes: &mut Vec<String>,
) -> Vec<Addon> {
    let mut addons = Vec::new();
    for directory in [point.join("loader/addons"), extra_directory(uki)] {
        for path in files(root, &directory, ".addon.efi", "") {
            match addon(root, &path, uname) {
                Ok(addon) => addons.extend(addon),
                Err(why) => notes.push(format!("{} is passed over: {why}", path.display())),
            }
        }
    }
    addons
}

/// Returns `None` if the addon is for another machine.
fn addon(root: &Root, path: &Path, uname: Option<&str>) -> Result<Option<Addon>, String> {
    let read = || -> Result<_, Error> {
        let mut file = root.open(path)?;
        let identity = Identity::of(&file)?;
        let table = Table::read(&mut file)?;
        if table.machine != MACHINE {
            return Ok(None);
        }
        let section = |name| find(&table.rows, name)?.section(name);
        let mut text = |name| section(name).map(|section| text(&mut file, &section)).transpose();
        let for_kernel = text(".uname")?;
        let addon = Addon {
            path: path.to_path_buf(),
            cmdline: text(".cmdline")?.map(|line| cmdline(&line)),
            initrd: section(".initrd"),
            ucode: section(".ucode"),
            devicetree: [".dtbauto", ".dtb"].into_iter().find(|name| section(name).is_some()),
            file: identity,
        };
        Ok(Some((addon, for_kernel, section(".linux").is_some())))
    };
    let Some((addon, for_kernel, has_kernel)) = read().map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    if has_kernel {
        return Err("it has a kernel in it, and an addon has none".to_owned());
    }
    // systemd-stub compares only as many characters as the addon's version has.
    match (uname, &for_kernel) {
        (Some(is), Some(wants)) if !is.starts_with(wants.as_str()) => {
            Err(format!("it is for the kernel {wants:?}, and the image's is {is:?}"))
        }
        _ => Ok(Some(addon)),
    }
}
