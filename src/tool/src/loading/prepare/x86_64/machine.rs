//! The running kernel's knowledge of the machine that the next one needs.

use std::fs;

use super::field;
use crate::image::cmdline;
use crate::loading::prepare::memory_map::{self, Descriptor, Entry};
use crate::loading::prepare::parts::Error;
use crate::machine::kconfig::Kconfig;
use crate::machine::root::Root;
use crate::machine::{efi, processor, sys};
use crate::words::little_endian::{long, wide};

/// The running kernel's own boot parameters (Documentation/ABI/testing/sysfs-kernel-boot_params).
pub(super) const RUNNING: &str = efi::BOOT_PARAMETERS;

/// The value of an unknown address (`EFI_INVALID_TABLE_ADDR`, include/linux/efi.h).
const UNKNOWN: u64 = u64::MAX;

/// The running kernel's knowledge of the machine that the next one needs.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The running kernel's own boot parameters.
    pub(super) running: Vec<u8>,
    /// The firmware's memory map.
    pub(super) map: Vec<Entry>,
    pub(super) efi: Option<Efi>,
    /// The address of the root of the ACPI tables, or 0.
    pub(super) acpi: u64,
    /// Whether the running kernel uses five levels of page tables.
    pub(super) five_levels: bool,
    /// Notes for the user.
    pub(super) notes: Vec<String>,
}

/// The running kernel's knowledge of UEFI.
#[derive(Clone, Debug)]
pub(super) struct Efi {
    pub(super) map: Vec<Descriptor>,
    pub(super) vendor: u64,
    pub(super) runtime: u64,
    pub(super) tables: u64,
    pub(super) smbios: u64,
}

impl Machine {
    pub(super) fn read(root: &Root) -> Result<Machine, Error> {
        let unreadable = |error| Error::Unreadable { what: RUNNING.to_owned(), error };
        let mut running = fs::read(root.path(RUNNING)).map_err(unreadable)?;
        running.resize(field::LENGTH, 0);
        see_that_memory_is_plain(root, &running)?;
        let map = memory_map::of_firmware(root)?.ok_or_else(|| {
            Error::Unfit(
                "this kernel does not tell what its firmware said of memory (/sys/firmware/memmap, \
                 CONFIG_FIRMWARE_MEMMAP), and the next one has to be told; stage with --loader verified"
                    .to_owned(),
            )
        })?;
        let acpi = match wide(&running, field::ACPI) {
            0 => efi::acpi_root(root).and_then(|text| memory_map::hex(text.trim_ascii())).unwrap_or(0),
            known => known,
        };
        let (efi, note) = Efi::read(root, &running)?;
        Ok(Machine {
            map,
            efi,
            acpi,
            five_levels: processor::uses_five_levels(root),
            notes: note.into_iter().collect(),
            running,
        })
    }
}

impl Efi {
    /// Reads it as `kexec_file_load` does (`setup_efi_state`). If the running kernel does not use EFI's runtime
    /// services (efi=noruntime), the next one learns nothing of EFI except the address of the ACPI tables.
    fn read(root: &Root, running: &[u8]) -> Result<(Option<Efi>, Option<String>), Error> {
        const DIRECTORY: &str = "/sys/firmware/efi";
        if !root.path(DIRECTORY).is_dir() {
            return Ok((None, None));
        }
        let map = memory_map::of_efi(root)?;
        let had = long(running, field::EFI + 20) != 0;
        if map.is_empty() || !had {
            let note = "this kernel does not use UEFI's runtime, so the next one will know nothing of UEFI either: no \
                        efivars, but the ACPI tables, as with the kernel's own loader";
            return Ok((None, Some(note.to_owned())));
        }
        if root.fact("/sys/firmware/efi/fw_platform_size").as_deref() == Some("32") {
            return Err(Error::kernel(
                "the firmware is 32-bit UEFI, which no next kernel takes over; use `reboot`",
            ));
        }
        let address = |name: &str| {
            root.fact(&format!("{DIRECTORY}/{name}")).and_then(|text| memory_map::hex(text.trim_ascii()))
        };
        let systab = efi::table(root, "SMBIOS").and_then(|text| memory_map::hex(text.trim_ascii()));
        let efi = Efi {
            map,
            vendor: address("fw_vendor").unwrap_or(UNKNOWN),
            runtime: address("runtime").unwrap_or(0),
            tables: address("config_table").unwrap_or(UNKNOWN),
            smbios: systab.unwrap_or(UNKNOWN),
        };
        Ok((Some(efi), None))
    }
}

/// Refuses a machine with encrypted memory, because loading and jumping depend on the kind of encryption, and
/// `kexec_load` was never tried with it. A guest with encrypted memory is recognized by the processor's flags
/// (TDX), by the address of the data that its firmware left (SEV-SNP), and by CPUID 0x8000001f (SEV), which no
/// other guest sees.
fn see_that_memory_is_plain(root: &Root, running: &[u8]) -> Result<(), Error> {
    let flags = processor::flags(root);
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let line = cmdline::running(root).unwrap_or_default();
    let is_sev = || {
        root.is_system()
            && has("hypervisor")
            && sys::cpuid(0x8000_001f, 0).is_some_and(|[eax, ..]| eax & 2 != 0)
    };
    let is_sme = || match cmdline::value(&line, "mem_encrypt") {
        Some("on") => true,
        Some(_) => false,
        None => has("sme") && Kconfig::find(root).is_some_and(|k| k.has("AMD_MEM_ENCRYPT_ACTIVE_BY_DEFAULT")),
    };
    let kind = if has("tdx_guest") {
        "TDX"
    } else if long(running, field::CONFIDENTIAL) != 0 || is_sev() {
        "SEV"
    } else if is_sme() {
        "SME"
    } else {
        return Ok(());
    };
    Err(Error::Unfit(format!(
        "this machine's memory is encrypted ({kind}), which loading by segments was never tried with; stage with \
         --loader verified"
    )))
}
