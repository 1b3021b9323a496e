//! Tests that nextkernel stages the unified kernel image that systemd-boot would boot, including a profile and
//! an addon.

use bed::disk::uki;
use bed::guest::whole::Guest;
use bed::harness::Test;

use super::esp::{Esp, says};
use super::loader::Next;

const BASE: Next = Next { id: "bed.efi", by: "the first in systemd-boot's order", word: "bed.profile=base" };
const SECOND: Next =
    Next { id: "bed.efi@second", by: "'default' in loader.conf", word: "bed.profile=second" };
const ONCE: &str = "LoaderEntryOneShot";

/// Proves that every part of the image is in this system: the addon's parameters, and each of its initrds, in
/// order.
fn is_whole(guest: &mut Guest) -> Result<(), String> {
    guest.ok(&format!("grep -w {} /proc/cmdline", uki::ADDON))?;
    guest
        .ok("[ \"$(cat /dev/initrd-of-bed)\" = second ] && [ \"$(cat /dev/ucode-of-bed)\" = here ]")
        .map(drop)
}

pub fn what_is_marked_is_the_profile_of_an_image_that_systemd_boot_boots(test: &Test) -> Result<(), String> {
    let (esp, made) = (Esp::new(test)?, uki::directory(test.image)?);
    esp.put("loader/loader.conf", "timeout 0\n")?;
    esp.copy("EFI/Linux/bed.efi", &made.join("bed.efi"))?;
    esp.copy("EFI/Linux/bed.efi.extra.d/bed.addon.efi", &made.join("bed.addon.efi"))?;
    let mut guest = esp.boot(test)?;
    BASE.is_running(&mut guest)?;
    BASE.is_marked(&mut guest)?;
    is_whole(&mut guest)?;

    guest.ok("echo 'default bed*@second' >/efi/loader/loader.conf")?;
    SECOND.jumps(&mut guest)?;
    is_whole(&mut guest)?;
    SECOND.boots(&mut guest)?;
    is_whole(&mut guest)?;
    let selected = says(&mut guest, "LoaderEntrySelected")?;
    if selected != SECOND.id {
        return Err(guest.tell(&format!("systemd-boot booted {selected:?}")));
    }

    let once = Next { by: ONCE, ..BASE };
    guest.ok("bootctl set-oneshot bed.efi")?;
    once.boots(&mut guest)?;
    SECOND.is_marked(&mut guest)
}
