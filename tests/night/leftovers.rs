//! Tests that the hook finds and ends the processes an init leaves behind, however they hide and however many
//! there are, and reports them in one line of the log.

use super::inits;
use super::staged::{HOOK, handed_over, in_order, shutdown, stage};
use bed::guest::shutdown::{Ended, Shutdown};
use bed::guest::standins;
use bed::harness::Test;
use bed::host::programs;
use bed::initramfs::modules::Modules;
use std::path::Path;
use std::time::Duration;

/// A file system with data to lose.
const KEPT: &str = "modprobe loop; modprobe crc32c_generic; modprobe ext4
dd if=/dev/zero of=/disk bs=1M count=4 2>/dev/null; losetup /dev/loop0 /disk; mke2fs /dev/loop0 >/dev/null
mkdir /kept; mount -t ext4 /dev/loop0 /kept
";

/// As long as a file is open for writing there, the file system stays writable, which forbids the jump.
const IS_KEPT: &str = "mount -o remount,ro /kept 2>/dev/null || echo it is kept writable\n";

/// Makes each line of the kernel log take 5 ms.
const SLOW_CONSOLE: &str = "echo 5 >/proc/sys/kernel/printk_delay\n";

/// The caller of the hook while all processes still run.
#[derive(Clone, Copy, Debug)]
enum By {
    /// No caller: the hook is PID 1.
    Nobody,
    /// procd, which leaves little time.
    Procd,
}

/// Returns a guest in which these lines hide a process while the system runs.
fn hidden(test: &Test, by: By, scenario: &str) -> Result<Shutdown, String> {
    let last = match by {
        By::Nobody => format!("exec {HOOK} kexec"),
        By::Procd => "exec /sbin/procd /pid-1 reboot".into(),
    };
    let mut guest =
        shutdown(test, "", &format!("{}{KEPT}{scenario}\n{IS_KEPT}{last}", stage("--preload no")))?;
    guest.modules(&Modules::of(&test.image.files()?, &["loop", "crc32c_generic", "ext4"])?);
    guest.file("/hide", 0o755, programs::hide()?);
    if matches!(by, By::Procd) {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../units/procd/nextkernel");
        guest.host_file("/etc/rc.d/K99nextkernel", 0o755, &unit)?;
        inits::pid_1(&mut guest, "procd", inits::PROCD)?;
    }
    (guest.counting, guest.limit) = (true, Duration::from_secs(300));
    Ok(guest)
}

/// Proves that the hidden process is ended, because the jump is made.
fn is_ended(test: &Test, by: By, scenario: &str) -> Result<Ended, String> {
    is_ended_in(hidden(test, by, scenario)?, by)
}

fn is_ended_in(guest: Shutdown, by: By) -> Result<Ended, String> {
    let ended = guest.run()?;
    ended.line("it is kept writable")?;
    handed_over(&ended, "kexec").map_err(|error| format!("by {by:?}: {error}"))?;
    Ok(ended)
}

pub fn a_process_that_lives_on_without_its_first_thread_is_ended(test: &Test) -> Result<(), String> {
    for by in [By::Nobody, By::Procd] {
        is_ended(test, by, "/hide nobody thread /kept/file")?;
    }
    Ok(())
}

pub fn a_process_whose_command_line_reads_as_empty_is_ended(test: &Test) -> Result<(), String> {
    for by in [By::Nobody, By::Procd] {
        is_ended(test, by, "/hide nobody nameless /kept/file")?;
    }
    Ok(())
}

pub fn a_process_that_stands_deep_below_others_is_ended(test: &Test) -> Result<(), String> {
    for by in [By::Nobody, By::Procd] {
        is_ended(test, by, "/hide nobody deep /kept/file 40")?;
    }
    Ok(())
}

/// Returns a guest under systemd in which these lines hide a process that holds the GPU.
fn held(test: &Test, hide: &str) -> Result<Shutdown, String> {
    let load = "insmod /nvidia.ko; mknod /dev/nvidia0 c 195 0";
    let scenario = format!("{load}; {hide}; rmmod nvidia 2>/dev/null || echo it is kept loaded\n");
    let mut guest = shutdown(test, "kexec", &(stage("--preload no") + &scenario))?;
    standins::put(&mut guest, &["nvidia"])?;
    guest.file("/hide", 0o755, programs::hide()?);
    guest.qemu = vec!["-device".into(), "edu".into()];
    guest.counting = true;
    Ok(guest)
}

/// Proves that the process that holds the GPU is ended, and the GPU is freed.
fn is_freed(guest: Shutdown) -> Result<Ended, String> {
    let ended = guest.run()?;
    ended.line("it is kept loaded")?;
    in_order(&ended, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")?;
    Ok(ended)
}

pub fn the_gpu_is_freed_of_a_process_that_lives_on_without_its_first_thread(
    test: &Test,
) -> Result<(), String> {
    is_freed(held(test, "/hide @ thread /dev/nvidia0")?).map(drop)
}

pub fn the_gpu_is_freed_of_a_thread_that_has_descriptors_of_its_own(test: &Test) -> Result<(), String> {
    is_freed(held(test, "/hide @ apart /dev/nvidia0")?).map(drop)
}

pub fn the_gpu_is_freed_of_a_process_that_stands_deep_below_others(test: &Test) -> Result<(), String> {
    is_freed(held(test, "/hide @ deep /dev/nvidia0 40")?).map(drop)
}

pub fn a_crowd_is_ended_first_and_told_of_in_one_line_after_it(test: &Test) -> Result<(), String> {
    // Under procd, `nextkernel reboot` is one more process: it still waits.
    for (by, count) in [(By::Nobody, 801), (By::Procd, 802)] {
        let ended = is_ended(test, by, &format!("/hide nobody crowd /kept/file 801\n{SLOW_CONSOLE}"))?;
        let more = count - 4;
        ended.line(&format!(
            "nextkernel: end {count} processes that still run: 'hide', 'hide', 'hide', 'hide' and {more} more"
        ))?;
        if ended.console.matches("'hide'").count() > 4 {
            return Err(format!("more than one line tells of them:\n{}", ended.console));
        }
    }
    Ok(())
}

pub fn a_process_that_is_another_one_at_each_look_is_ended(test: &Test) -> Result<(), String> {
    is_ended(test, By::Nobody, "/hide nobody flee /kept/file").map(drop)
}

pub fn processes_that_multiply_are_ended(test: &Test) -> Result<(), String> {
    is_ended(test, By::Procd, "/hide nobody multiply /kept/file 100").map(drop)
}

pub fn where_no_process_can_be_made_room_is_made_first(test: &Test) -> Result<(), String> {
    let mut guest = hidden(test, By::Nobody, "/hide nobody many /kept/file 300")?;
    let last = format!("exec {HOOK}");
    guest.scenario =
        guest.scenario.replace(&last, &format!("echo 200 >/proc/sys/kernel/threads-max\n{last}"));
    let ended = is_ended_in(guest, By::Nobody)?;
    ended.line("nextkernel: the guard is not complete: EAGAIN").map(drop)
}

pub fn where_sigchld_is_ignored_it_hands_over_all_the_same(test: &Test) -> Result<(), String> {
    let scenario = "/hide careless /bin/busybox grep SigIgn /proc/self/status\nexec /hide careless";
    let mut guest = shutdown(test, "", &(stage("--preload no") + &format!("{scenario} {HOOK} kexec")))?;
    guest.file("/hide", 0o755, programs::hide()?);
    guest.counting = true;
    let ended = guest.run()?;
    ended.line("SigIgn:\t0000000000010000")?;
    handed_over(&ended, "kexec")
}

/// Raises the kernel's limits to 40000 processes and threads.
const LET_BE_MANY: &str = "echo 40000 >/proc/sys/kernel/pid_max; echo 40000 >/proc/sys/kernel/threads-max";

pub fn two_thousand_processes_are_ended(test: &Test) -> Result<(), String> {
    let scenario = format!("{LET_BE_MANY}; /hide nobody many /kept/file 2000");
    let mut guest = hidden(test, By::Nobody, &scenario)?;
    guest.memory = 1024;
    let ended = is_ended_in(guest, By::Nobody)?;
    ended.line("nextkernel: end 2000 processes that still run: 'hide', ").map(drop)
}

pub fn thousands_of_processes_that_systemd_spares_hold_up_nothing(test: &Test) -> Result<(), String> {
    // systemd prints the name of each of them.
    let many = format!("{LET_BE_MANY}; /hide @ many /dev/null 3000; dmesg -n 1");
    let mut guest = held(test, &format!("{many}; /hide @ crowd /dev/nvidia0 1"))?;
    let slow = "#!/bin/sh\nsleep 6\necho the slow hook is done >/dev/kmsg\n";
    guest.file("/usr/lib/systemd/system-shutdown/slow", 0o755, slow);
    (guest.memory, guest.limit) = (1024, Duration::from_secs(300));
    let ended = is_freed(guest)?;
    in_order(&ended, &["the slow hook is done", "nextkernel: jump to"])
}

/// Names of a process and of mount points that contain a line break and would print as two lines.
const FORGED: &str = "/hide nobody named /kept/file
mkdir '/x\nforged' && mount --bind /kept '/x\nforged'
mkdir /oldroot && mount -t tmpfs none /oldroot && mkdir '/oldroot/y\nforged' && mount -t tmpfs none '/oldroot/y\nforged'
exec 8>'/oldroot/y\nforged/file'";

pub fn a_name_from_outside_never_begins_a_line_of_the_log(test: &Test) -> Result<(), String> {
    let ended = is_ended(test, By::Nobody, FORGED)?;
    let begins = |line: &str| {
        let said = line.split_once("] ").map_or(line, |(_, said)| said);
        said.strip_prefix("nextkernel: ").unwrap_or(said).starts_with("forged")
    };
    if ended.console.lines().any(begins) {
        return Err(format!("a name begins a line:\n{}", ended.console));
    }
    for told in ["'x?forged'", "remount /x?forged", "unmount /oldroot/y?forged"] {
        ended.line(told)?;
    }
    Ok(())
}

/// Proves that an old root with these additions is closed.
fn is_closed(test: &Test, scenario: &str) -> Result<Ended, String> {
    let old_root = format!("mkdir /oldroot; mount -t tmpfs none /oldroot\n{scenario}\n");
    let mut guest = shutdown(test, "", &(stage("--preload no") + &old_root + &format!("exec {HOOK} kexec")))?;
    guest.modules(&Modules::of(&test.image.files()?, &["overlay"])?);
    guest.file("/mounts", 0o755, programs::mounts()?);
    (guest.counting, guest.limit) = (true, Duration::from_secs(300));
    let ended = guest.run()?;
    ended.line("nextkernel: the old root is closed")?;
    handed_over(&ended, "kexec")?;
    Ok(ended)
}

pub fn a_mount_that_has_a_long_line_is_closed_with_all_others(test: &Test) -> Result<(), String> {
    let long = "awk 'length($0) > 16384 { print \"a line is long\" }' /proc/self/mountinfo";
    let scenario =
        format!("modprobe overlay; mkdir /oldroot/layers; /mounts layers /oldroot/layers 250; {long}");
    is_closed(test, &scenario)?.line("a line is long").map(drop)
}

pub fn thousands_of_mounts_are_closed(test: &Test) -> Result<(), String> {
    let count = "echo $(grep -c oldroot /proc/mounts) mounts";
    let ended = is_closed(test, &format!("/mounts many /oldroot 5000; {count}"))?;
    ended.line("5001 mounts").map(drop)
}
