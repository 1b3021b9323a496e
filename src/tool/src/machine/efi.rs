//! What UEFI provides: the variables through which a boot loader and the system talk to each other (systemd's
//! Boot Loader Interface), the firmware's own variables, and the address of its ACPI tables.

use std::path::PathBuf;
use std::{fs, io};

use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;

/// The vendor UUID of the Boot Loader Interface's variables.
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The directory in which the kernel shows the variables.
const DIRECTORY: &str = "/sys/firmware/efi/efivars";

/// The vendor UUID of the firmware's own variables (UEFI, "Globally Defined Variables").
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The vendor UUID of shim's variables.
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// The boot parameters that the kernel was given, and the offset of the Secure Boot state in them
/// (Documentation/arch/x86/zero-page.rst).
pub(crate) const BOOT_PARAMETERS: &str = "/sys/kernel/boot_params/data";
pub(crate) const SECURE_BOOT: usize = 0x1ec;

/// The file in which the kernel lists the addresses of the firmware's tables (drivers/firmware/efi/efi.c).
const TABLES: &str = "/sys/firmware/efi/systab";

/// A variable that exists but cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the EFI variable {} cannot be read: {why}; without it nobody can tell what the boot loader would boot", path.display())]
pub struct Error {
    /// The variable's file.
    pub path: PathBuf,
    /// The reason.
    pub why: String,
}

/// Returns the file of a variable of the Boot Loader Interface (Documentation/filesystems/efivarfs.rst).
#[must_use]
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/{name}-{VENDOR}"))
}

/// Whether the firmware's variables can be seen. Also true on a machine without UEFI, where there are none to
/// see.
#[must_use]
pub fn are_there(root: &Root) -> bool {
    let is_efi = root.path("/sys/firmware/efi").is_dir();
    let any = || fs::read_dir(root.path(DIRECTORY)).is_ok_and(|mut files| files.next().is_some());
    !is_efi || any()
}

/// Returns the texts in a variable: most variables hold one, `LoaderEntries` several in sequence. Empty if
/// the variable is not set.
pub fn texts(root: &Root, name: &str) -> Result<Vec<String>, Error> {
    Ok(value(root, name)?.map_or(Vec::new(), |value| decoded(&value)))
}

/// Returns the first text in a variable; `None` if the variable is not set or holds no text.
pub fn text(root: &Root, name: &str) -> Result<Option<String>, Error> {
    Ok(texts(root, name)?.into_iter().next())
}

/// Returns the flags in a variable of 64 bits (`LoaderFeatures`); 0 if it is not set.
pub fn flags(root: &Root, name: &str) -> Result<u64, Error> {
    let bytes = value(root, name)?.unwrap_or_default();
    Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
}

/// Whether this machine was started with Secure Boot, as its kernel sees it; `None` if unknown. On x86 the
/// boot parameters say it: the kernel treats Secure Boot as off if shim's validation is off
/// (`efi_get_secureboot`, drivers/firmware/efi/libstub/secureboot.c).
#[must_use]
pub fn secure_boot(root: &Root) -> Option<bool> {
    let of_the_kernel = fs::read(root.path(BOOT_PARAMETERS)).ok();
    match of_the_kernel.as_ref().and_then(|bytes| bytes.get(SECURE_BOOT)) {
        Some(2) => return Some(false),
        Some(3) => return Some(true),
        _ => {}
    }
    let first = |whose, name| of(root, whose, name).ok().flatten().and_then(|value| value.first().copied());
    let is_on = first(GLOBAL, "SecureBoot")? == 1;
    let is_setup = first(GLOBAL, "SetupMode") == Some(1);
    let is_left_to_shim = first(SHIM, "MokSBStateRT") == Some(1);
    Some(is_on && !is_setup && !is_left_to_shim)
}

/// Returns the address of the root of the ACPI tables, in the form that `acpi_rsdp=` takes. If there are two,
/// the newer one is returned, because it leads to the 64-bit tables.
#[must_use]
pub fn acpi_root(root: &Root) -> Option<String> {
    table(root, "ACPI20").or_else(|| table(root, "ACPI"))
}

/// Returns the address of one of the firmware's tables, as the kernel writes it; `None` if there is no such
/// table.
#[must_use]
pub fn table(root: &Root, name: &str) -> Option<String> {
    let text = fs::read_to_string(root.path(TABLES)).ok()?;
    let address = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?.trim_ascii();
    let digits = address.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok().filter(|address| *address != 0)?;
    Some(address.to_owned())
}

/// Decodes UTF-16 texts, each terminated by a NUL, as UEFI stores them. Empty texts are left out.
#[must_use]
pub fn decoded(value: &[u8]) -> Vec<String> {
    let units: Vec<_> = value.chunks_exact(2).filter_map(|pair| pair.try_into().ok()).collect();
    let units: Vec<_> = units.into_iter().map(u16::from_le_bytes).collect();
    let texts = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
    texts.filter(|text| !text.is_empty()).collect()
}

/// Returns the value of one of the firmware's own variables; `None` if it is not set.
pub fn global(root: &Root, name: &str) -> Result<Option<Vec<u8>>, Error> {
    of(root, GLOBAL, name)
}

fn value(root: &Root, name: &str) -> Result<Option<Vec<u8>>, Error> {
    of(root, VENDOR, name)
}

/// Returns a variable's value, which follows four bytes of attributes
/// (Documentation/filesystems/efivarfs.rst).
fn of(root: &Root, whose: &str, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = PathBuf::from(format!("{DIRECTORY}/{name}-{whose}"));
    match fs::read(root.path(&path)) {
        Ok(bytes) => Ok(bytes.get(4..).map(<[u8]>::to_vec)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error { path, why: InWords(&error).to_string() }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    /// Sets a variable to texts.
    pub(crate) fn set(scratch: &Scratch, name: &str, texts: &[&str]) {
        let units = texts.iter().flat_map(|text| text.encode_utf16().chain([0]));
        put(scratch, name, &units.flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    }

    /// Sets a variable to bytes.
    pub(crate) fn put(scratch: &Scratch, name: &str, value: &[u8]) {
        put_of(scratch, VENDOR, name, value);
    }

    /// Sets one of the firmware's own variables.
    pub(crate) fn put_global(scratch: &Scratch, name: &str, value: &[u8]) {
        put_of(scratch, GLOBAL, name, value);
    }

    fn put_of(scratch: &Scratch, whose: &str, name: &str, value: &[u8]) {
        let path = format!("{DIRECTORY}/{name}-{whose}");
        scratch.put(&path, "");
        fs::write(scratch.root.path(&path), [&[7, 0, 0, 0], value].concat()).unwrap();
    }

    #[test]
    fn a_variable_is_read_as_the_firmware_stores_it() {
        let scratch = Scratch::new();
        assert_eq!(text(&scratch.root, "LoaderInfo"), Ok(None));
        set(&scratch, "LoaderInfo", &["systemd-boot 257"]);
        assert_eq!(text(&scratch.root, "LoaderInfo"), Ok(Some("systemd-boot 257".to_owned())));
        set(&scratch, "LoaderEntries", &["a.conf", "b.conf", "auto-windows"]);
        assert_eq!(texts(&scratch.root, "LoaderEntries").unwrap().len(), 3);
        put(&scratch, "LoaderFeatures", &(1_u64 << 19).to_le_bytes());
        assert_eq!(flags(&scratch.root, "LoaderFeatures"), Ok(1 << 19));
        put(&scratch, "LoaderEntryOneShot", &[]);
        assert_eq!(text(&scratch.root, "LoaderEntryOneShot"), Ok(None));
    }

    /// Switches Secure Boot on or off.
    pub(crate) fn set_secure_boot(scratch: &Scratch, on: u8) {
        let path = format!("/sys/firmware/efi/efivars/SecureBoot-{GLOBAL}");
        scratch.put(&path, "");
        fs::write(scratch.root.path(&path), [6, 0, 0, 0, on]).unwrap();
    }

    #[test]
    fn secure_boot_is_told_from_what_is_not_known() {
        let scratch = Scratch::new();
        assert_eq!(secure_boot(&scratch.root), None);
        for (value, on) in [(0, false), (1, true)] {
            set_secure_boot(&scratch, value);
            assert_eq!(secure_boot(&scratch.root), Some(on));
        }
    }

    #[test]
    fn secure_boot_is_off_where_the_kernel_shim_or_the_firmware_has_switched_its_checks_off() {
        let scratch = Scratch::new();
        let put = |name: &str, value: u8| {
            let path = format!("{DIRECTORY}/{name}");
            scratch.put(&path, "");
            fs::write(scratch.root.path(&path), [6, 0, 0, 0, value]).unwrap();
        };
        for name in [
            "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c",
            "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23",
        ] {
            set_secure_boot(&scratch, 1);
            put(name, 1);
            assert_eq!(secure_boot(&scratch.root), Some(false), "{name}");
            put(name, 0);
            assert_eq!(secure_boot(&scratch.root), Some(true), "{name}");
        }
        for (told, on) in [(0, true), (1, true), (2, false), (3, true)] {
            let mut parameters = vec![0; 4096];
            parameters.splice(SECURE_BOOT..=SECURE_BOOT, [told]);
            scratch.put(BOOT_PARAMETERS, "");
            fs::write(scratch.root.path(BOOT_PARAMETERS), parameters).unwrap();
            assert_eq!(secure_boot(&scratch.root), Some(on), "{told}");
        }
        set_secure_boot(&scratch, 0);
        assert_eq!(secure_boot(&scratch.root), Some(true), "the kernel's word counts");
    }

    #[test]
    fn the_newer_root_of_the_acpi_tables_counts() {
        let scratch = Scratch::new();
        assert_eq!(acpi_root(&scratch.root), None);
        for (tables, address) in [
            ("ACPI20=0x3fbfa014\nACPI=0x3fbfa000\nSMBIOS=0x3fb6e000\n", Some("0x3fbfa014")),
            ("SMBIOS=0x3fb6e000\nACPI=0x3fbfa000\n", Some("0x3fbfa000")),
            ("SMBIOS=0x3fb6e000\n", None),
            ("ACPI20=0x0\n", None),
            ("ACPI20=0x1 quiet\n", None),
        ] {
            scratch.put(TABLES, tables);
            assert_eq!(acpi_root(&scratch.root).as_deref(), address, "{tables}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_is_an_error_and_no_absence() {
        let scratch = Scratch::new();
        scratch.directory(&format!("/sys/firmware/efi/efivars/LoaderInfo-{VENDOR}"));
        let sentence = text(&scratch.root, "LoaderInfo").unwrap_err().to_string();
        assert!(sentence.contains("LoaderInfo") && sentence.contains("Is a directory"), "{sentence}");
    }

    #[test]
    fn half_a_character_and_half_a_variable_are_no_reason_to_fail() {
        assert_eq!(decoded(&[0x61, 0, 0x00, 0xd8, 0, 0, 0x62]), ["a\u{fffd}"]);
        assert!(decoded(&[0]).is_empty());
    }
}
