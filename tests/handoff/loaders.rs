//! What systemd-boot would boot is what is staged: UEFI and systemd-boot itself start these machines.

use bed::cpio::Cpio;
use bed::guest::{Guest, Spec, Starts};
use bed::harness::Test;
use bed::machine::Scratch;
use std::fs;
use std::path::Path;

use crate::kexec::{hand_over, reboot};

/// Of Debian's package systemd-boot-efi.
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";

/// The entry that loader.conf means, by a pattern.
const CHOSEN: &str = "chosen-6.12.conf";
const CHOSEN_OPTIONS: &str = "root=LABEL=root rw console=ttyS0 bed.entry=chosen";
const CHOSEN_ENTRY: &str = "title The chosen one\nlinux /bed/linux\n\
    initrd /bed/initrd.img\ninitrd /bed/second.img\n\
    options root=LABEL=root rw\noptions console=ttyS0 bed.entry=chosen\n";

/// The first in the order of the menu.
const OTHER: &str = "other-9.conf";
const OTHER_OPTIONS: &str = "root=LABEL=root rw console=ttyS0 bed.entry=other";
const OTHER_ENTRY: &str = "title The other one\nlinux /bed/linux\ninitrd /bed/initrd.img\n\
    options root=LABEL=root rw console=ttyS0 bed.entry=other\n";

/// Debian's initramfs sources it when /dev is mounted, which goes along to the root.
const SECOND_INITRD: (&str, &str) = ("/conf/conf.d/bed", "echo here >/dev/second-initrd\n");

const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// A guest that systemd-boot started, its ESP at /efi.
fn boot(test: &Test) -> Result<Guest, String> {
    let scratch = Scratch::new()?;
    let esp = scratch.path("esp");
    let put = |path: &str, bytes: &[u8]| {
        let path = esp.join(path);
        let written =
            fs::create_dir_all(path.parent().unwrap_or(&esp)).and_then(|()| fs::write(&path, bytes));
        written.map_err(|e| format!("{}: {e}", path.display()))
    };
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    let image = test.image.files()?;
    let mut second = Cpio::default();
    second.file(SECOND_INITRD.0, 0o644, SECOND_INITRD.1.as_bytes());
    put("EFI/BOOT/BOOTX64.EFI", &read(Path::new(SYSTEMD_BOOT))?)?;
    put("loader/loader.conf", b"default chosen*\n")?;
    put(&format!("loader/entries/{CHOSEN}"), CHOSEN_ENTRY.as_bytes())?;
    put(&format!("loader/entries/{OTHER}"), OTHER_ENTRY.as_bytes())?;
    put("bed/linux", &read(&image.kernel())?)?;
    // systemd-boot 252 joins initrds without padding, and the kernel finds a second one at multiples of four.
    let mut initrd = read(&image.initrd())?;
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    put("bed/initrd.img", &initrd)?;
    put("bed/second.img", &second.finish())?;
    let mut guest = Guest::boot(&Spec { starts: Starts::Uefi(esp), ..Spec::new(test) })?;
    guest.ok("mkdir /efi && echo 'PARTLABEL=esp /efi vfat defaults 0 0' >>/etc/fstab && mount /efi")?;
    Ok(guest)
}

/// Proves which entry systemd-boot booted: by its own word, and by what the kernel was told.
fn booted(guest: &mut Guest, id: &str, options: &str) -> Result<(), String> {
    let selected =
        format!("cat /sys/firmware/efi/efivars/LoaderEntrySelected-{VENDOR} | tail -c +5 | tr -d '\\0'");
    let (selected, cmdline) = (guest.ok(&selected)?, guest.ok("cat /proc/cmdline")?);
    // Its initrds stand before the options.
    if selected == id && cmdline.trim_end().ends_with(options) && cmdline.starts_with("initrd=") {
        return Ok(());
    }
    Err(guest.tell(&format!("systemd-boot booted {selected:?}, not {id}: {cmdline:?}")))
}

/// Proves which entry is marked, and by what; and that only that one is.
fn marked(guest: &mut Guest, id: &str, by: &str) -> Result<(), String> {
    let json = guest.ok("nextkernel entries --json")?;
    let list: serde_json::Value = serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))?;
    let text = |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).map(str::to_owned);
    let rows = list.get("entries").and_then(|rows| rows.as_array()).cloned().unwrap_or_default();
    let marked = rows.iter().filter(|row| row.get("default") == Some(&true.into()));
    let marked: Vec<_> = marked.filter_map(|row| text(row.get("id"))).collect();
    let entries = rows.iter().filter(|row| text(row.get("source")).as_deref() == Some("bls")).count();
    let loader = text(list.get("loader")).unwrap_or_default();
    let why = text(list.get("default_by")).unwrap_or_default();
    if marked == [id] && entries == 2 && loader.starts_with("systemd-boot ") && why == by {
        return Ok(());
    }
    Err(guest.tell(&format!("marked is {marked:?}, not {id} by {by}:\n{json}")))
}

/// Proves what is staged without naming it, and returns what was said.
fn staged(guest: &mut Guest, options: &str) -> Result<String, String> {
    let said = guest.ok("nextkernel stage 2>&1")?;
    let plan = guest.ok("cat /run/nextkernel/plan")?;
    if plan.lines().any(|line| line == format!("cmdline = {options}")) {
        return Ok(said);
    }
    Err(guest.tell(&format!("staged is not {options:?}:\n{plan}")))
}

pub fn what_systemd_boot_booted_is_staged_and_arrives_with_all_its_initrds(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    booted(&mut guest, CHOSEN, CHOSEN_OPTIONS)?;
    guest.ok("cat /dev/second-initrd")?;
    marked(&mut guest, CHOSEN, "'default' in loader.conf")?;
    staged(&mut guest, CHOSEN_OPTIONS)?;
    let handoff = guest.ok("sed -n 's/^handoff = //p' /run/nextkernel/plan")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;

    let cmdline = guest.ok("cat /proc/cmdline")?;
    if cmdline.trim_end() != format!("{CHOSEN_OPTIONS} nextkernel.record={}:kexec", handoff.trim()) {
        return Err(guest.tell(&format!("the next kernel was told {cmdline:?}")));
    }
    guest.ok("cat /dev/second-initrd")?;
    // And again from there, where the boot loader never was.
    marked(&mut guest, CHOSEN, "'default' in loader.conf")
}

pub fn the_entry_that_is_marked_is_the_one_that_systemd_boot_boots_next(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    let once: String = CHOSEN.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).map(octal).collect();
    let once = format!(
        "printf '\\007\\000\\000\\000{once}' >/run/once && cat /run/once >/sys/firmware/efi/efivars/LoaderEntryOneShot-{VENDOR}"
    );
    let by_conf = "'default' in loader.conf";

    guest.ok("echo 'default other*' >/efi/loader/loader.conf")?;
    marked(&mut guest, OTHER, by_conf)?;
    staged(&mut guest, OTHER_OPTIONS)?;
    guest.ok("nextkernel unstage")?;
    reboot(&mut guest, "systemctl reboot")?;
    booted(&mut guest, OTHER, OTHER_OPTIONS)?;
    guest.ok("! cat /dev/second-initrd")?;

    guest.ok(&once)?;
    marked(&mut guest, CHOSEN, "LoaderEntryOneShot")?;
    let said = staged(&mut guest, CHOSEN_OPTIONS)?;
    if !said.contains("warning: that counts once") {
        return Err(guest.tell(&said));
    }
    guest.ok("nextkernel unstage")?;
    reboot(&mut guest, "systemctl reboot")?;
    booted(&mut guest, CHOSEN, CHOSEN_OPTIONS)?;
    // It is used up. Without a word in loader.conf, the first is booted.
    marked(&mut guest, OTHER, by_conf)?;
    guest.ok("rm /efi/loader/loader.conf")?;
    marked(&mut guest, OTHER, "the first in systemd-boot's order")?;
    reboot(&mut guest, "systemctl reboot")?;
    booted(&mut guest, OTHER, OTHER_OPTIONS)
}

/// A byte, as printf takes it.
fn octal(byte: u8) -> String {
    format!("\\{byte:03o}")
}
