//! Tests that slow progress is waited for, and that a hang delays the shutdown no longer than necessary. Also
//! tests the state left behind when the handoff fails.

use super::faults::{BESIDE, faulty, when, when_the_hook_says};
use super::staged::{
    AGAIN, HOOK, handed_over, in_order, plan, rebooted, shutdown, stage, systemd_jumped_itself,
};
use bed::guest::shutdown::{Ended, Shutdown};
use bed::guest::standins;
use bed::harness::Test;
use bed::host::paths::installed;
use bed::host::programs;
use bed::initramfs::modules::Modules;
use bed::machine::with_last_lines;

/// Returns a guest of [`faulty`] with this number of edu devices.
fn with_devices(
    test: &Test,
    count: usize,
    before: &str,
    options: &str,
    after: &str,
) -> Result<Shutdown, String> {
    let mut guest = faulty(test, before, options, after)?;
    guest.qemu = ["-device", "edu"].repeat(count).into_iter().map(str::to_owned).collect();
    Ok(guest)
}

/// Proves that the console does not show this text.
fn silent_of(ended: &Ended, text: &str) -> Result<(), String> {
    if ended.console.contains(text) {
        return Err(with_last_lines(&format!("the console says {text:?}"), &ended.console));
    }
    Ok(())
}

/// Tests a driver of `count` GPUs whose exit takes longer than the 45 s after which a driver counts as hung. The
/// first GPU is removed last.
fn takes_its_time(test: &Test, count: usize, parameter: &str) -> Result<(), String> {
    let before = format!("insmod /nvidia.ko {parameter}");
    let ended = with_devices(test, count, &before, "--preload no", "")?.run()?;
    let took = when(&ended, "nextkernel: jump to")? - when(&ended, "nextkernel: unload nvidia")?;
    if took < 48.0 {
        return Err(format!("the driver was gone after {took:.1} s, which is no long time"));
    }
    in_order(&ended, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")
}

pub fn a_gpus_driver_that_makes_progress_is_waited_for_beyond_its_deadline(
    test: &Test,
) -> Result<(), String> {
    takes_its_time(test, 16, "remove_ms=3000")
}

pub fn a_gpus_driver_whose_one_device_comes_on_step_by_step_is_waited_for(test: &Test) -> Result<(), String> {
    // The driver's stack shows another step every twelve seconds.
    takes_its_time(test, 1, "step_ms=12000")
}

pub fn a_probe_that_takes_long_is_waited_for(test: &Test) -> Result<(), String> {
    // Probing sixteen devices one after the other takes longer than the 30 s that a probe without progress may
    // take.
    let loads = "/stuck load /nvidia.ko probe_ms=2500\n";
    let ended = with_devices(test, 16, "", "--preload no", loads)?.run()?;
    let took =
        when(&ended, "nvidia stand-in: 0000:00:02.0 removed")? - when(&ended, "nextkernel: unload nvidia")?;
    if took < 33.0 {
        return Err(format!("the probe was over after {took:.1} s, which is no long time"));
    }
    in_order(&ended, &["nvidia stand-in: 0000:00:11.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")
}

/// A disk with data to write that answers no request while the system runs. A process keeps it open, because the
/// last close would wait, too.
const WRITTEN: &str = "insmod /hangblk.ko; /holder @ open /dev/hangblk
dd if=/dev/zero of=/dev/hangblk bs=4096 count=512";

/// From the hook's first sync on, makes the disk answer so slowly that writing everything takes some 33 s.
const ANSWERS: &str = "echo 60 >/sys/module/hangblk/parameters/answer_ms\n";

pub fn a_remove_that_hangs_after_a_long_sync_is_left_to_the_guard(test: &Test) -> Result<(), String> {
    // The time left for the teardown is then less than a slow driver may take.
    for policy in ["gpu-failed = jump", "gpu-failed = firmware-reboot"] {
        let before = format!("insmod /nvidia.ko hang_remove=1\n{WRITTEN}");
        let mut guest = faulty(test, &before, "--preload no", &(plan(policy) + &plan("guard = 5")))?;
        guest.file(BESIDE, 0o755, when_the_hook_says("sync, for as long as") + ANSWERS);
        let ended = guest.run()?;
        let took =
            when(&ended, "nextkernel: load /kernel")? - when(&ended, "nextkernel: sync, for as long as")?;
        if !(30.0..40.0).contains(&took) {
            return Err(with_last_lines(&format!("the sync took {took:.1} s"), &ended.console));
        }
        silent_of(&ended, "a reboot would hang like this, too")?;
        ended.line("nextkernel: the jump or the restart did not come within 5 seconds: reset")?;
        rebooted(&ended)?;
    }
    Ok(())
}

pub fn where_nobody_may_read_stacks_a_driver_that_hangs_resets_the_machine(
    test: &Test,
) -> Result<(), String> {
    // The second driver holds no lock; in the third case, another process already hangs in unloading the driver.
    for fault in ["hang_remove=1", "hang_exit=1", "hang_remove=1; /stuck unload /sys/module/nvidia"] {
        let before = format!(
            "echo 3 >/proc/sys/kernel/yama/ptrace_scope
            read -r scope </proc/sys/kernel/yama/ptrace_scope; echo \"scope: $scope\"
            insmod /nvidia.ko {fault}"
        );
        let after = plan("gpu-failed = jump") + &plan("guard = 100");
        let ended = faulty(test, &before, "", &after)?.run()?;
        ended.line("scope: 3")?;
        ended.line("whether the lock of its device is held cannot be told")?;
        ended.line("sysrq: Resetting")?;
        silent_of(&ended, "nextkernel: jump to")?;
        rebooted(&ended)?;
    }
    Ok(())
}

pub fn many_devices_that_hang_while_they_are_unbound_have_one_deadline_together(
    test: &Test,
) -> Result<(), String> {
    let devices: Vec<_> = (2..18).map(|slot| format!("0000:00:{slot:02x}.0")).collect();
    let hang = devices.get(4..).unwrap_or_default().join(",");
    let lines: String = devices.iter().map(|device| plan(&format!("unbind = {device}"))).collect();
    let before = format!("insmod /slowdev.ko hang_at={hang}");
    let ended = with_devices(test, 16, &before, "", &(lines + &plan("guard = 5")))?.run()?;
    let count = ended.console.matches(" goes\r").count();
    if count != devices.len() {
        return Err(with_last_lines(&format!("{count} devices were unbound"), &ended.console));
    }
    let took =
        when(&ended, "nextkernel: jump to")? - when(&ended, "nextkernel: unbind, all at the same time:")?;
    if !(14.0..18.0).contains(&took) {
        return Err(format!("the jump came after {took:.1} s"));
    }
    ended.line("sysrq: Resetting")?;
    rebooted(&ended)
}

pub fn an_image_that_nobody_may_jump_to_is_unloaded_before_the_other_hooks_are_waited_for(
    test: &Test,
) -> Result<(), String> {
    // The plan allows no jump; or every reboot(2) would hang, which is known after 45 s.
    for (parameter, policy, seconds) in
        [("", "gpu = nvidia firmware-reboot", 30), ("hang_remove=1", "gpu-failed = jump", 55)]
    {
        let mut guest = faulty(test, &format!("insmod /nvidia.ko {parameter}"), "", &plan(policy))?;
        let looks = "read -r loaded </sys/kernel/kexec_loaded\necho \"loaded: $loaded\" >/dev/kmsg\n";
        guest.file(BESIDE, 0o755, format!("#!/bin/sh\nsleep {seconds}\n{looks}"));
        let ended = guest.run()?;
        ended.line("loaded: 0")?;
        rebooted(&ended)?;
    }
    Ok(())
}

/// Replaces the staged kernel by another file, so that the hook refuses to load it.
const REPLACED: &str = "cd /run/nextkernel/*/ && cp kernel other && mv other kernel && cd /\n";

pub fn the_gpu_is_freed_for_the_kept_image_when_the_staged_one_was_replaced(
    test: &Test,
) -> Result<(), String> {
    let ended = faulty(test, "insmod /nvidia.ko", "", &(AGAIN.to_owned() + REPLACED))?.run()?;
    ended.line("nextkernel: no handoff: the kernel in /run/nextkernel is not the one that was staged")?;
    let freed = ["nextkernel: unload nvidia\r", "nvidia stand-in: 0000:00:02.0 removed"];
    in_order(&ended, &[&freed[..], &["NEXT KERNEL UP"]].concat())?;
    systemd_jumped_itself(&ended)
}

pub fn nothing_stays_loaded_when_the_staged_image_was_replaced_and_the_gpu_cannot_be_freed(
    test: &Test,
) -> Result<(), String> {
    let before = "insmod /nvidia.ko; mknod /dev/nvidia0 c 195 0; /stuck read /dev/nvidia0";
    let ended = faulty(test, before, "", &(AGAIN.to_owned() + REPLACED))?.run()?;
    rebooted(&ended)?;
    ended.line("'stuck' (").map(drop)
}

pub fn a_jump_that_fails_leaves_no_watchdog_armed(test: &Test) -> Result<(), String> {
    // The image to jump to is gone by then, and the restart that follows takes twice as long as the watchdog
    // waits.
    let load = "modprobe watchdog stop_on_reboot=0 && modprobe i6300esb || echo NO DRIVER\n";
    let scenario =
        load.to_owned() + &stage("") + &plan("watchdog = 15") + "insmod /hangnotify.ko pause_ms=30000\n";
    let mut guest = shutdown(test, "kexec", &scenario)?;
    standins::put(&mut guest, &["hangnotify"])?;
    guest.modules(&Modules::of(&test.image.files()?, &["watchdog", "i6300esb"])?);
    guest.file("/stuck", 0o755, programs::stuck()?);
    guest.file(
        BESIDE,
        0o755,
        when_the_hook_says("wait for the init's other hooks") + "/stuck unload-image\n",
    );
    guest.qemu = vec!["-device".into(), "i6300esb".into()];
    guest.counting = true;
    let ended = guest.run()?;
    silent_of(&ended, "NO DRIVER")?;
    in_order(
        &ended,
        &[
            "nextkernel: settle the watchdog",
            "nextkernel: jump to",
            "nextkernel: stop the watchdog again, for nothing was started",
            "reboot notifier returns",
        ],
    )?;
    rebooted(&ended)
}

pub fn five_hundred_modules_that_stand_on_a_driver_are_unloaded(test: &Test) -> Result<(), String> {
    // /proc/modules names all of them in one line, before the line of the driver below them.
    let load = "insmod /nvidia.ko; insmod /nvidia_modeset.ko
        for module in /nvidia_drm_*.ko; do insmod $module; done
        grep ^nvidia_modeset /proc/modules | wc -c | sed 's/^/the line in bytes: /'";
    let mut guest = faulty(test, load, "--preload no", "")?;
    standins::put(&mut guest, &["nvidia_modeset"])?;
    standins::put_many_with_long_names(&mut guest, 500)?;
    let ended = guest.run()?;
    let bytes: usize = ended
        .line("the line in bytes: ")?
        .rsplit(' ')
        .next()
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or_default();
    let count = ended.console.matches("nextkernel: unload nvidia_drm_").count();
    if bytes < 500 * 56 || count != 500 {
        return Err(with_last_lines(&format!("a line of {bytes} bytes, {count} unloaded"), &ended.console));
    }
    in_order(&ended, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")
}

pub fn a_limit_on_loads_is_not_spent_while_somebody_else_loads(test: &Test) -> Result<(), String> {
    // The hook is started late, so that its load falls in the midst of the other loads.
    let limit = "echo 2 >/proc/sys/kernel/kexec_load_limit_reboot\n";
    let scenario = "truncate -s 16M /big\n".to_owned() + &stage("--preload no") + limit;
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.file("/stuck", 0o755, programs::stuck()?);
    guest.file(BESIDE, 0o755, "#!/bin/sh\nexec /stuck contend /kernel /big\n");
    guest.host_file("/usr/bin/nextkernel-hook", 0o755, &installed().join(HOOK.trim_start_matches('/')))?;
    guest.file(HOOK, 0o755, "#!/bin/sh\nsleep 0.2\nexec /usr/bin/nextkernel-hook $1\n");
    (guest.memory, guest.counting) = (768, true);
    handed_over(&guest.run()?, "kexec")
}

pub fn an_unknown_option_is_no_verb_to_pid_1(test: &Test) -> Result<(), String> {
    for option in ["--quiet", "-s"] {
        let scenario = stage("--preload no --on reboot") + &format!("exec {HOOK} {option}");
        handed_over(&shutdown(test, "", &scenario)?.run()?, "reboot")?;
    }
    Ok(())
}

/// An initrd with an exitrd that carries the hook; systemd-shutdown in an initrd does not change to an exitrd.
/// The exitrd is on its own file system, because /run is noexec.
const IN_AN_INITRD: &str = "
mkdir -p /etc; : >/etc/initrd-release
mkdir -p /run/initramfs; mount -t tmpfs -o mode=0755 exitrd /run/initramfs
hooks=/run/initramfs/usr/lib/systemd/system-shutdown
mkdir -p $hooks && cp /usr/lib/systemd/system-shutdown/nextkernel $hooks
cp /usr/lib/systemd/systemd-shutdown /run/initramfs/shutdown
";

pub fn in_an_initrd_the_hook_leaves_nothing_to_an_exitrd(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("--preload no") + IN_AN_INITRD))?.run()?;
    handed_over(&ended, "kexec")
}
