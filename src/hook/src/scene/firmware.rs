//! Requests for the firmware, or for another entry of the boot loader, at this restart. If there is one, no
//! kernel may be started by kexec, whatever the verb: a loaded image makes systemd's own restart a kexec.

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

/// The parameter that `systemctl reboot --reboot-argument=` leaves for the firmware
/// (`update_reboot_parameter_and_warn`, src/shared/reboot-util.c).
const PARAMETER: &CStr = c"/run/systemd/reboot-param";

/// The file that `nextkernel reboot --full` leaves.
const FULL: &CStr = c"/run/nextkernel/firmware";

/// Exists on machines with UEFI. Its variables are mounted below (Documentation/filesystems/efivarfs.rst).
const FIRMWARE: &CStr = c"/sys/firmware/efi";
const VARIABLES: &CStr = c"/sys/firmware/efi/efivars";

/// The requests of `systemctl reboot --firmware-setup` and of capsule updates to the firmware (UEFI 2.10, 8.5.4
/// "Exchanging information between the OS and Firmware").
const INDICATIONS: &CStr = c"OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The entry of the firmware for the next start only (UEFI 2.10, 3.3; `efibootmgr --bootnext`, fwupd).
const BOOT_NEXT: &CStr = c"BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// The entry of the boot loader for the next start only, and the request to show its menu then (systemd's Boot
/// Loader Interface; `bootctl set-oneshot`, `systemctl reboot --boot-loader-menu=`).
const ONE_SHOT: &CStr = c"LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const MENU: &CStr = c"LoaderConfigTimeoutOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The name of a boot loader that understands these requests. Any other boot loader leaves them in place for
/// ever.
const INFO: &CStr = c"LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Size of the attributes, which precede a variable's value.
const ATTRIBUTES: usize = 4;

/// A request for the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareRequest {
    /// `nextkernel reboot --full`
    Full,
    /// A parameter for reboot(2).
    Parameter,
    /// The firmware's setup, or a capsule update.
    Indications,
    /// Another entry of the firmware.
    BootNext,
    /// Another entry of the boot loader.
    OneShot,
    /// The menu of the boot loader.
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

/// Returns the first request that speaks against a plan. Without a readable plan, it speaks against any loaded
/// image.
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
    let variables = files::directory(CWD, VARIABLES).ok()?;
    let mut buffer = [0; limits::VARIABLE_MAX];
    // A timeout of 0 also requests the menu, which then waits for ever.
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

/// Returns the value of a variable, if it exists and is not empty. A value that does not fit is cut.
fn value<'b>(variables: &OwnedFd, name: &CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let file = files::open(variables.as_fd(), name).ok()?;
    files::up_to(file, buffer).ok()?.get(ATTRIBUTES..).filter(|value| !value.is_empty())
}

/// Returns whether any bit of a value is set.
fn is_any_set(value: &[u8]) -> bool {
    value.iter().any(|byte| *byte != 0)
}

/// Returns whether a one-shot entry is the staged one, whose checksum is on the next kernel's command line.
fn is_staged_one(value: &[u8], plan: &Plan<'_>) -> bool {
    let staged = plan.cmdline.split(' ').find_map(|word| word.strip_prefix(ONCE)?.strip_prefix("=efi:"));
    let is = Text::<9>::of(format_args!("{:08x}", checksum(lower_case(value))));
    staged.is_some_and(|staged| is.as_c_str().is_some_and(|is| is.to_bytes() == staged.as_bytes()))
}

/// Decodes UTF-16 text up to its NUL. Returns it as UTF-8 in ASCII lower case, in which boot loaders compare
/// it.
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

/// Mounts the firmware's variables if they are missing: systemd before 254 takes /sys into an exitrd without
/// the mounts below it, and some inits never mount them. If they are mounted already, the kernel says EBUSY.
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

/// Returns the parameter that was left for the firmware, in the form that reboot(2) takes, in the caller's
/// buffer.
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
