//! Tests that nextkernel stages the entry that systemd-boot would boot: UEFI and systemd-boot itself start these
//! machines.

use bed::guest::kexec_tools;
use bed::guest::whole::Guest;
use bed::harness::Test;
use bed::image::Image;
use bed::initramfs::cpio::Cpio;

use super::esp::{Esp, is_gone, read, says, set};
use super::kexec::wait_until;
use super::loader::Next;

/// The entry that loader.conf selects by a pattern.
const CHOSEN_ENTRY: &str = "title The chosen one\nlinux /bed/linux\n\
    initrd /bed/initrd.img\ninitrd /bed/second.img\n\
    options root=LABEL=root rw\noptions console=ttyS0 bed.entry=chosen\n";

/// The first entry in the order of the menu.
const OTHER_ENTRY: &str = "title The other one\nlinux /bed/linux\ninitrd /bed/initrd.img\n\
    options root=LABEL=root rw console=ttyS0 bed.entry=other\n";

const BY_CONF: &str = "'default' in loader.conf";
const CHOSEN: Next = Next { id: "chosen-6.12.conf", by: BY_CONF, word: "bed.entry=chosen" };
const OTHER: Next = Next { id: "other-9.conf", by: BY_CONF, word: "bed.entry=other" };
const ONCE: &str = "LoaderEntryOneShot";
const FIRST: &str = "the first in systemd-boot's order";

/// Debian's initramfs sources this file when /dev is mounted, and /dev is moved to the root.
const SECOND_INITRD: (&str, &str) = ("/conf/conf.d/bed", "echo here >/dev/second-initrd\n");

fn esp(test: &Test) -> Result<Esp, String> {
    let (esp, image) = (Esp::new(test)?, test.image.files()?);
    let mut second = Cpio::default();
    second.file(SECOND_INITRD.0, 0o644, SECOND_INITRD.1.as_bytes());
    esp.put("loader/loader.conf", "default chosen*\n")?;
    esp.put(&format!("loader/entries/{}", CHOSEN.id), CHOSEN_ENTRY)?;
    esp.put(&format!("loader/entries/{}", OTHER.id), OTHER_ENTRY)?;
    esp.copy("bed/linux", &image.kernel())?;
    // systemd-boot 252 joins initrds without padding, and the kernel finds a second one only at a multiple of
    // four.
    let mut initrd = read(&image.initrd())?;
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    esp.put("bed/initrd.img", initrd)?;
    esp.put("bed/second.img", second.finish())?;
    Ok(esp)
}

/// Proves which entry systemd-boot booted, by its EFI variable and by the kernel's command line.
fn booted(guest: &mut Guest, next: &Next) -> Result<(), String> {
    let selected = says(guest, "LoaderEntrySelected")?;
    if selected != next.id {
        return Err(guest.tell(&format!("systemd-boot booted {selected:?}, not {}", next.id)));
    }
    next.is_running(guest)
}

pub fn an_entry_with_two_initrds_that_systemctl_refuses_is_staged_and_arrives(
    test: &Test,
) -> Result<(), String> {
    let esp = esp(test)?;
    esp.put("bed/kexec-tools.tar", kexec_tools::archive(test.image)?)?;
    let mut guest = esp.boot(test)?;
    booted(&mut guest, &CHOSEN)?;
    guest.ok("cat /dev/second-initrd")?;
    // systemd looks for an entry itself only if kexec-tools is installed, whichever program then loads the
    // kernel.
    guest.ok("tar -xf /efi/bed/kexec-tools.tar -C / && kexec --version")?;
    let refused = guest.run("systemctl kexec 2>&1")?;
    if refused.status == 0 || !refused.output.contains("multiple initrds, which is not supported") {
        return Err(guest.tell(&format!("systemctl kexec: {refused:?}")));
    }
    CHOSEN.jumps(&mut guest)?;
    guest.ok("cat /dev/second-initrd")?;
    // The same entry must be marked after the jump, which bypassed the boot loader.
    CHOSEN.is_marked(&mut guest)
}

pub fn what_is_marked_is_what_systemd_boot_boots_by_default_once_and_past_one_counted_bad(
    test: &Test,
) -> Result<(), String> {
    // Debian 12 has another version of systemd-boot. Only the staged entry is compared with the one systemd-boot
    // boots there; the handoff is the same as on Debian 13.
    let jumps = test.image == Image::Debian13;
    let mut guest = esp(test)?.boot(test)?;
    booted(&mut guest, &CHOSEN)?;
    guest.ok("echo 'default other*' >/efi/loader/loader.conf")?;
    if jumps {
        OTHER.jumps(&mut guest)?;
        guest.ok("! cat /dev/second-initrd")?;
    }
    OTHER.boots(&mut guest)?;
    booted(&mut guest, &OTHER)?;

    let once = Next { by: ONCE, ..CHOSEN };
    guest.ok(&set(ONCE, CHOSEN.id))?;
    if jumps {
        let said = once.jumps(&mut guest)?;
        if !said.contains("that counts once") {
            return Err(guest.tell(&said));
        }
        wait_until(&mut guest, &is_gone(ONCE))?;
        OTHER.is_marked(&mut guest)?;
        guest.ok(&set(ONCE, CHOSEN.id))?;
    }
    once.boots(&mut guest)?;
    booted(&mut guest, &CHOSEN)?;
    OTHER.is_marked(&mut guest)?;

    guest.ok("rm /efi/loader/loader.conf")?;
    Next { by: FIRST, ..OTHER }.is_marked(&mut guest)?;
    guest.ok("cd /efi/loader/entries && mv other-9.conf other-9+0-3.conf")?;
    let chosen = Next { by: FIRST, ..CHOSEN };
    chosen.boots(&mut guest)?;
    booted(&mut guest, &chosen)
}
