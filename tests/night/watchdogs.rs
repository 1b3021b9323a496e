//! The hardware watchdog that systemd leaves armed, with QEMU's i6300esb.

use std::process::Command;

use crate::staged::{CMDLINE, night};
use bed::cpio::Cpio;
use bed::harness::Test;
use bed::initramfs::Ended;
use bed::machine::End;

/// Longer than the watchdog waits: a machine that gets so far is not watched any more.
const LINGERS: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
read -r cmdline </proc/cmdline
echo \"NEXT KERNEL UP: $cmdline\"
/bin/busybox sleep 30
/bin/busybox poweroff -f
";

/// Goes down by a verb that the plan covers, with the watchdog armed for 15 s, into a kernel that lingers.
fn armed(test: &Test, verb: &str) -> Result<Ended, String> {
    let day = format!(
        // Else the driver itself disarms it at every restart, and nothing would be shown here.
        "insmod /watchdog.ko stop_on_reboot=0 && insmod /i6300esb.ko || echo NO DRIVER
        nextkernel stage --kernel /kernel --initrd /next.cpio --initrd /lingers.cpio \
            --cmdline '{CMDLINE}' --hold late --on kexec --on reboot
        export WATCHDOG_DEVICE=/dev/watchdog0 WATCHDOG_USEC=15000000"
    );
    let mut night = night(test, verb, &day)?;
    let mut lingers = Cpio::default();
    lingers.file("/init", 0o755, LINGERS.as_bytes());
    night.file("/lingers.cpio", 0o644, lingers.finish());
    for module in ["watchdog", "i6300esb"] {
        night.file(&format!("/{module}.ko"), 0o644, unpacked(test, module)?);
    }
    night.qemu = vec!["-device".into(), "i6300esb".into()];
    night.run()
}

fn unpacked(test: &Test, module: &str) -> Result<Vec<u8>, String> {
    let image = test.image.files()?;
    let folder = image.tree().join("usr/lib/modules").join(image.release()?);
    let packed = folder.join(format!("kernel/drivers/watchdog/{module}.ko.xz"));
    let unpacked = Command::new("xz").arg("-dc").arg(&packed).output();
    let unpacked = unpacked.map_err(|error| format!("xz: {error}"))?;
    if unpacked.status.success() {
        Ok(unpacked.stdout)
    } else {
        Err(format!("{}: not unpacked", packed.display()))
    }
}

pub fn at_reboot_the_watchdog_is_stopped_before_the_jump(test: &Test) -> Result<(), String> {
    let ended = armed(test, "reboot")?;
    ended.line("NEXT KERNEL UP")?;
    ended.expect(End::PoweredOff)
}

pub fn at_kexec_a_watchdog_that_somebody_armed_stays_armed(test: &Test) -> Result<(), String> {
    let ended = armed(test, "kexec")?;
    ended.line("NEXT KERNEL UP")?;
    ended.expect(End::Reset)
}
