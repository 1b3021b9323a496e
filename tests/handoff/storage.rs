//! Tests roots on storage that has to be closed, which the hook does in our own exitrd. The system call that
//! starts the next kernel makes no difference here, and `kexec_load` is the quicker one.

use bed::disk::dracut;
use bed::disk::storage::Storage;
use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::host::scratch::Scratch;
use bed::machine::End;
use std::fs;
use std::process::Command;

use super::kexec::{SYSTEMDS_JUMP, hand_over, hand_over_by, jump};

/// The hook's message when the old root is closed, before it changes anything for the handoff.
const CLOSED: &str = "the old root is closed";

/// Fills our exitrd. Debian's /run is noexec, so that the exitrd needs its own mount.
const EXITRD: &str = "findmnt -n -o OPTIONS /run | grep -q noexec && nextkernel exitrd";

fn boot(test: &Test, storage: Storage, root: &str) -> Result<Guest, String> {
    let mut guest = Guest::boot(&Spec { disks: Some(storage.disks()?), ..Spec::new(test) })?;
    let on = guest.ok("findmnt -n -o SOURCE,FSTYPE /")?;
    if on.split_whitespace().collect::<Vec<_>>().join(" ") == root {
        return Ok(guest);
    }
    Err(guest.tell(&format!("the root lies on {on}")))
}

pub fn a_root_in_luks_on_lvm_is_closed_before_the_jump_and_at_reboot(test: &Test) -> Result<(), String> {
    let root = "/dev/mapper/cryptroot ext4";
    let mut guest = boot(test, Storage::Luks, root)?;
    guest.ok("nextkernel stage --loader direct")?;
    jump(&mut guest, "systemctl kexec", "kexec")?;
    let console = guest.console();
    if !console.contains("nextkernel: there is no exitrd: / stays mounted read-only")
        || console.contains(CLOSED)
    {
        return Err(guest.tell("without an exitrd it is not told what stays open"));
    }
    drop(guest);
    let mut guest = boot(test, Storage::Luks, root)?;

    let acts =
        ["unmount /oldroot", "remove mapped device dm-", "remove mapped device dm-0 (bed-root)", CLOSED];
    guest.ok(EXITRD)?;
    guest.ok("nextkernel stage --loader direct")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;
    closed(&guest, &acts)?;

    guest.ok(EXITRD)?;
    guest.send("systemctl reboot")?;
    await_all(&mut guest, &acts)?;
    guest.await_console("nextkernel: as PID 1: restart through firmware")?;
    guest.await_reset()
}

pub fn a_root_on_a_mirror_is_closed_before_the_jump_and_at_halt(test: &Test) -> Result<(), String> {
    let guest = boot(test, Storage::Md, "/dev/md0 ext4")?;
    jump_and_end(guest, &["unmount /oldroot", "stop array md0", CLOSED], "halt", "halt", End::Halted)
}

pub fn a_root_on_btrfs_is_closed_before_the_jump_and_at_poweroff(test: &Test) -> Result<(), String> {
    let mut guest = boot(test, Storage::Btrfs, "/dev/vda btrfs")?;
    // `snapper rollback` leaves the file system in this state.
    guest.ok("btrfs subvolume create /other && btrfs subvolume set-default /other")?;
    let other = guest.run("nextkernel stage 2>&1")?;
    if other.status != 1
        || !other.output.contains("is in the subvolume 5, which runs now, and the next restart takes")
    {
        return Err(guest.tell(&other.output));
    }
    guest.ok("btrfs subvolume set-default 5 / && btrfs subvolume delete /other")?;
    jump_and_end(guest, &["unmount /oldroot", CLOSED], "poweroff", "power off", End::PoweredOff)
}

pub fn a_root_in_luks_on_lvm_is_closed_in_dracuts_exitrd(test: &Test) -> Result<(), String> {
    let usual = Spec::new(test);
    let installed = usual.installed.clone().unwrap_or_default();
    let hook = installed.join("usr/lib/systemd/system-shutdown/nextkernel");
    let scratch = Scratch::new()?;
    let made = scratch.path("made");
    fs::create_dir(&made).map_err(|e| format!("{}: {e}", made.display()))?;
    let disks = dracut::initrd(&hook, &made)?;
    // dracut unpacks its initrd again from this path at shutdown.
    let copy = scratch.path("installed");
    let there = copy.join("usr/lib/modules").join(test.image.files()?.release()?);
    let copied = Command::new("cp").arg("-a").arg(&installed).arg(&copy).status();
    copied
        .and_then(|_| fs::create_dir_all(&there))
        .and_then(|()| fs::copy(&disks.initrd, there.join("initrd")))
        .map_err(|e| format!("{}: {e}", copy.display()))?;

    let mut guest = Guest::boot(&Spec { disks: Some(disks), installed: Some(copy), ..usual })?;
    guest.ok("findmnt -n -o SOURCE / | grep -x /dev/mapper/cryptroot && ls /run/initramfs/.need_shutdown")?;
    guest.ok(
        "nextkernel stage --loader direct --kernel /vmlinuz --initrd /usr/lib/modules/$(uname -r)/initrd --reuse-cmdline",
    )?;
    jump(&mut guest, "systemctl kexec", "kexec")?;
    let console = guest.console();
    let jump = console.rfind("nextkernel: jump to ").unwrap_or_default();
    let mut rest = console.get(..jump).unwrap_or_default();
    let lines = ["left to the hook in the exitrd", "EXT4-fs (dm-1): unmounting filesystem", CLOSED];
    for line in lines {
        rest = rest.split_once(line).ok_or_else(|| guest.tell(&format!("{line:?} is missing or late")))?.1;
    }
    Ok(())
}

pub fn where_the_plan_says_so_the_jump_is_systemds_and_in_our_exitrd_a_plain_root_is_closed(
    test: &Test,
) -> Result<(), String> {
    let mut guest = super::kexec::boot(test)?;
    guest.ok("echo 'jump = init' >/etc/nextkernel.conf; nextkernel stage")?;
    hand_over_by(&mut guest, "systemctl kexec", "kexec", SYSTEMDS_JUMP)?;
    let console = guest.console();
    if console.contains("nextkernel: jump to ") {
        return Err(guest.tell("the hook jumped itself"));
    }

    // Our exitrd contains no systemd.
    guest.ok("rm /etc/nextkernel.conf")?;
    guest.ok(EXITRD)?;
    guest.ok("nextkernel stage --loader direct")?;
    jump(&mut guest, "systemctl kexec", "kexec")?;
    closed(&guest, &["unmount /oldroot", CLOSED])
}

fn jump_and_end(mut guest: Guest, acts: &[&str], verb: &str, said: &str, end: End) -> Result<(), String> {
    let theirs = guest.run("touch /run/initramfs/shutdown; nextkernel exitrd 2>&1")?;
    if theirs.status != 1 || !theirs.output.contains("/run/initramfs is somebody else's: ") {
        return Err(guest.tell(&theirs.output));
    }
    guest.ok("rm /run/initramfs/shutdown")?;
    guest.ok(EXITRD)?;
    guest.ok("nextkernel stage --loader direct")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;
    closed(&guest, acts)?;

    guest.ok(EXITRD)?;
    guest.ok("nextkernel stage --loader direct --on kexec --on reboot")?;
    guest.send(&format!("systemctl {verb}"))?;
    await_all(&mut guest, acts)?;
    guest.await_console(&format!("nextkernel: as PID 1: {said}"))?;
    let ended = guest.await_off()?;
    if ended == end { Ok(()) } else { Err(guest.tell(&format!("{verb}: {ended:?}"))) }
}

/// Proves that the console shows these texts, in order, before the last jump, and that nothing was left open.
fn closed(guest: &Guest, acts: &[&str]) -> Result<(), String> {
    let console = guest.console();
    let jump = console.rfind("nextkernel: jump to ").unwrap_or_default();
    let mut rest = console.get(..jump).unwrap_or_default();
    for act in acts {
        let line = format!("nextkernel: {act}");
        rest = rest.split_once(&line).ok_or_else(|| guest.tell(&format!("{line:?} is missing or late")))?.1;
    }
    if console.contains("storage is not closed") {
        return Err(guest.tell("something was left open"));
    }
    Ok(())
}

fn await_all(guest: &mut Guest, acts: &[&str]) -> Result<(), String> {
    acts.iter().try_for_each(|act| guest.await_console(&format!("nextkernel: {act}")).map(drop))
}
