//! Tests the nvidia stack with stand-ins on QEMU's edu device: their order, users and deadlines are those of the
//! real stack. This cannot show that a real GPU works again afterwards.

use super::staged::{handed_over, in_order, plan, rebooted, shutdown, stage};
use bed::guest::shutdown::{Ended, Shutdown};
use bed::guest::standins;
use bed::harness::Test;
use bed::host::programs;

/// Modules of the stack, in the order of loading.
const STACK: [&str; 4] = ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"];

/// Creates device nodes, as nvidia-modprobe does; the major number of nvidia-uvm is dynamic.
const NODES: &str = "mknod /dev/nvidia0 c 195 0
mknod /dev/nvidia-uvm c $(awk '$2 == \"nvidia-uvm\" { print $1 }' /proc/devices) 0\n";

/// Returns a guest with the stack loaded, a kernel staged, and more shell lines run afterwards.
fn stack(test: &Test, parameters: &str, scenario: &str) -> Result<Shutdown, String> {
    let load: String = STACK.map(|name| format!("insmod /{name}.ko $PARAMETERS; PARAMETERS=\n")).concat();
    let scenario = format!("PARAMETERS='{parameters}'\n{load}{NODES}{}{scenario}", stage("--preload no"));
    let mut guest = shutdown(test, "kexec", &scenario)?;
    standins::put(&mut guest, &STACK)?;
    standins::put(&mut guest, &["nvidia_peermem"])?;
    guest.file("/holder", 0o755, programs::holder()?);
    guest.qemu = vec!["-device".into(), "edu".into()];
    guest.counting = true;
    Ok(guest)
}

pub fn the_stack_is_unloaded_leaf_first(test: &Test) -> Result<(), String> {
    let ended = stack(test, "", "")?.run()?;
    for leaf in ["nvidia_drm", "nvidia_uvm"] {
        in_order(&ended, &[&format!("nextkernel: unload {leaf}"), "nextkernel: unload nvidia\r"])?;
    }
    in_order(
        &ended,
        &[
            "nextkernel: unload nvidia_drm",
            "nextkernel: unload nvidia_modeset",
            "nextkernel: unload nvidia\r",
        ],
    )?;
    in_order(&ended, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")
}

/// Proves that each of these holders of the GPU is ended, and the GPU is freed.
fn ended(test: &Test, holders: &str) -> Result<(), String> {
    let ended = stack(test, "", holders)?.run()?;
    let told = ended.console.lines().filter(|line| line.contains("nextkernel: end who holds nvidia"));
    let count: usize = told.map(|line| line.matches("'holder'").count()).sum();
    if count < holders.lines().count() {
        return Err(format!("{count} ended:\n{}", ended.console));
    }
    ended.line("nvidia stand-in: 0000:00:02.0 removed")?;
    handed_over(&ended, "kexec")
}

pub fn processes_that_keep_the_gpu_open_past_systemds_killing_are_ended(test: &Test) -> Result<(), String> {
    ended(test, "/holder @ open /dev/nvidia0\n/holder @ open /dev/nvidia-uvm\n")
}

pub fn a_process_that_holds_the_gpu_by_a_mapping_alone_is_ended(test: &Test) -> Result<(), String> {
    ended(test, "/holder @ map /dev/nvidia0\n")
}

pub fn a_module_that_is_still_loading_is_waited_for(test: &Test) -> Result<(), String> {
    // The load starts before the shutdown; its probe still runs when the hook unloads.
    let mut guest = shutdown(test, "kexec", &stage("--preload no"))?;
    standins::put(&mut guest, &["nvidia"])?;
    guest.file("/stuck", 0o755, programs::stuck()?);
    guest.qemu = vec!["-device".into(), "edu".into()];
    guest.counting = true;
    guest.scenario += "/stuck load /nvidia.ko probe_ms=8000\nsleep 1\n";
    let ended = guest.run()?;
    in_order(&ended, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&ended, "kexec")
}

/// Proves that a failed unload is reported; the machine then restarts through firmware, or jumps if the plan
/// says so.
fn cannot_be_unloaded(test: &Test, scenario: &str, told: &str) -> Result<Ended, String> {
    let careful = stack(test, "", scenario)?.run()?;
    careful.line(told)?;
    rebooted(&careful)?;
    let daring = stack(test, "", &(plan("gpu-failed = jump") + scenario))?.run()?;
    daring.line(told)?;
    handed_over(&daring, "kexec")?;
    Ok(daring)
}

pub fn a_module_that_is_permanent_is_told_keeps_no_other_branch_and_the_plan_decides(
    test: &Test,
) -> Result<(), String> {
    let ended = cannot_be_unloaded(test, "insmod /nvidia_peermem.ko\n", "nvidia_peermem")?;
    for branch in ["nvidia_uvm", "nvidia_drm", "nvidia_modeset"] {
        ended.line(&format!("nextkernel: unload {branch}"))?;
    }
    Ok(())
}

pub fn what_another_hook_runs_is_never_ended(test: &Test) -> Result<(), String> {
    let mut guest = stack(test, "", "")?;
    // The GPU is held for less time than the hook keeps retrying a driver in use.
    let holds = "exec 3</dev/nvidia0; sleep 2; echo it was spared >/dev/console";
    let hook = format!("#!/bin/sh\nsh -c '{holds}'\necho done >/dev/console\n");
    guest.file("/usr/lib/systemd/system-shutdown/other", 0o755, hook);
    let ended = guest.run()?;
    ended.line("it was spared")?;
    if ended.console.contains("nextkernel: end who holds") {
        return Err(format!("a process of another hook was ended:\n{}", ended.console));
    }
    handed_over(&ended, "kexec")
}

pub fn where_no_module_may_be_unloaded_it_is_told_and_the_plan_decides(test: &Test) -> Result<(), String> {
    let disabled = "echo 1 >/proc/sys/kernel/modules_disabled\n";
    cannot_be_unloaded(test, disabled, "EPERM: modules_disabled").map(drop)
}

pub fn an_nvidia_gpu_is_never_unbound_but_unloaded_however_long_that_takes(
    test: &Test,
) -> Result<(), String> {
    let by_policy = stack(test, "exit_ms=3000", &plan("gpu = * unbind"))?.run()?;
    by_policy.line("nextkernel: free the GPU of nvidia: unload it")?;
    in_order(&by_policy, &["nvidia stand-in: 0000:00:02.0 removed", "nextkernel: jump to"])?;
    handed_over(&by_policy, "kexec")?;
    let by_address = plan("gpu = nvidia leave") + &plan("unbind = 0000:00:02.0");
    let by_address = stack(test, "", &by_address)?.run()?;
    by_address.line("nextkernel: 0000:00:02.0 stays bound: ")?;
    by_address.line("nvidia stand-in: 0000:00:02.0 shut down")?;
    handed_over(&by_address, "kexec")
}
