//! Detects which boot loader would start this machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::entries::entry::Error;
use crate::entries::{extlinux, grub};
use crate::machine::attach::POINTS;
use crate::machine::efi;
use crate::machine::root::Root;
use crate::request::choices::BootLoader;

/// The boot loader in charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InCharge {
    /// systemd-boot.
    SystemdBoot,
    /// GRUB, with its grub.cfg.
    Grub(PathBuf),
    /// U-Boot or syslinux, with their configuration file.
    Extlinux(PathBuf),
    /// No known boot loader.
    Nobody,
}

/// Detects the boot loader. The administrator's setting counts first, then the name that the boot loader itself
/// left in the firmware's variables (Boot Loader Interface, `LoaderInfo`; GRUB 2.12 and later set it, too),
/// then the only menu that exists.
pub fn find(root: &Root, said: Option<BootLoader>) -> Result<InCharge, Error> {
    let in_charge = match said {
        Some(said) => said,
        None => match named_by_itself(root)? {
            Some(named) => named,
            None => return alone(root),
        },
    };
    match in_charge {
        BootLoader::None => Ok(InCharge::Nobody),
        BootLoader::SystemdBoot => Ok(InCharge::SystemdBoot),
        BootLoader::Grub => only("GRUB", grub::found::configs(root)).map(InCharge::Grub),
        BootLoader::Extlinux => only("extlinux", extlinux::found::configs(root)).map(InCharge::Extlinux),
    }
}

/// Returns the boot loader that left its name in the firmware's variables; `None` if none did.
fn named_by_itself(root: &Root) -> Result<Option<BootLoader>, Error> {
    match efi::text(root, "LoaderInfo")? {
        Some(info) if info.starts_with("systemd-boot") => Ok(Some(BootLoader::SystemdBoot)),
        Some(info) if info.starts_with("GRUB") => Ok(Some(BootLoader::Grub)),
        Some(info) => Err(Error::OtherLoader(info)),
        // An image that the firmware starts directly sets this variable (systemd-stub(7)).
        None => efi::text(root, "StubInfo")?.map_or(Ok(None), |stub| Err(Error::OtherLoader(stub))),
    }
}

fn only(loader: &'static str, menus: Vec<PathBuf>) -> Result<PathBuf, Error> {
    match menus.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::NoMenu(loader)),
        _ => Err(Error::SeveralMenus(menus)),
    }
}

/// Returns the boot loader that has a menu here, for a machine on which none left its name.
fn alone(root: &Root) -> Result<InCharge, Error> {
    let grub = grub::found::configs(root).into_iter().map(InCharge::Grub);
    let extlinux = extlinux::found::configs(root).into_iter().map(InCharge::Extlinux);
    // Without the firmware's variables, systemd-boot may be in charge without being seen.
    let hidden = systemd_boot(root).filter(|_| !efi::are_there(root));
    let all: Vec<_> = grub.chain(extlinux).collect();
    match (all.as_slice(), hidden) {
        ([], None) => Ok(InCharge::Nobody),
        ([one], None) => Ok(one.clone()),
        ([], Some(_)) => Err(Error::NoVariables),
        (_, hidden) => {
            let menus = all.into_iter().filter_map(|loader| match loader {
                InCharge::Grub(menu) | InCharge::Extlinux(menu) => Some(menu),
                InCharge::SystemdBoot | InCharge::Nobody => None,
            });
            Err(Error::SeveralMenus(menus.chain(hidden).collect()))
        }
    }
}

/// Files of boot loaders whose choice nextkernel does not know, outside the partitions that the firmware reads.
const OTHERS: [&str; 5] = [
    "/boot/limine/limine.conf",
    "/boot/refind_linux.conf",
    "/boot/config.txt",
    "/boot/firmware/config.txt",
    "/boot/lilo.conf",
];

/// Files of such boot loaders on those partitions.
const OTHERS_ON_ESP: [&str; 5] = [
    "limine.conf",
    "limine/limine.conf",
    "EFI/limine/limine.conf",
    "EFI/BOOT/limine.conf",
    "EFI/refind/refind.conf",
];

/// Returns the boot loader configurations that exist here but are not read.
#[must_use]
pub fn others(root: &Root) -> Vec<PathBuf> {
    let on_esp = POINTS.iter().flat_map(|point| OTHERS_ON_ESP.map(|name| Path::new(point).join(name)));
    let named = OTHERS.map(PathBuf::from).into_iter().chain(on_esp);
    let mut found: Vec<_> = named.filter(|path| root.path(path).is_file()).collect();
    found.extend(grub::found::on_esp(root));
    found
}

/// Returns the directory of systemd-boot itself, where bootctl(1) installs it.
fn systemd_boot(root: &Root) -> Option<PathBuf> {
    let directories = POINTS.map(|point| Path::new(point).join("EFI/systemd"));
    directories.into_iter().find(|directory| {
        let files = fs::read_dir(root.path(directory)).into_iter().flatten().flatten();
        let mut names = files.filter_map(|file| file.file_name().into_string().ok());
        names.any(|name| name.to_ascii_lowercase().starts_with("systemd-boot"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::efi::tests::set;
    use crate::machine::scratch::Scratch;

    const GRUB: &str = "/boot/grub/grub.cfg";
    const BOARD: &str = "/boot/extlinux/extlinux.conf";

    fn found(scratch: &Scratch) -> Result<InCharge, String> {
        find(&scratch.root, None).map_err(|error| error.to_string())
    }

    #[test]
    fn the_boot_loaders_own_word_counts_before_menus_that_lie_about() {
        let scratch = Scratch::new();
        scratch.put(GRUB, "");
        scratch.put(BOARD, "");
        for (info, expected) in
            [("systemd-boot 257", Ok(InCharge::SystemdBoot)), ("GRUB 2.12", Ok(InCharge::Grub(GRUB.into())))]
        {
            set(&scratch, "LoaderInfo", &[info]);
            assert_eq!(found(&scratch), expected);
        }
        set(&scratch, "LoaderInfo", &["systemd-stub 257"]);
        assert!(
            found(&scratch)
                .is_err_and(|why| why.contains("systemd-stub 257") && why.contains("name an entry"))
        );
    }

    #[test]
    fn a_boot_loader_that_the_administrator_names_counts_even_if_its_variable_cannot_be_read() {
        let scratch = Scratch::new();
        scratch.put(GRUB, "");
        set(&scratch, "LoaderInfo", &["GRUB 2.12"]);
        let variables = scratch.root.path("/sys/firmware/efi/efivars");
        for variable in fs::read_dir(variables).into_iter().flatten().flatten() {
            let _ = fs::remove_file(variable.path());
            let _ = fs::create_dir(variable.path());
        }
        assert!(found(&scratch).is_err());
        assert_eq!(find(&scratch.root, Some(BootLoader::Grub)), Ok(InCharge::Grub(GRUB.into())));
    }

    #[test]
    fn one_menu_is_the_one_and_of_two_none_is_guessed() {
        let scratch = Scratch::new();
        assert_eq!(found(&scratch), Ok(InCharge::Nobody));
        scratch.put(GRUB, "");
        assert_eq!(found(&scratch), Ok(InCharge::Grub(GRUB.into())));
        scratch.put(BOARD, "");
        let both = found(&scratch).err().unwrap_or_default();
        assert!(both.contains(GRUB) && both.contains(BOARD) && both.contains("boot-loader ="), "{both}");
        let said = |word| find(&scratch.root, BootLoader::from_word(word));
        assert_eq!(said("extlinux"), Ok(InCharge::Extlinux(BOARD.into())));
        assert_eq!(said("none"), Ok(InCharge::Nobody));
        scratch.put("/boot/grub2/grub.cfg", "");
        assert!(said("grub").is_err());
    }

    #[test]
    fn without_the_firmwares_variables_systemd_boot_is_not_passed_over() {
        let scratch = Scratch::new();
        scratch.directory("/sys/firmware/efi/efivars");
        scratch.put("/efi/EFI/systemd/systemd-bootx64.efi", "");
        assert!(found(&scratch).is_err_and(|why| why.contains("efivarfs")));
        scratch.put(GRUB, "");
        assert!(found(&scratch).is_err_and(|why| why.contains("/efi/EFI/systemd") && why.contains(GRUB)));
        scratch.put("/sys/firmware/efi/efivars/Boot0000-x", "");
        assert_eq!(found(&scratch), Ok(InCharge::Grub(GRUB.into())));
    }
}
