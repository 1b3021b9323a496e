//! Many handoffs in a row in one small guest: each system hands over to the same kernel and the same initramfs.
//!
//! The initramfs is its own next initramfs: the kernel keeps it (`retain_initrd`,
//! Documentation/admin-guide/kernel-parameters.txt) and shows it as /sys/firmware/initrd. The number of handoffs
//! made so far is on the command line.

use crate::harness::Test;
use crate::host::paths::installed;
use crate::host::scratch::Scratch;
use crate::initramfs::{self, with_busybox};
use crate::machine::setup::{Architecture, Setup, Starts};
use crate::machine::{End, Machine, with_last_lines};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The time limit for each system. A system takes a few seconds, and five times as long on a busy host.
const LIMIT_EACH: Duration = Duration::from_secs(60);

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755,size=80% tmpfs /run
for word in $(cat /proc/cmdline); do
    case $word in made=*) made=${word#*=} ;; last=*) last=${word#*=} ;; by=*) by=${word#*=} ;; esac
done
echo 3 >/proc/sys/vm/drop_caches
place=$(sed -n '/ T _text$/{s/ .*//p;q}' /proc/kallsyms)
echo \"SYSTEM $made $place $(awk '/MemTotal|MemFree|MemAvailable/ { printf \"%s \", $2 }' /proc/meminfo)$(cat /proc/cmdline)\"
[ $made = $last ] && poweroff -f
cat /sys/firmware/initrd >/initrd
line=\"console=ttyS0 quiet retain_initrd by=$by last=$last made=$((made + 1))\"
if [ $by = kexec-tools ]; then
    case $((made % 3)) in 0) way=-s ;; *) way='-c -i' ;; esac
    kexec $way -l /kernel --initrd=/initrd --command-line=\"$line\" || poweroff -f
    exec kexec -e
fi
case $((made % 3)) in 0) way='--loader verified' ;; 1) way='--loader direct' ;; 2) way=--thaw ;; esac
nextkernel stage --kernel /kernel --initrd /initrd --cmdline \"$line\" $way --preload no --no-rehearse >/stage 2>&1 ||
    { cat /stage; poweroff -f; }
exec nextkernel-hook kexec
";

/// The program that hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// nextkernel: with `kexec_file_load`, with `kexec_load`, and decompressed, in turn.
    Nextkernel,
    /// kexec-tools: with `-s`, and twice with `-c -i`, in turn.
    KexecTools,
}

/// The memory of a system that has just started and has nothing cached: sizes in kilobytes, and the kernel's
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemFree`.
    pub free: u64,
    /// `MemAvailable`.
    pub available: u64,
    /// The kernel's virtual address: `_text`.
    pub place: u64,
}

/// Makes this many handoffs. Returns the memory of each system, beginning with the one that QEMU started.
pub fn run(test: &Test, by: By, handoffs: u32) -> Result<Vec<Memory>, String> {
    let image = test.image.files()?;
    let installed = installed();
    let mut cpio = with_busybox(INIT)?;
    for directory in ["proc", "sys", "dev", "run", "tmp", "etc"] {
        cpio.directory(directory);
    }
    let read = |path: &Path| fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
    cpio.file("/kernel", 0o644, &read(&image.kernel())?);
    let programs = [
        ("nextkernel", "usr/bin/nextkernel"),
        ("nextkernel-hook", "usr/lib/systemd/system-shutdown/nextkernel"),
    ];
    for (name, path) in programs {
        cpio.file(&format!("/usr/bin/{name}"), 0o755, &read(&installed.join(path))?);
    }
    initramfs::program(&mut cpio, &image.builder(), "/usr/sbin/kexec")?;
    let scratch = Scratch::new()?;
    let (initrd, kernel) = (scratch.path("initramfs"), image.kernel());
    fs::write(&initrd, cpio.finish()).map_err(|e| format!("{}: {e}", initrd.display()))?;
    let name = if by == By::Nextkernel { "nextkernel" } else { "kexec-tools" };
    let cmdline = format!("console=ttyS0 quiet retain_initrd by={name} last={handoffs} made=0");
    let setup = Setup {
        architecture: Architecture::X86_64,
        starts: Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: &cmdline },
        memory: 640,
        counting: false,
        disks: &[],
        args: &["-no-reboot".into()],
        waits: false,
        log: &test.log(),
    };
    let mut machine = Machine::start(&setup, scratch)?;
    let end = machine.await_end(LIMIT_EACH * (handoffs + 1))?;
    let console = machine.console.text();
    let systems: Vec<_> = console.lines().filter_map(|line| system(line.split_once("SYSTEM ")?.1)).collect();
    let is_each_there = systems.iter().map(|(made, _)| *made).eq(0..=handoffs);
    if end != End::PoweredOff || !is_each_there {
        let what = format!("{} of {handoffs} handoffs, and then {end:?}", systems.len().saturating_sub(1));
        return Err(with_last_lines(&what, &console));
    }
    Ok(systems.into_iter().map(|(_, memory)| memory).collect())
}

/// Parses `MADE PLACE TOTAL FREE AVAILABLE COMMAND LINE`.
fn system(line: &str) -> Option<(u32, Memory)> {
    let mut words = line.split_whitespace();
    let made = words.next()?.parse().ok()?;
    let place = u64::from_str_radix(words.next()?, 16).ok()?;
    let mut next = || words.next()?.parse().ok();
    Some((made, Memory { total: next()?, free: next()?, available: next()?, place }))
}
