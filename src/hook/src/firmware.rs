//! Does somebody want the firmware at this reboot? Then it is no kernel's to start.

use core::ffi::CStr;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::{files, limits};

/// What `systemctl reboot --reboot-argument=` leaves for the firmware (`update_reboot_parameter_and_warn`,
/// src/shared/reboot-util.c).
const PARAMETER: &CStr = c"/run/systemd/reboot-param";

/// What `systemctl reboot --firmware-setup` and capsule updates ask of the firmware (UEFI 2.10, 8.5.4
/// "Exchanging information between the OS and Firmware").
const INDICATIONS: &CStr = c"/sys/firmware/efi/efivars/OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Whether this reboot is meant for the firmware.
#[must_use]
pub fn is_wanted() -> bool {
    let parameter = openat(CWD, PARAMETER, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).is_ok();
    let mut variable = [0; 12];
    let indications = files::open(CWD, INDICATIONS).and_then(|file| files::up_to(&file, &mut variable));
    parameter || indications.is_ok_and(asks)
}

/// What is left for the firmware, as reboot(2) takes it, in a buffer of the caller's.
pub fn parameter(buffer: &mut [u8; limits::PARAMETER_MAX]) -> Option<&CStr> {
    let (last, room) = buffer.split_last_mut()?;
    *last = 0;
    let length = files::up_to(files::open(CWD, PARAMETER).ok()?, room).ok()?.trim_ascii_end().len();
    *buffer.get_mut(length)? = 0;
    CStr::from_bytes_until_nul(buffer).ok().filter(|parameter| !parameter.is_empty())
}

/// An efivarfs file: four bytes of attributes, then the value (Documentation/filesystems/efivarfs.rst).
fn asks(variable: &[u8]) -> bool {
    variable.iter().skip(4).any(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_indication_asks_for_the_firmware() {
        assert!(asks(&[7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
        assert!(asks(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128]));
        assert!(!asks(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!asks(&[7, 0, 0, 0]));
        assert!(!asks(&[]));
    }
}
