//! Tests Debian's own GPU drivers on QEMU's cards, each with a console on it. The next kernel must get the card;
//! a picture of its screen shows that.

use super::staged::{HOOK, handed_over, plan, rebooted, shutdown, stage, systemd_jumped_itself};
use bed::guest::shutdown::{Boots, Ended, Shutdown};
use bed::harness::Test;
use bed::host::programs;
use bed::initramfs;
use bed::initramfs::modules::Modules;
use bed::machine::End;

/// The next kernel's system: claims the card again, and requests the picture when the screen is white. The
/// driver draws written text a moment later.
const NEXT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
read -r cmdline </proc/cmdline
echo \"NEXT KERNEL UP: $cmdline\" >/dev/kmsg
. /next
tr '\\0' '\\377' </dev/zero >/dev/fb0
sleep 2
echo PAINTED
read -r seen </dev/ttyS1
poweroff -f
";

/// Prints HELD if the driver is in use and cannot simply be unloaded.
const IS_IT_HELD: &str = "lsmod | awk '$1 == ENVIRON[\"DRIVER\"] && $3 != 0 { print \"HELD\" }'\n";

/// A card of QEMU and its driver.
struct Card {
    driver: &'static str,
    /// Module parameters for the driver, in both kernels.
    parameters: &'static str,
    qemu: [&'static str; 2],
}

const BOCHS: Card = Card { driver: "bochs", parameters: "", qemu: ["-vga", "std"] };
const VIRTIO_GPU: Card = Card { driver: "virtio_gpu", parameters: "", qemu: ["-vga", "virtio"] };
const CIRRUSFB: Card =
    // By default this driver takes a palette mode, in which this white is black.
    Card { driver: "cirrusfb", parameters: "mode_option=640x480-16", qemu: ["-vga", "cirrus"] };

/// Returns a guest with a console on the card and a staged kernel, with more shell lines before and after
/// staging.
fn driven(test: &Test, card: &Card, before: &str, options: &str, after: &str) -> Result<Shutdown, String> {
    let Card { driver, parameters, qemu } = card;
    let load = format!("modprobe {driver} {parameters}\n");
    let scenario = format!("export DRIVER={driver}\n{load}{before}");
    let options = format!("--initrd /driver.cpio {options}");
    let mut guest = shutdown(test, "kexec", &(scenario + &stage(&options) + after))?;
    let modules = Modules::of(&test.image.files()?, &[driver])?;
    let mut next = initramfs::with_busybox(NEXT)?;
    next.directory("sys");
    next.file("/next", 0o644, load.as_bytes());
    modules.put(&mut next);
    guest.modules(&modules).file("/driver.cpio", 0o644, next.finish());
    guest.file("/usr/bin/holder", 0o755, programs::holder()?);
    guest.qemu = qemu.map(str::to_owned).into();
    guest.real = true;
    // Programs write to the last console.
    guest.append = "console=tty0 console=ttyS0".into();
    Ok(guest)
}

/// Returns the device that the console last switched to between two lines of the kernel log.
fn console_between(ended: &Ended, from: &str, to: &str) -> Option<String> {
    let said = ended.console.split_once(from)?.1.split_once(to)?.0;
    let line = said.lines().rfind(|line| line.contains("] Console: switching to "))?;
    Some(line.split_once("switching to ")?.1.trim_end().to_owned())
}

/// Proves that the console was on the card, and that the next kernel came by the hook's own load and got the
/// card.
fn arrives(guest: Shutdown) -> Result<Ended, String> {
    let (ended, picture) = guest.run_with_picture("PAINTED")?;
    handed_over(&ended, "kexec")?;
    match console_between(&ended, "Run /init", "nextkernel: ") {
        Some(console) if console.contains("frame buffer device") => {}
        console => return Err(format!("the console was on {console:?}")),
    }
    // A cursor or a late message may cover part of the screen.
    if picture.white * 10 > picture.pixels * 9 {
        return Ok(ended);
    }
    Err(format!("the next kernel's screen: {picture:?}\n{}", ended.console))
}

/// Proves that the driver was unloaded: the hook announces it, and the kernel reports that the console has left
/// the card.
fn unloaded(ended: &Ended, card: &Card) -> Result<(), String> {
    let unload = format!("nextkernel: unload {}\r", card.driver);
    match console_between(ended, &unload, "nextkernel: jump to ") {
        Some(console) if !console.contains("frame buffer device") => Ok(()),
        console => Err(format!("the console went to {console:?}:\n{}", ended.console)),
    }
}

/// Proves that the hook ends whatever holds the driver, unloads the driver and hands over.
fn freed(test: &Test, card: &Card, hold: &str) -> Result<Ended, String> {
    let ended = arrives(driven(test, card, &format!("{hold}\n{IS_IT_HELD}"), "", "")?)?;
    ended.line("HELD")?;
    unloaded(&ended, card)?;
    Ok(ended)
}

pub fn bochs_is_freed_of_a_process_that_systemd_spares(test: &Test) -> Result<(), String> {
    let ended = freed(test, &BOCHS, "holder @ open /dev/dri/card0")?;
    ended.line("nextkernel: end who holds bochs: 'holder'").map(drop)
}

pub fn by_day_the_hook_and_the_tool_tell_of_the_same_gpu(test: &Test) -> Result<(), String> {
    let scenario = format!("{HOOK} --dry-run kexec\nnextkernel status\nlsmod | grep ^bochs\n");
    let ended = arrives(driven(test, &BOCHS, "", "", &scenario)?)?;
    ended.line("  free the GPU of bochs: unload it, and a screen on it goes dark")?;
    ended.line("  jump to /kernel")?;
    ended.line("gpu bochs         is unloaded before the jump")?;
    // The dry run left the module loaded, and the real shutdown unloads it.
    ended.line("bochs ")?;
    unloaded(&ended, &BOCHS)
}

pub fn virtio_gpu_is_freed_of_a_mapping_alone(test: &Test) -> Result<(), String> {
    let ended = freed(test, &VIRTIO_GPU, "holder @ map /dev/dri/card0")?;
    ended.line("nextkernel: end who holds virtio_gpu: 'holder'").map(drop)
}

pub fn cirrus_is_freed_of_a_mapping_of_its_framebuffer(test: &Test) -> Result<(), String> {
    let card = Card { driver: "cirrus", parameters: "", qemu: ["-vga", "cirrus"] };
    let ended = freed(test, &card, "holder @ map /dev/fb0")?;
    ended.line("nextkernel: end who holds cirrus: 'holder'").map(drop)
}

pub fn qxl_is_freed_by_the_hook_as_pid_1_of_whatever_still_runs(test: &Test) -> Result<(), String> {
    let card = Card { driver: "qxl", parameters: "", qemu: ["-vga", "qxl"] };
    let hold = format!("holder open /dev/fb0\n{IS_IT_HELD}");
    let ended = arrives(driven(test, &card, &hold, "--preload no", &format!("exec {HOOK} kexec"))?)?;
    ended.line("HELD")?;
    ended.line("nextkernel: end 1 process that still runs: 'holder'")?;
    unloaded(&ended, &card)
}

pub fn cirrusfb_is_freed_of_its_console(test: &Test) -> Result<(), String> {
    // Of these drivers this is the only one held by its console rather than by a process.
    let ended = freed(test, &CIRRUSFB, "")?;
    if ended.console.contains("end who holds") { Err("somebody was ended".into()) } else { Ok(()) }
}

pub fn a_card_without_vga_gives_the_console_back(test: &Test) -> Result<(), String> {
    let card = Card { qemu: ["-device", "bochs-display"], ..BOCHS };
    let ended = arrives(driven(test, &card, "", "", "")?)?;
    unloaded(&ended, &card)
}

pub fn a_buffer_that_somebody_else_was_given_keeps_the_driver_and_the_jump_is_made(
    test: &Test,
) -> Result<(), String> {
    // No file of the device is open, so nothing shows which process owns the buffer.
    let hold = format!("holder @ share /dev/dri/card0\n{IS_IT_HELD}");
    let ended = arrives(driven(test, &BOCHS, &hold, "", "")?)?;
    ended.line("HELD")?;
    ended.line("nextkernel: bochs is in use")?;
    ended.line("bochs still drives its GPU").map(drop)
}

pub fn a_driver_that_is_stuck_in_its_probe_resets_the_machine(test: &Test) -> Result<(), String> {
    // On an old radeon as QEMU emulates it, the driver fails and stays in its initialization, with the console
    // lock held: the hook's messages are not printed, and only the reset shows what it did.
    let card = Card { driver: "radeon", parameters: "", qemu: ["-device", "ati-vga,model=rv100"] };
    let stuck = "echo \"RADEON IS $(cat /sys/module/radeon/initstate)\"\n";
    let mut guest = driven(test, &card, stuck, "", "")?;
    // QEMU crashes with a segmentation fault if the driver meets the card in a restored guest.
    guest.boots = Boots::Each;
    let ended = guest.run()?;
    ended.line("RADEON IS coming")?;
    rebooted(&ended)
}

/// Returns a guest with this GPU policy in the plan.
fn with_policy(test: &Test, card: &Card, options: &str, policy: &str) -> Result<Shutdown, String> {
    driven(test, card, "", options, &plan(&format!("gpu = {} {policy}", card.driver)))
}

/// Proves that the devices were unbound, and the driver was not unloaded.
fn unbound(ended: &Ended, card: &Card, devices: &[&str]) -> Result<(), String> {
    if ended.console.contains("nextkernel: unload") {
        return Err(ended.console.clone());
    }
    for device in devices {
        ended.line(&format!("nextkernel: unbind {device} from {}", card.driver))?;
    }
    match console_between(ended, "nextkernel: unbind ", "nextkernel: jump to ") {
        Some(console) if !console.contains("frame buffer device") => Ok(()),
        console => Err(format!("the console went to {console:?}")),
    }
}

pub fn a_driver_that_is_to_be_left_is_left(test: &Test) -> Result<(), String> {
    let ended = arrives(with_policy(test, &BOCHS, "", "leave")?)?;
    ended.line("nextkernel: leave the GPU of bochs")?;
    if ended.console.contains("nextkernel: unload") { Err(ended.console) } else { Ok(()) }
}

pub fn a_driver_that_is_to_be_unbound_is_unbound_from_each_of_its_cards(test: &Test) -> Result<(), String> {
    let mut guest = with_policy(test, &BOCHS, "", "unbind")?;
    guest.qemu.extend(["-device".into(), "bochs-display".into()]);
    unbound(&arrives(guest)?, &BOCHS, &["0000:00:02.0", "0000:00:03.0"])
}

pub fn a_driver_on_virtio_is_unbound_from_the_device_that_is_its_own(test: &Test) -> Result<(), String> {
    // In sysfs, this card is below the PCI device, whose driver is virtio_pci.
    let ended = arrives(with_policy(test, &VIRTIO_GPU, "", "unbind")?)?;
    unbound(&ended, &VIRTIO_GPU, &["virtio0"])
}

pub fn a_driver_that_is_for_the_firmware_alone_restarts_through_it(test: &Test) -> Result<(), String> {
    // tests/night/faults.rs tests this without a preloaded image, too.
    let ended = with_policy(test, &BOCHS, "", "firmware-reboot")?.run()?;
    ended.line("nextkernel: no handoff: ")?;
    rebooted(&ended)
}

pub fn a_module_that_the_plan_names_is_unloaded_with_what_stands_on_it(test: &Test) -> Result<(), String> {
    let scenario = "modprobe i6300esb\n".to_owned() + &stage("") + &plan("module = watchdog");
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.modules(&Modules::of(&test.image.files()?, &["i6300esb"])?);
    let ended = guest.run()?;
    handed_over(&ended, "kexec")?;
    let unloaded: Vec<_> =
        ended.console.split("nextkernel: unload ").filter_map(|line| line.lines().next()).skip(1).collect();
    match unloaded.as_slice() {
        ["watchdog, and what stands on it", "i6300esb", "watchdog"] => Ok(()),
        _ => Err(format!("{unloaded:?}")),
    }
}

/// Runs a guest with UEFI, whose next kernel prints the one-shot entry left for the boot loader.
fn with_efi(test: &Test, scenario: &str) -> Result<Ended, String> {
    let next = "modprobe efivarfs && mount -t efivarfs none /sys/firmware/efi/efivars || echo NO VARIABLES
        cd /sys/firmware/efi/efivars
        echo \"FOR THE NEXT BOOT: $(cat LoaderEntryOneShot-* 2>/dev/null | tail -c +5 | tr -d '\\0').\"
        poweroff -f\n";
    let modules = Modules::of(&test.image.files()?, &["efibc", "efivarfs"])?;
    let mut cpio = initramfs::with_busybox(NEXT)?;
    cpio.directory("sys");
    cpio.file("/next", 0o644, next.as_bytes());
    modules.put(&mut cpio);
    let scenario =
        "modprobe efibc || echo NO EFIBC\n".to_owned() + &stage("--initrd /next-efi.cpio") + scenario;
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.modules(&modules).file("/next-efi.cpio", 0o644, cpio.finish());
    guest.real = true;
    guest.qemu = vec!["-bios".into(), "/usr/share/ovmf/OVMF.fd".into()];
    let ended = guest.run()?;
    ended.expect(End::PoweredOff)?;
    for wrong in ["NO VARIABLES", "NO EFIBC"] {
        if ended.console.contains(wrong) {
            return Err(format!("{wrong}:\n{}", ended.console));
        }
    }
    Ok(ended)
}

pub fn what_is_left_for_the_boot_loader_stays_as_it_is(test: &Test) -> Result<(), String> {
    // Without the hook, efibc takes the jump for a restart with an argument.
    let without = with_efi(test, &format!("rm {HOOK}"))?;
    without.line("FOR THE NEXT BOOT: kexec reboot.")?;
    systemd_jumped_itself(&without)?;

    let ended = with_efi(test, "")?;
    ended.line("nextkernel: unload efibc")?;
    handed_over(&ended, "kexec")?;
    ended.line("FOR THE NEXT BOOT: .").map(drop)
}

pub fn where_there_is_no_gpu_nothing_is_said_of_one_and_little_is_asked(test: &Test) -> Result<(), String> {
    let scenario = format!("mv {HOOK} /usr/bin/nextkernel-hook; mv /traced {HOOK}\n") + &stage("");
    let mut guest = shutdown(test, "kexec", &scenario)?;
    let traced = "#!/bin/sh\nexec strace -D -f -o /dev/ttyS1 nextkernel-hook \"$@\"\n";
    guest.file("/traced", 0o755, traced).program("/usr/bin/strace")?;
    let ended = guest.run()?;
    handed_over(&ended, "kexec")?;
    let mut said = ended.console.lines().filter(|line| line.contains("] nextkernel: "));
    if let Some(said) = said.find(|line| ["GPU", "unload", "unbind"].iter().any(|word| line.contains(word))) {
        return Err(said.into());
    }
    let asked = |what: &str| ended.agent.lines().position(|call| call.contains(what));
    let (first, last) = (asked("\"sys/class/drm\""), asked("\"proc/modules\""));
    match first.and_then(|first| last?.checked_sub(first)) {
        // The hook makes two calls for each device on the bus, of any kind, and some ten more.
        Some(0..30) => Ok(()),
        calls => Err(format!("{calls:?} calls:\n{}", ended.agent)),
    }
}
