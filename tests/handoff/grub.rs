//! Tests that nextkernel stages the entry that GRUB would boot: a BIOS or UEFI and GRUB itself start these
//! machines.

use bed::guest::bios;
use bed::guest::whole::{Guest, Spec, Starts};
use bed::harness::Test;
use bed::image::Image;

use super::esp::Esp;
use super::kexec::wait_until;
use super::loader::{self, Next};

/// A word on the command line of every entry except those of the recovery mode.
const PLAIN: &str = "bed.entry=plain";
/// A word on the command line of the recovery mode's entries.
const RECOVERY: &str = "single";

const NOTHING_ONCE: &str = "! grub-editenv list | grep next_entry=.";

pub fn what_is_marked_is_what_grub_boots_from_a_submenu_and_once(test: &Test) -> Result<(), String> {
    // Debian 12 has another version of GRUB. Only the staged entry is compared with the one GRUB boots there;
    // the handoff is the same as on Debian 13.
    let jumps = test.image == Image::Debian13SeparateBoot;
    let disk = bios::grub(test.image)?;
    let mut guest = Guest::boot(&Spec { starts: Starts::Bios(disk), ..Spec::new(test) })?;
    let (simple, recovery) = ids(&mut guest)?;
    let first = Next { id: &simple, by: "the first in GRUB's menu", word: PLAIN };
    let saved = Next { id: &recovery, by: "saved_entry in grubenv", word: RECOVERY };
    let once = Next { id: &simple, by: "next_entry in grubenv", word: PLAIN };
    first.is_running(&mut guest)?;
    first.is_marked(&mut guest)?;

    guest.ok(&format!("grub-set-default '{recovery}'"))?;
    // If GRUB's partition is not mounted, nextkernel reads it all the same, and leaves it unmounted.
    guest.ok("umount /boot")?;
    if jumps {
        saved.jumps(&mut guest)?;
        guest.ok("umount /boot")?;
    }
    saved.is_marked(&mut guest)?;
    guest.ok("! mountpoint -q /boot && mount /boot")?;
    saved.boots(&mut guest)?;

    guest.ok("grub-reboot 'Debian GNU/Linux'")?;
    if jumps {
        let said = once.jumps(&mut guest)?;
        if !said.contains("that counts once") {
            return Err(guest.tell(&said));
        }
        wait_until(&mut guest, NOTHING_ONCE)?;
        saved.is_marked(&mut guest)?;
        guest.ok("grub-reboot 0")?;
    }
    once.boots(&mut guest)?;
    guest.ok(NOTHING_ONCE)?;
    saved.is_marked(&mut guest)
}

/// Returns the ids of the menu's first entry and of one in its submenu.
fn ids(guest: &mut Guest) -> Result<(String, String), String> {
    let root = guest.ok("sed -n \"s/.*'gnulinux-simple-\\([^']*\\)'.*/\\1/p\" /boot/grub/grub.cfg")?;
    let (root, release) = (root.trim(), &guest.boot.release);
    Ok((
        format!("gnulinux-simple-{root}"),
        format!("gnulinux-advanced-{root}>gnulinux-{release}-recovery-{root}"),
    ))
}

/// Does the rest of grub-install's work, and makes the menu. The last unit wins, so that the recovery mode's
/// `single` has no effect.
const MENU: &str = "set -e
    cat /usr/share/grub/default/grub - >/etc/default/grub <<'END'
GRUB_DEFAULT=saved
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_CMDLINE_LINUX_DEFAULT=bed.entry=plain
GRUB_CMDLINE_LINUX='rw console=ttyS0 systemd.unit=multi-user.target'
END
    mkdir /boot/grub
    grub-editenv /boot/grub/grubenv create
    update-grub
    [ -e /sys/firmware/efi/efivars/BootCurrent-* ]";

pub fn what_is_marked_is_what_debians_grub_boots_under_uefi(test: &Test) -> Result<(), String> {
    let mut guest = Esp::grub(test)?.boot_from_root(test)?;
    guest.ok(MENU)?;
    let (simple, recovery) = ids(&mut guest)?;
    let first = Next { id: &simple, by: "the first in GRUB's menu", word: PLAIN };
    let saved = Next { id: &recovery, by: "saved_entry in grubenv", word: RECOVERY };
    let once = Next { id: &simple, by: "next_entry in grubenv", word: PLAIN };
    first.is_marked(&mut guest)?;
    // Shell completion runs this command.
    guest.ok("nextkernel entries --names | grep -Fx \"$(printf '0\\tDebian GNU/Linux')\"")?;
    let list = loader::entries(&mut guest)?;
    if loader::text(&list, "loader") != Some("GRUB, with /boot/grub/grub.cfg") {
        return Err(guest.tell(&format!("it is not found out that GRUB is the boot loader: {list:#}")));
    }

    guest.ok(&format!("grub-set-default '{recovery}'"))?;
    saved.boots(&mut guest)?;
    saved.jumps(&mut guest)?;
    // Another property, under a BIOS, shows that a jump also consumes a one-shot entry.
    guest.ok("grub-reboot 'Debian GNU/Linux'")?;
    once.boots(&mut guest)?;
    guest.ok(NOTHING_ONCE)?;
    saved.is_marked(&mut guest)
}
