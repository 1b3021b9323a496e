//! Whole systems that the direct loader starts, and thawed ones: the machine that they find is the one that the verified
//! loader's find.

use bed::guest::{Guest, Spec};
use bed::harness::Test;
use bed::initramfs::with_busybox;
use bed::kexec_tools;

use crate::esp::Esp;
use crate::kexec::{boot, hand_over};

pub fn by_the_direct_loader_and_thawed_the_staged_kernel_arrives_and_a_kept_one_by_systemd(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --loader direct | grep '^  loader  *direct: as asked for'")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;
    guest.ok("nextkernel stage --thaw | grep '^  loader  *direct: for the kernel is thawed'")?;
    guest.ok("nextkernel check | grep '^ok *staged' && nextkernel reboot --dry-run | grep 'direct loader'")?;
    hand_over(&mut guest, "nextkernel reboot", "kexec")?;

    // Nothing is staged any more, and what stays loaded is the rehearsal's.
    guest.ok("nextkernel stage --thaw && mv /run/nextkernel /run/aside")?;
    guest.send("systemctl kexec")?;
    let after = guest.await_boot()?;
    guest.ok("grep 'nextkernel.record=xxx' /proc/cmdline")?;
    if after.jumped() { Ok(()) } else { Err(guest.tell(&format!("no jump: {after:?}"))) }
}

/// What a kernel tells of its machine: a fact a line. What is left out of each is the kernel's own place, and what the
/// machine changes by itself.
const FACTS: &str = r#"
cd /sys/firmware/memmap && for entry in *; do
    echo "memmap $(cat $entry/start $entry/end $entry/type | tr '\n' ' ')"
done | sort
grep -v -E 'Kernel (code|rodata|data|bss)|Crash kernel' /proc/iomem | sed 's/^/iomem /'
cd /sys/firmware/acpi/tables && find . -type f ! -name FACS | sort | while read -r table; do
    echo "acpi $table $(sha256sum <$table)"
done
cd /sys/class/dmi/id && for name in bios_* board_* product_* sys_*; do
    [ -f $name ] && echo "dmi $name $(cat $name)"
done
echo "boot screen_info $(dd if=/sys/kernel/boot_params/data bs=1 count=64 2>/dev/null | od -An -v -tx1 | tr -d ' \n')"
echo "boot acpi_rsdp_addr $(dd if=/sys/kernel/boot_params/data bs=1 skip=112 count=8 2>/dev/null | od -An -tx8)"
echo "boot kaslr $(( $(od -An -tu1 -j529 -N1 /sys/kernel/boot_params/data) & 2 ))"
echo "fb $(cat /proc/fb)"
for fact in name virtual_size bits_per_pixel stride; do echo "fb $fact $(cat /sys/class/graphics/fb0/$fact)"; done
echo "cmdline $(sed 's/ *nextkernel.record=[^ ]*//' /proc/cmdline)"
grep -E '^(MemTotal|processor|flags)' /proc/meminfo /proc/cpuinfo
if cd /sys/firmware/efi; then
    echo "efi $(cat fw_platform_size fw_vendor runtime config_table systab | tr '\n' ' ')"
    for entry in runtime-map/*; do echo "efi $entry $(cat $entry/* | tr '\n' ' ')"; done
    mountpoint -q efivars || mount -t efivarfs efivarfs efivars
    ls efivars | wc -l | sed 's/^/efi variables /'
    sha256sum efivars/SecureBoot-* efivars/BootCurrent-* | sed 's/^/efi /'
fi
"#;

/// Where the kernel lies, virtually.
const TEXT: &str = "sed -n 's/ T _text$//p' /proc/kallsyms";

/// The facts as the kernel of each loader tells them, and where two thawed ones lay.
fn same_machine(guest: &mut Guest) -> Result<(), String> {
    let mut told: Vec<(&str, String)> = Vec::new();
    let mut texts = Vec::new();
    for options in ["--loader verified", "--loader direct", "--thaw", "--thaw=yes"] {
        guest.ok(&format!("nextkernel stage --reuse-cmdline {options}"))?;
        hand_over(guest, "systemctl kexec", "kexec")?;
        texts.push(guest.ok(TEXT)?);
        let facts = guest.ok(FACTS)?;
        eprintln!("{options}: {}", facts.lines().count());
        if let Some((before, expected)) = told.first() {
            let missing = expected.lines().filter(|line| !facts.lines().any(|fact| fact == *line));
            let new = facts.lines().filter(|line| !expected.lines().any(|fact| fact == *line));
            let lines: Vec<_> = missing.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect();
            if !lines.is_empty() {
                return Err(guest.tell(&format!("{options} is not as {before}:\n{}", lines.join("\n"))));
            }
        }
        told.push((options, facts));
    }
    let is_random = told.iter().all(|(_, facts)| facts.contains("boot kaslr 2"));
    match texts.as_slice() {
        [.., one, other] if one != other && is_random => Ok(()),
        _ => Err(guest.tell(&format!("the kernel's place is not random: {texts:?}"))),
    }
}

pub fn every_loaders_kernel_finds_the_same_machine_under_a_bios(test: &Test) -> Result<(), String> {
    let mut guest = Guest::boot(&Spec { qemu: vec!["-vga".into(), "std".into()], ..Spec::new(test) })?;
    same_machine(&mut guest)
}

/// The system to arrive in when a kernel panics.
const CRASHED: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
[ -r /proc/vmcore ] && echo \"CRASH KERNEL UP: $(/bin/busybox head -c 4 /proc/vmcore | /bin/busybox tail -c 3)\"
/bin/busybox poweroff -f
";
