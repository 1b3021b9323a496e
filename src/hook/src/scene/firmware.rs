//! Does somebody want the firmware at this restart, or another entry of the boot loader's? Then it is no kernel's to start,
//! whatever the verb: an image that is loaded makes systemd's own restart a kexec.

use core::ffi::CStr;
use core::fmt;

use nextkernel_plan::{ONCE, Plan, checksum};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::sys::errno::Named;
use crate::sys::say::warn;
use crate::sys::text::Text;
use crate::sys::{files, limits};

/// What `systemctl reboot --reboot-argument=` leaves for the firmware (`update_reboot_parameter_and_warn`,
/// src/shared/reboot-util.c).
const PARAMETER: &CStr = c"/run/systemd/reboot-param";

/// What `nextkernel reboot --full` leaves.
const FULL: &CStr = c"/run/nextkernel/firmware";

/// It is there on machines with UEFI, and where their variables are seen (Documentation/filesystems/efivarfs.rst).
const FIRMWARE: &CStr = c"/sys/firmware/efi";
const VARIABLES: &CStr = c"/sys/firmware/efi/efivars";

/// What `systemctl reboot --firmware-setup` and capsule updates ask of the firmware (UEFI 2.10, 8.5.4
/// "Exchanging information between the OS and Firmware").
const INDICATIONS: &CStr = c"OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The entry of the firmware's that it starts next, once (UEFI 2.10, 3.3; `efibootmgr --bootnext`, fwupd).
const BOOT_NEXT: &CStr = c"BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The entry of the boot loader's that it starts next, once, and whether it shows its menu then (systemd's Boot Loader
/// Interface; `bootctl set-oneshot`, `systemctl reboot --boot-loader-menu=`).
const ONE_SHOT: &CStr = c"LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const MENU: &CStr = c"LoaderConfigTimeoutOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What a boot loader that knows these calls itself: one that does not leaves them for ever.
const INFO: &CStr = c"LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Before its value a variable has attributes.
const ATTRIBUTES: usize = 4;

/// Who asks for the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareRequest {
    /// `nextkernel reboot --full`
    Full,
    /// A parameter for reboot(2).
    Parameter,
    /// The firmware's setup, or a capsule.
    Indications,
    /// Another of the firmware's entries.
    BootNext,
    /// Another of the boot loader's entries.
    OneShot,
    /// Its menu.
    Menu,
}

impl fmt::Display for FirmwareRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            FirmwareRequest::Full => "/run/nextkernel/firmware",
            FirmwareRequest::Parameter => "/run/systemd/reboot-param",
            FirmwareRequest::Indications => "OsIndications",
            FirmwareRequest::BootNext => "BootNext",
            FirmwareRequest::OneShot => "LoaderEntryOneShot",
            FirmwareRequest::Menu => "LoaderConfigTimeoutOneShot",
        })
    }
}

/// The first request that there is against a plan; where none can be read, against whatever may be loaded.
#[must_use]
pub fn request(plan: Option<&Plan<'_>>) -> Option<FirmwareRequest> {
    if files::exists(FULL) {
        return Some(FirmwareRequest::Full);
    }
    if files::exists(PARAMETER) {
        return Some(FirmwareRequest::Parameter);
    }
    if plan.is_some_and(|plan| plan.passes_firmware_over) {
        return None;
    }
    let variables = files::folder(CWD, VARIABLES).ok()?;
    let mut buffer = [0; limits::VARIABLE_MAX];
    // A menu's time of 0 asks for one, too, which waits for ever.
    let is_other = |value: &[u8]| is_any_set(value) && !plan.is_some_and(|plan| is_staged_one(value, plan));
    let mut says =
        |name, asks: &dyn Fn(&[u8]) -> bool| value(&variables, name, &mut buffer).is_some_and(asks);
    if says(INDICATIONS, &is_any_set) {
        Some(FirmwareRequest::Indications)
    } else if says(BOOT_NEXT, &|_| true) {
        Some(FirmwareRequest::BootNext)
    } else if says(MENU, &is_any_set) && says(INFO, &|_| true) {
        Some(FirmwareRequest::Menu)
    } else if says(ONE_SHOT, &is_other) && says(INFO, &|_| true) {
        Some(FirmwareRequest::OneShot)
    } else {
        None
    }
}

/// What a variable holds, where it is there and holds anything. What does not fit is cut off.
fn value<'b>(variables: &OwnedFd, name: &CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let file = files::open(variables.as_fd(), name).ok()?;
    files::up_to(file, buffer).ok()?.get(ATTRIBUTES..).filter(|value| !value.is_empty())
}

/// Whether anything in it is set.
fn is_any_set(value: &[u8]) -> bool {
    value.iter().any(|byte| *byte != 0)
}

/// Whether a one-shot entry is the one that is staged, whose checksum stands on the next kernel's line.
fn is_staged_one(value: &[u8], plan: &Plan<'_>) -> bool {
    let staged = plan.cmdline.split(' ').find_map(|word| word.strip_prefix(ONCE)?.strip_prefix("=efi:"));
    let is = Text::<9>::of(format_args!("{:08x}", checksum(lower_case(value))));
    staged.is_some_and(|staged| is.as_c_str().is_some_and(|is| is.to_bytes() == staged.as_bytes()))
}

/// A text of UTF-16 up to its NUL, in lower case as boot loaders compare, as UTF-8.
fn lower_case(value: &[u8]) -> impl Iterator<Item = u8> {
    let units = value
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| (unit << 8) | u16::from(*byte)));
    let characters = char::decode_utf16(units.take_while(|unit| *unit != 0));
    characters.flat_map(|character| {
        let mut bytes = [0; 4];
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER).to_ascii_lowercase();
        let length = character.encode_utf8(&mut bytes).len();
        bytes.into_iter().take(length)
    })
}

/// Mounts the firmware's variables where they are missing: systemd before 254 takes /sys into an exitrd without what is
/// mounted in it, and some inits never mount them. Where they are there the kernel answers EBUSY.
pub fn mount_variables() {
    if !files::exists(FIRMWARE) {
        return;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount(c"efivarfs", VARIABLES, c"efivarfs", flags, None) {
        Ok(()) | Err(Errno::BUSY) => {}
        Err(errno) => warn!("who asks for the firmware in its variables is not known: {}", Named(errno)),
    }
}

/// What is left for the firmware, as reboot(2) takes it, in a buffer of the caller's.
pub fn parameter(buffer: &mut [u8; limits::PARAMETER_MAX]) -> Option<&CStr> {
    let (last, room) = buffer.split_last_mut()?;
    *last = 0;
    let length = files::up_to(files::open(CWD, PARAMETER).ok()?, room).ok()?.trim_ascii_end().len();
    *buffer.get_mut(length)? = 0;
    CStr::from_bytes_until_nul(buffer).ok().filter(|parameter| !parameter.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nextkernel_plan::{HandoffId, Image};
    use std::format;
    use std::vec::Vec;

    #[test]
    fn any_indication_asks_for_the_firmware() {
        assert!(is_any_set(&[1, 0, 0, 0, 0, 0, 0, 0]) && is_any_set(&[0, 0, 0, 0, 0, 0, 0, 128]));
        assert!(!is_any_set(&[0; 8]));
    }

    fn text(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn a_one_shot_entry_is_the_staged_one_where_its_checksum_is_on_the_line() {
        let sum = checksum("arch-\u{e9}.conf".bytes());
        let kernel = Image { name: "k", size: 1, stamp: None };
        let is =
            |line: &str, name: &str| is_staged_one(&text(name), &Plan::bare(HandoffId(1), "x", kernel, line));
        let line = format!("root=x {ONCE}=efi:{sum:08x} -- single");
        assert!(is(&line, "arch-\u{e9}.conf") && is(&line, "Arch-\u{e9}.CONF"));
        assert!(!is(&line, "other.conf") && !is("root=x", "arch-\u{e9}.conf"));
        assert!(!is(&format!("{ONCE}=grub:{sum:08x}"), "arch-\u{e9}.conf"));
    }
}
