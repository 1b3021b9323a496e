//! Tests that the machine restarts whatever hangs: a row for each place where the kernel can hang, all without
//! `panic=`. With `NEXTKERNEL_SHOW_SECONDS=1` each row prints how long its shutdown took, for docs/night.md.

use super::staged::{AGAIN, handed_over, plan, rebooted, shutdown, stage, systemd_jumped_itself};
use bed::guest::shutdown::{Ended, Shutdown};
use bed::guest::standins;
use bed::harness::Test;
use bed::host::programs;
use std::env;
use std::time::Duration;

/// The guard's deadline in these guests.
const GUARD: &str = "guard = 5";

const KEXEC_LOAD_DISABLED: &str = "echo 1 >/proc/sys/kernel/kexec_load_disabled\n";

/// Path where systemd runs another hook beside ours.
pub(super) const BESIDE: &str = "/usr/lib/systemd/system-shutdown/beside";

/// The hook's message when it waits for the other hook.
const WAITS: &str = "wait for the init's other hooks";

/// Returns the start of such a hook, which waits until ours prints this line.
pub(super) fn when_the_hook_says(line: &str) -> String {
    format!("#!/bin/sh\nuntil dmesg | grep -q \"nextkernel: {line}\"; do sleep 0.1; done\n")
}

/// Loads a disk that never answers and writes to it. A process keeps it open, because the last close would wait,
/// too.
const WRITE: &str = "insmod /hangblk.ko; /holder @ open /dev/hangblk
dd if=/dev/zero of=/dev/hangblk bs=4096 count=1";

/// Returns a guest with stand-ins, edu devices, a staged kernel, and shell lines before and after staging.
pub(super) fn faulty(test: &Test, before: &str, options: &str, after: &str) -> Result<Shutdown, String> {
    let mut guest = shutdown(test, "kexec", &format!("{before}\n{}{after}", stage(options)))?;
    standins::put(&mut guest, &["nvidia", "slowdev", "hangblk", "hangnotify", "holdconsole"])?;
    guest.file("/holder", 0o755, programs::holder()?).file("/stuck", 0o755, programs::stuck()?);
    guest.qemu = ["-device", "edu"].repeat(3).into_iter().map(str::to_owned).collect();
    (guest.counting, guest.limit) = (true, Duration::from_secs(300));
    Ok(guest)
}

/// Runs the guest, and prints its end and duration if requested.
fn run(guest: Shutdown, row: &str) -> Result<Ended, String> {
    let ended = guest.run()?;
    if env::var("NEXTKERNEL_SHOW_SECONDS").is_ok_and(|value| value == "1") {
        eprintln!("{row}: {:?} after {:.1} s", ended.end, seconds(&ended));
    }
    Ok(ended)
}

/// Returns the time stamp of a line of the kernel log, in seconds.
fn stamp(line: &str) -> Option<f64> {
    let (stamp, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    stamp.trim().parse().ok()
}

/// Returns the seconds from the hook's first message to the last message of its kernel.
fn seconds(ended: &Ended) -> f64 {
    let (mut begun, mut over) = (None, 0.0);
    for time in ended.console.lines().skip_while(|line| !line.contains("] nextkernel: ")).filter_map(stamp) {
        if time < over {
            // The next kernel's clock starts at 0.
            break;
        }
        begun.get_or_insert(time);
        over = time;
    }
    over - begun.unwrap_or(over)
}

/// Returns the time stamp of the line with this text.
pub(super) fn when(ended: &Ended, text: &str) -> Result<f64, String> {
    let line = ended.line(text)?;
    stamp(line).ok_or_else(|| format!("no time stands before {line:?}"))
}

/// Tests a GPU driver that cannot be unloaded: the plan decides. By default the machine restarts through
/// firmware, even if an image is preloaded to which systemd would jump.
fn cannot_be_unloaded(test: &Test, before: &str, row: &str, told: &str) -> Result<(), String> {
    let careful = run(faulty(test, before, "", "")?, &format!("{row}, firmware-reboot"))?;
    careful.line(told)?;
    rebooted(&careful)?;
    let daring =
        run(faulty(test, before, "--preload no", &plan("gpu-failed = jump"))?, &format!("{row}, jump"))?;
    daring.line(told)?;
    handed_over(&daring, "kexec")
}

pub fn a_holder_that_cannot_be_ended_is_named_and_the_plan_decides(test: &Test) -> Result<(), String> {
    let before = "insmod /nvidia.ko; mknod /dev/nvidia0 c 195 0; /stuck read /dev/nvidia0";
    cannot_be_unloaded(test, before, "a holder in D state", "'stuck' (")
}

pub fn a_module_whose_exit_hangs_is_left_behind_and_the_plan_decides(test: &Test) -> Result<(), String> {
    let before = "insmod /nvidia.ko hang_exit=1";
    cannot_be_unloaded(test, before, "a module's exit", "the exit of nvidia hangs")
}

pub fn an_unloading_that_hangs_since_before_is_found_and_the_plan_decides(test: &Test) -> Result<(), String> {
    let before = "insmod /nvidia.ko hang_exit=1; /stuck unload /sys/module/nvidia";
    cannot_be_unloaded(test, before, "a module's exit by day", "the exit of nvidia hangs")
}

/// Proves that this guest ends in a reset, for this reason.
fn resets(guest: Shutdown, row: &str, told: &str) -> Result<(), String> {
    let ended = run(guest, row)?;
    ended.line(told)?;
    ended.line("sysrq: Resetting")?;
    rebooted(&ended)
}

pub fn a_device_whose_remove_hangs_resets_the_machine(test: &Test) -> Result<(), String> {
    let guest = faulty(test, "insmod /nvidia.ko hang_remove=1", "", &plan("gpu-failed = jump"))?;
    resets(guest, "a device's remove", "with the lock of its device held")
}

pub fn a_device_whose_remove_runs_for_ever_resets_the_machine(test: &Test) -> Result<(), String> {
    // The stack of a running process cannot always be read; then the jump is tried, and the guard ends it.
    let mut guest =
        faulty(test, "insmod /nvidia.ko spin_remove=1", "", &(plan("gpu-failed = jump") + &plan(GUARD)))?;
    // A busy loop is not idle time.
    guest.counting = false;
    resets(guest, "a device's remove that runs", "the exit of nvidia hangs")
}

pub fn a_device_whose_remove_goes_in_circles_resets_the_machine(test: &Test) -> Result<(), String> {
    let guest = faulty(test, "insmod /nvidia.ko circle_remove=1", "", &plan("gpu-failed = jump"))?;
    resets(guest, "a device's remove that goes in circles", "the exit of nvidia hangs, for 45 seconds by now")
}

pub fn where_an_oops_is_a_panic_the_panic_restarts_the_machine(test: &Test) -> Result<(), String> {
    let panic = "echo 1 >/proc/sys/kernel/panic_on_oops; insmod /nvidia.ko oops_remove=1";
    let mut guest = faulty(test, panic, "", "")?;
    // A kernel that panics waits in a busy loop.
    guest.counting = false;
    let ended = run(guest, "a panic")?;
    ended.line("Kernel panic - not syncing: Fatal exception")?;
    rebooted(&ended)
}

pub fn a_device_whose_remove_dies_resets_the_machine(test: &Test) -> Result<(), String> {
    let guest = faulty(test, "insmod /nvidia.ko oops_remove=1", "", &plan("gpu-failed = jump"))?;
    resets(guest, "an oops in remove", "the kernel failed in the exit of nvidia")
}

pub fn a_device_lock_that_is_held_since_before_is_found_and_resets_the_machine(
    test: &Test,
) -> Result<(), String> {
    for (fault, row) in
        [("hang_remove", "a device's remove by day"), ("oops_remove", "an oops in remove by day")]
    {
        let before = format!("insmod /nvidia.ko {fault}=1; /stuck unload /sys/module/nvidia");
        resets(faulty(test, &before, "", &plan("gpu-failed = jump"))?, row, "the exit of nvidia hangs")?;
    }
    Ok(())
}

pub fn a_probe_that_never_ends_resets_the_machine(test: &Test) -> Result<(), String> {
    for policy in ["", "gpu = nvidia leave", "gpu = nvidia firmware-reboot"] {
        let policy = if policy.is_empty() { String::new() } else { plan(policy) };
        let guest = faulty(test, "/stuck load /nvidia.ko hang_probe=1", "", &policy)?;
        resets(guest, "a device's probe", "nvidia has not come back from its initialisation")?;
    }
    Ok(())
}

pub fn a_driver_that_hangs_in_its_shutdown_is_ended_by_the_guard(test: &Test) -> Result<(), String> {
    let after = plan("gpu = nvidia leave") + &plan(GUARD);
    let guest = faulty(test, "insmod /nvidia.ko hang_shutdown=1", "", &after)?;
    resets(
        guest,
        "a driver's shutdown, guard = 5",
        "nextkernel: the jump or the restart did not come within 5 seconds: reset",
    )
}

pub fn a_reboot_notifier_that_hangs_is_ended_by_the_guard(test: &Test) -> Result<(), String> {
    let guest = faulty(test, "insmod /hangnotify.ko", "", &plan(GUARD))?;
    resets(
        guest,
        "a reboot notifier, guard = 5",
        "nextkernel: the jump or the restart did not come within 5 seconds: reset",
    )
}

pub fn a_restart_that_hangs_is_ended_by_the_guard(test: &Test) -> Result<(), String> {
    let after = plan("gpu = nvidia firmware-reboot") + &plan(GUARD);
    let guest = faulty(test, "insmod /nvidia.ko hang_shutdown=1", "", &after)?;
    resets(guest, "a restart, guard = 5", "nextkernel: restart the machine through firmware")
}

pub fn a_disk_that_never_answers_prevents_the_jump_and_the_machine_restarts(
    test: &Test,
) -> Result<(), String> {
    let ended = run(faulty(test, WRITE, "", "")?, "a sync")?;
    ended.line("nextkernel: no handoff: sync: given up after 20 seconds")?;
    ended.line("nextkernel: restart the machine through firmware")?;
    rebooted(&ended)
}

pub fn a_disk_that_stops_answering_later_prevents_the_jump(test: &Test) -> Result<(), String> {
    let mut guest = faulty(test, "", "", "")?;
    guest.file(BESIDE, 0o755, when_the_hook_says(WAITS) + WRITE + "\n");
    let ended = run(guest, "the last sync")?;
    ended.line("nextkernel: no handoff: sync: given up after 5 seconds")?;
    ended.line("nextkernel: restart the machine through firmware")?;
    rebooted(&ended)
}

pub fn a_load_that_hangs_is_given_up_and_the_machine_restarts(test: &Test) -> Result<(), String> {
    let listen = AGAIN.to_owned() + "/stuck listen /run/nextkernel/*/kernel\n";
    for (options, ended_well) in
        [("", systemd_jumped_itself as fn(&Ended) -> Result<(), String>), ("--preload no", rebooted)]
    {
        let ended = run(faulty(test, "", options, &listen)?, &format!("a load {options}"))?;
        ended.line("nextkernel: no handoff: kexec_file_load")?;
        ended_well(&ended)?;
    }
    Ok(())
}

pub fn consoles_whose_lock_is_held_for_ever_hold_up_neither_jump_nor_guard(
    test: &Test,
) -> Result<(), String> {
    // From then on the console prints nothing.
    let held = plan(GUARD) + "insmod /holdconsole.ko\n";
    handed_over(&run(faulty(test, "", "--preload no", &held)?, "a console")?, "kexec")?;
    rebooted(&run(faulty(test, "insmod /hangnotify.ko", "", &held)?, "a console and a reboot notifier")?)
}

/// PCI addresses of the three edu devices.
const DEVICES: [&str; 3] = ["0000:00:02.0", "0000:00:03.0", "0000:00:04.0"];

fn unbind_all() -> String {
    DEVICES.map(|device| plan(&format!("unbind = {device}"))).concat()
}

pub fn other_devices_are_unbound_all_at_the_same_time(test: &Test) -> Result<(), String> {
    let guest = faulty(test, "insmod /slowdev.ko remove_ms=3000", "--preload no", &unbind_all())?;
    let ended = run(guest, "three devices of 3 s each")?;
    let (mut first, mut last, mut one_by_one) = (f64::MAX, f64::MIN, 0.0);
    for device in DEVICES {
        let goes = when(&ended, &format!("slowdev: {device} goes"))?;
        let gone = when(&ended, &format!("slowdev: {device} is gone"))?;
        (first, last, one_by_one) = (goes.min(first), gone.max(last), one_by_one + gone - goes);
    }
    if last - first > one_by_one / 2.0 {
        return Err(format!("{:.1} s, and one by one {one_by_one:.1} s", last - first));
    }
    handed_over(&ended, "kexec")
}

pub fn another_device_that_hangs_while_it_is_unbound_is_ended_by_the_guard(
    test: &Test,
) -> Result<(), String> {
    // The jump waits for this device, which may be an array that writes its cache back; and the guard for the
    // jump ends the wait.
    let after = unbind_all() + &plan(GUARD);
    let guest = faulty(test, "insmod /slowdev.ko hang_at=0000:00:03.0", "", &after)?;
    resets(guest, "unbinding another device, guard = 5", "nextkernel: 0000:00:03.0: unbind")
}

pub fn where_the_plan_wants_firmware_for_a_gpu_nothing_jumps(test: &Test) -> Result<(), String> {
    let policy = plan("gpu = nvidia firmware-reboot");
    let run = |row, options, more: &str| {
        let guest = faulty(test, "insmod /nvidia.ko", options, &format!("{policy}{more}"))?;
        rebooted(&run(guest, &format!("firmware-reboot, {row}"))?)
    };
    run("kept", "", "")?;
    run("late", "--preload no", "")?;
    // Then nothing can unload the preloaded image, and systemd would jump to it.
    run("kept for good", "", KEXEC_LOAD_DISABLED)
}

/// Runs while our hook waits for this one: prints the peak and the current memory of ours.
const MEASURE: &str = "
for process in /proc/[0-9]*; do
    read -r name <$process/comm && [ \"$name\" = nextkernel ] || continue
    cat $process/status $process/smaps_rollup | grep -E '^(VmHWM|Rss):' | sed 's/^/MEMORY /' >/dev/console
done
";

/// Returns the largest memory of any process of the hook, in kB.
fn memory(ended: &Ended) -> Result<u64, String> {
    let lines = ended.console.lines().filter(|line| line.contains("MEMORY "));
    let sizes = lines.filter_map(|line| line.split_whitespace().rev().nth(1)?.parse().ok());
    sizes.max().ok_or_else(|| format!("no memory was measured:\n{}", ended.console))
}

pub fn the_hooks_memory_does_not_grow_with_what_it_finds(test: &Test) -> Result<(), String> {
    let stack = "insmod /nvidia.ko; insmod /nvidia_modeset.ko; mknod /dev/nvidia0 c 195 0";
    let crowd = "for module in /nvidia_d??.ko; do insmod $module; done
        for i in $(seq 300); do /holder @ open /dev/nvidia0; done";
    let mut sizes = [0; 2];
    for (crowd, size) in ["", crowd].into_iter().zip(&mut sizes) {
        let mut guest = faulty(test, &format!("{stack}\n{crowd}"), "--preload no", "")?;
        standins::put(&mut guest, &["nvidia_modeset"])?;
        standins::put_many(&mut guest, 100)?;
        guest.file(BESIDE, 0o755, when_the_hook_says(WAITS) + MEASURE);
        let ended = run(guest, "memory")?;
        *size = memory(&ended)?;
        if !crowd.is_empty() {
            ended.line("nextkernel: unload nvidia_d99")?;
        }
        ended.line("nvidia stand-in: 0000:00:02.0 removed")?;
        handed_over(&ended, "kexec")?;
    }
    let [alone, in_a_crowd] = sizes;
    // The kernel's count is exact to a few pages.
    if in_a_crowd <= 288 && in_a_crowd <= alone + 16 {
        return Ok(());
    }
    Err(format!("{alone} kB alone, {in_a_crowd} kB in a crowd"))
}
