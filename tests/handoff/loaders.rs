//! Tests whole systems started by `kexec_load`, and decompressed ones: they must find the same machine as the
//! systems started by `kexec_file_load`.

use bed::guest::kexec_tools;
use bed::guest::whole::{Guest, Spec, Starts};
use bed::harness::Test;
use bed::initramfs::with_busybox;
use std::fmt::Write;

use super::esp::Esp;
use super::kexec::{START_KEXEC, SYSTEMDS_JUMP, TOLD, boot, hand_over};

pub fn what_is_thawed_is_handed_over_to(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --thaw | grep '^  thawed  *kernel and initrd'")?;
    guest
        .ok("nextkernel check | grep '^ok *staged' && nextkernel reboot --dry-run | grep 'direct loader'")?;
    hand_over(&mut guest, "nextkernel reboot", "kexec")
}

pub fn by_the_direct_loader_the_staged_kernel_arrives_and_a_kept_one_by_systemd(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --loader direct --preload no | grep '^  loader  *direct: as asked for'")?;
    hand_over(&mut guest, START_KEXEC, "kexec")?;

    // Without the plan nothing is staged any more, and the preloaded image stays loaded.
    guest.ok("nextkernel stage --thaw && mv /run/nextkernel /run/aside")?;
    guest.skip_console();
    guest.send("systemctl kexec")?;
    guest.await_console(SYSTEMDS_JUMP)?;
    let told = guest.await_console(TOLD)?;
    let is_jump = guest.machine().monitor.resets() == 0;
    if is_jump && told.trim_end().ends_with(":preloaded") {
        return Ok(());
    }
    Err(guest.tell(&format!("no jump: the next kernel was told {told:?}")))
}

/// Prints a kernel's facts about its machine, one a line. Leaves out everything within a range of memory, such
/// as the kernel itself and its drivers' reservations. Joins adjacent ranges of one kind, because a kernel
/// splits its memory around data passed to it (`e820__reserve_setup_data`, arch/x86/kernel/e820.c).
const FACTS: &str = r#"
cd /sys/firmware/memmap && for entry in *; do
    echo "memmap $(cat $entry/start $entry/end $entry/type | tr '\n' ' ')"
done | sort
grep -v '^ ' /proc/iomem | tr -d ':' | while read -r range name; do
    first=${range%-*}
    if [ "$name" = "$last_name" ] && [ $((0x$first)) = $((0x$last + 1)) ]; then
        last=${range#*-}
        continue
    fi
    [ -z "$last_name" ] || echo "iomem $begin-$last $last_name"
    begin=$first last=${range#*-} last_name=$name
done
cd /sys/firmware/acpi/tables && find . -type f ! -name FACS | sort | while read -r table; do
    echo "acpi $table $(sha256sum <$table)"
done
cd /sys/class/dmi/id && for name in bios_* board_* product_* sys_*; do
    [ -f $name ] && echo "dmi $name $(cat $name)"
done
echo "boot screen_info $(dd if=/sys/kernel/boot_params/data bs=1 count=64 2>/dev/null | od -An -v -tx1 | tr -d ' \n')"
echo "boot acpi_rsdp_addr $(dd if=/sys/kernel/boot_params/data bs=1 skip=112 count=8 2>/dev/null | od -An -tx8)"
echo "boot kaslr $(( $(od -An -tu1 -j529 -N1 /sys/kernel/boot_params/data) & 2 ))"
for fact in virtual_size bits_per_pixel stride; do echo "fb $fact $(cat /sys/class/graphics/fb0/$fact)"; done
echo "cmdline $(sed 's/ *nextkernel.record=[^ ]*//' /proc/cmdline)"
grep -E '^(processor|flags)' /proc/cpuinfo
if cd /sys/firmware/efi; then
    echo "efi $(cat fw_platform_size fw_vendor runtime config_table systab | tr '\n' ' ')"
    for entry in runtime-map/*; do echo "efi $entry $(cat $entry/* | tr '\n' ' ')"; done
    mountpoint -q efivars || mount -t efivarfs efivarfs efivars
    ls efivars | wc -l | sed 's/^/efi variables /'
    sha256sum efivars/SecureBoot-* efivars/BootCurrent-* | sed 's/^/efi /'
fi
"#;

/// Options for each handoff. Memory that the first kernel after the firmware reserves for itself may be reserved
/// or free for the second one, whichever system call loads it; so the third kernel is the baseline.
const LOADERS: [&str; 4] = ["--loader verified", "--loader verified", "--loader direct", "--thaw"];

/// Compares the facts that the kernel started by each system call reports.
fn same_machine(guest: &mut Guest) -> Result<(), String> {
    let (mut expected, mut differences) = (String::new(), String::new());
    for (number, options) in LOADERS.into_iter().enumerate() {
        guest.ok(&format!("nextkernel stage --reuse-cmdline {options}"))?;
        hand_over(guest, "systemctl kexec", "kexec")?;
        let facts = guest.ok(FACTS)?;
        if number < 2 {
            expected = facts;
            continue;
        }
        let not_in = |facts: &str, line: &&str| !facts.lines().any(|fact| fact == *line);
        for gone in expected.lines().filter(|line| not_in(&facts, line)) {
            let _ = writeln!(differences, "{options}: - {gone}");
        }
        for new in facts.lines().filter(|line| not_in(&expected, line)) {
            let _ = writeln!(differences, "{options}: + {new}");
        }
    }
    if !differences.is_empty() || !expected.contains("boot kaslr 2") {
        return Err(format!("{differences}\nof the verified loader:\n{expected}"));
    }
    Ok(())
}

/// Returns QEMU options for a card with a framebuffer that the firmware sets up.
fn vga() -> Vec<String> {
    ["-vga", "std"].map(str::to_owned).into()
}

pub fn every_loaders_kernel_finds_the_same_machine_under_a_bios(test: &Test) -> Result<(), String> {
    same_machine(&mut Guest::boot(&Spec { qemu: vga(), ..Spec::new(test) })?)
}

pub fn every_loaders_kernel_finds_the_same_machine_under_uefi(test: &Test) -> Result<(), String> {
    let (esp, image) = (Esp::new(test)?, test.image.files()?);
    esp.put("loader/entries/bed.conf", ENTRY)?;
    esp.copy("bed/linux", &image.kernel())?;
    esp.copy("bed/initrd.img", &image.initrd())?;
    let starts = Starts::Uefi(esp.path());
    same_machine(&mut Guest::boot(&Spec { starts, qemu: vga(), ..Spec::new(test) })?)
}

/// The machine's only boot entry.
const ENTRY: &str =
    "title Bed\nlinux /bed/linux\ninitrd /bed/initrd.img\noptions root=LABEL=root rw console=ttyS0\n";

/// The system of the crash kernel: it reads the memory of the kernel that panicked.
const CRASHED: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo \"CRASH KERNEL UP, and of the other one: $(/bin/busybox head -c 4 /proc/vmcore | /bin/busybox tail -c 3)\"
/bin/busybox sleep 1
/bin/busybox poweroff -f
";

pub fn a_thawed_kernel_that_panics_is_dumped_as_any_other(test: &Test) -> Result<(), String> {
    let (esp, image) = (Esp::new(test)?, test.image.files()?);
    let mut crashed = with_busybox(CRASHED)?;
    crashed.directory("proc");
    esp.put("loader/entries/bed.conf", ENTRY)?;
    esp.copy("bed/linux", &image.kernel())?;
    esp.copy("bed/initrd.img", &image.initrd())?;
    esp.put("bed/crashed.img", crashed.finish())?;
    esp.put("bed/kexec-tools.tar", kexec_tools::archive(test.image)?)?;
    let mut guest = esp.boot(test)?;
    guest.ok("nextkernel stage --thaw --append crashkernel=192M")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;
    guest.ok("tar -xf /efi/bed/kexec-tools.tar -C /")?;
    // Tests both ways of kexec(8). For `-c` it computes the load from the addresses that this kernel reports for
    // itself.
    for way in ["-s", "-c"] {
        guest.ok(&format!(
            "kexec {way} -p /efi/bed/linux --initrd=/efi/bed/crashed.img \
             --append='console=ttyS0 irqpoll nr_cpus=1 reset_devices' && grep 1 /sys/kernel/kexec_crash_loaded"
        ))?;
    }
    guest.send("echo c >/proc/sysrq-trigger")?;
    guest.await_console("CRASH KERNEL UP, and of the other one: ELF")?;
    guest.await_off().map(drop)
}
