//! Tests hardware watchdogs with QEMU's i6300esb: one that systemd leaves armed, and one that the hook arms for
//! the jump.

use super::staged::{handed_over, plan, shutdown, stage};
use bed::guest::shutdown::Ended;
use bed::harness::Test;
use bed::initramfs;
use bed::initramfs::modules::Modules;
use bed::machine::End;

/// Waits longer than the watchdog: a machine that survives this is no longer watched.
const LINGERS: &str = "sleep 40\n";

/// Makes systemd arm the watchdog for 30 s, which even on a busy host is enough for the next kernel to come up.
const SYSTEMD_ARMS_IT: &str = "export WATCHDOG_DEVICE=/dev/watchdog0 WATCHDOG_USEC=30000000\n";

/// Without this parameter the driver itself disarms the watchdog at every restart.
const LASTS: &str = "stop_on_reboot=0";

/// Goes down with a watchdog, by a verb that the plan covers, into a kernel that runs `next`. Uses `kexec_load`,
/// which starts that kernel fastest.
fn watched(test: &Test, verb: &str, parameter: &str, scenario: &str, next: &str) -> Result<Ended, String> {
    let load = format!("modprobe watchdog {parameter} && modprobe i6300esb || echo NO DRIVER\n");
    let stage = stage("--initrd /watched.cpio --loader direct --preload no --on kexec --on reboot");
    let mut guest = shutdown(test, verb, &(load + &stage + scenario))?;
    let modules = Modules::of(&test.image.files()?, &["watchdog", "i6300esb"])?;
    let init = format!(
        "#!/bin/busybox sh
        /bin/busybox --install -s /bin
        mount -t proc proc /proc
        mount -t devtmpfs dev /dev
        read -r cmdline </proc/cmdline
        echo \"NEXT KERNEL UP: $cmdline\" >/dev/kmsg
        {next}
        poweroff -f\n"
    );
    let mut watched = initramfs::with_busybox(&init)?;
    modules.put(&mut watched);
    guest.modules(&modules).file("/watched.cpio", 0o644, watched.finish());
    guest.qemu = vec!["-device".into(), "i6300esb".into()];
    (guest.real, guest.counting) = (true, true);
    let ended = guest.run()?;
    ended.line("NEXT KERNEL UP")?;
    if ended.console.contains("NO DRIVER") { Err(ended.console) } else { Ok(ended) }
}

pub fn at_reboot_the_watchdog_is_stopped_before_the_jump(test: &Test) -> Result<(), String> {
    let ended = watched(test, "reboot", LASTS, SYSTEMD_ARMS_IT, LINGERS)?;
    handed_over(&ended, "reboot")
}

pub fn at_kexec_a_watchdog_that_somebody_armed_stays_armed(test: &Test) -> Result<(), String> {
    watched(test, "kexec", LASTS, SYSTEMD_ARMS_IT, LINGERS)?.expect(End::Reset)
}

pub fn at_kexec_it_is_stopped_where_the_plan_says_so(test: &Test) -> Result<(), String> {
    let scenario = SYSTEMD_ARMS_IT.to_owned() + &plan("watchdog = off");
    let ended = watched(test, "kexec", LASTS, &scenario, LINGERS)?;
    handed_over(&ended, "kexec")
}

/// Hands over to a kernel that has 30 s to show that it works.
fn on_probation(test: &Test, parameter: &str, next: &str) -> Result<Ended, String> {
    watched(test, "kexec", parameter, &plan("watchdog = 30"), next)
}

pub fn on_probation_a_next_kernel_that_hangs_is_reset(test: &Test) -> Result<(), String> {
    on_probation(test, LASTS, "sleep 3600")?.expect(End::Reset)
}

pub fn on_probation_a_next_kernel_that_ends_in_time_is_not_reset(test: &Test) -> Result<(), String> {
    handed_over(&on_probation(test, LASTS, "")?, "kexec")
}

pub fn on_probation_a_next_kernel_with_the_driver_is_not_reset(test: &Test) -> Result<(), String> {
    // The driver's probe stops the watchdog.
    let next = "modprobe i6300esb || echo NO DRIVER\n".to_owned() + LINGERS;
    handed_over(&on_probation(test, LASTS, &next)?, "kexec")
}

pub fn where_the_driver_stops_it_at_restarts_there_is_no_probation(test: &Test) -> Result<(), String> {
    handed_over(&on_probation(test, "", LINGERS)?, "kexec")
}
