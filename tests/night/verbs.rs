//! Tests that each verb leads where the plan says or, without a plan, where the init goes.

use super::staged::{HOOK, handed_over, rebooted, shutdown, stage};
use bed::guest::shutdown::Ended;
use bed::harness::Test;
use bed::host::paths::vm_directory;
use bed::initramfs::modules::Modules;
use bed::machine::{End, with_last_lines};

pub fn kexec_jumps_with_the_image_kept(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &stage(""))?.run()?;
    handed_over(&ended, "kexec")
}

pub fn kexec_jumps_with_nothing_loaded_by_day(test: &Test) -> Result<(), String> {
    let scenario =
        stage("--preload no") + "read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"";
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    ended.line("loaded: 0")?;
    handed_over(&ended, "kexec")
}

pub fn reboot_jumps_when_the_plan_covers_it(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "reboot", &stage("--preload no --on reboot"))?.run()?;
    handed_over(&ended, "reboot")
}

pub fn reboot_reboots_when_the_plan_does_not_cover_it(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "reboot", &stage("--preload no --on kexec"))?.run()?;
    ended.line("nextkernel: reboot: staged for kexec alone, left to the init")?;
    rebooted(&ended)
}

pub fn poweroff_and_halt_are_untouched(test: &Test) -> Result<(), String> {
    for (verb, end) in [("poweroff", End::PoweredOff), ("halt", End::Halted)] {
        let ended = shutdown(test, verb, &stage("--on kexec --on reboot"))?.run()?;
        ended.expect(end)?;
        ended.line(&format!("nextkernel: {verb}: no next kernel is asked for, left to the init"))?;
        if ended.console.contains("NEXT KERNEL UP") {
            return Err(format!("a next kernel came up at {verb}"));
        }
    }
    Ok(())
}

/// A container whose own PID 1 carries out a shutdown, as dracut's script does; and a container in which a
/// person types a verb.
const CONTAINERS: &str = r#"
printf '#!/bin/sh\nHOOK $1 2>&1; echo "own $1: $?"\n' >/shutdown; chmod 755 /shutdown
for verb in poweroff reboot; do unshare -m -p -f --mount-proc /shutdown $verb; done
unshare -m -p -f --mount-proc sh -c 'HOOK reboot 2>&1; echo "typed: $?"'
"#;

pub fn a_containers_own_shutdown_is_left_alone_and_what_is_typed_in_one_is_refused(
    test: &Test,
) -> Result<(), String> {
    let scenario = stage("--preload no") + &CONTAINERS.replace("HOOK", HOOK);
    let ended = shutdown(test, "poweroff", &scenario)?.run()?;
    ended.expect(End::PoweredOff)?;
    for line in ["own poweroff: 0", "own reboot: 0", "refused: this is a container", "typed: 1"] {
        ended.line(line)?;
    }
    // Only the last of the three calls was refused; the hook reports that on its terminal and in the kernel log.
    let own = ended.console.split("own reboot: 0").next().unwrap_or_default();
    if own.contains("refused") { Err("a container's own shutdown is refused".into()) } else { Ok(()) }
}

pub fn with_nothing_staged_all_is_left_to_the_init(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", "")?.run()?;
    ended.line("nextkernel: kexec: nothing is staged, left to the init")?;
    rebooted(&ended)
}

pub fn an_image_that_somebody_else_loaded_is_left_to_systemd(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("") + "rm -r /run/nextkernel"))?.run()?;
    ended.line("nextkernel: kexec: nothing is staged, left to the init")?;
    super::staged::systemd_jumped_itself(&ended)
}

pub fn a_reboot_that_is_meant_for_the_firmware_is_left_to_it(test: &Test) -> Result<(), String> {
    // `systemctl reboot --reboot-argument=` writes this file.
    let asks = format!("mkdir /run/systemd && echo x >/run/systemd/reboot-param\n{HOOK} --dry-run reboot");
    let ended = shutdown(test, "reboot", &(stage("--preload no --on reboot") + &asks))?.run()?;
    let why = "this one is meant for the firmware (/run/systemd/reboot-param), left to the init";
    ended.line(&format!("at reboot: {why}"))?;
    ended.line(&format!("nextkernel: reboot: {why}"))?;
    rebooted(&ended)?;
    // `nextkernel reboot --full` leaves this file. Here an image is loaded again afterwards.
    let full = "touch /run/nextkernel/firmware\n";
    let ended = shutdown(test, "kexec", &(stage("--on kexec --on reboot") + full))?.run()?;
    ended.line("nextkernel: unload what may be loaded: it is not for this restart")?;
    ended.line(
        "nextkernel: kexec: this one is meant for the firmware (/run/nextkernel/firmware), left to the init",
    )?;
    rebooted(&ended)
}

/// EFI variables that request something from the firmware or the boot loader: name, vendor, and the value
/// written after the attributes.
const REQUESTS: [(&str, &str, &str); 4] = [
    ("BootNext", GLOBAL, "\\001\\000"),
    ("OsIndications", GLOBAL, "\\001\\000\\000\\000\\000\\000\\000\\000"),
    ("LoaderEntryOneShot", OF_THE_LOADER, "o\\000\\000\\000"),
    // This requests the boot menu without a timeout.
    ("LoaderConfigTimeoutOneShot", OF_THE_LOADER, "0\\000\\000\\000"),
];

/// Vendor GUIDs: the global variables of UEFI, and systemd's Boot Loader Interface.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const OF_THE_LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// Runs a guest under OVMF in which an EFI variable requests something; the image is preloaded and staged for
/// both verbs.
fn with_request(
    test: &Test,
    verb: &str,
    (name, whose, value): (&str, &str, &str),
    scenario: &str,
) -> Result<Ended, String> {
    let asks = format!(
        "{scenario}
        modprobe efivarfs && mount -t efivarfs none /sys/firmware/efi/efivars || echo NO VARIABLES
        printf '\\007\\000\\000\\000x\\000\\000\\000' >/sys/firmware/efi/efivars/LoaderInfo-{OF_THE_LOADER} || echo NOT WRITTEN
        printf '\\007\\000\\000\\000{value}' >/sys/firmware/efi/efivars/{name}-{whose} || echo NOT WRITTEN\n"
    );
    // efivarfs is not mounted in an exitrd with systemd 252, nor under inits that do not mount it.
    let unmounted = "umount /sys/firmware/efi/efivars\n";
    let mut guest = shutdown(test, verb, &(asks + &stage("--on kexec --on reboot") + unmounted))?;
    guest.modules(&Modules::of(&test.image.files()?, &["efivarfs"])?);
    guest.qemu = vec!["-bios".into(), "/usr/share/ovmf/OVMF.fd".into()];
    let ended = guest.run()?;
    match ["NO VARIABLES", "NOT WRITTEN"].iter().find(|wrong| ended.console.contains(**wrong)) {
        Some(wrong) => Err(with_last_lines(wrong, &ended.console)),
        None => Ok(ended),
    }
}

pub fn whoever_asks_for_the_firmware_in_its_variables_gets_it_and_nothing_stays_loaded(
    test: &Test,
) -> Result<(), String> {
    for (request, verb) in REQUESTS.into_iter().zip(["kexec", "reboot"].into_iter().cycle()) {
        let ended = with_request(test, verb, request, "")?;
        ended.line("nextkernel: unload what may be loaded: it is not for this restart")?;
        let (name, ..) = request;
        ended.line(&format!(
            "nextkernel: {verb}: this one is meant for the firmware ({name}), left to the init"
        ))?;
        rebooted(&ended)?;
    }
    Ok(())
}

pub fn where_the_configuration_says_so_a_request_in_the_firmwares_variables_is_passed_over(
    test: &Test,
) -> Result<(), String> {
    let [request, ..] = REQUESTS;
    let scenario = "mkdir -p /etc; echo 'firmware-requests = ignore' >/etc/nextkernel.conf";
    handed_over(&with_request(test, "kexec", request, scenario)?, "kexec")
}

pub fn a_line_that_is_reused_does_not_grow(test: &Test) -> Result<(), String> {
    // The running kernel's command line was lengthened by somebody: every parameter with the record's name goes,
    // whatever its value.
    let placeholder = format!("nextkernel.record={}", "x".repeat(40));
    let scenario =
        "nextkernel stage --kernel /kernel --initrd /next.cpio --reuse-cmdline --append 'staged=yes'";
    let mut guest = shutdown(test, "kexec", scenario)?;
    guest.append = format!("a=1 {placeholder}");
    let ended = guest.run()?;
    ended.line("NEXT KERNEL UP: console=ttyS0 a=1 staged=yes nextkernel.record=")?;
    let told = ended.console.split("NEXT KERNEL UP").nth(1).unwrap_or_default();
    if told.contains("xxxx") { Err(format!("it grew: {told}")) } else { Ok(()) }
}

pub fn where_the_plan_says_so_the_jump_is_systemds(test: &Test) -> Result<(), String> {
    let scenario = "mkdir -p /etc; echo 'jump = init' >/etc/nextkernel.conf\n".to_owned() + &stage("");
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    // The hook does everything but the jump, which systemd does.
    handed_over(&ended, "kexec")?;
    ended.line("nextkernel: leave the jump to the init, as the plan says")?;
    if ended.console.contains("nextkernel: jump to") { Err("the hook jumped itself".into()) } else { Ok(()) }
}

pub fn where_systemd_tells_its_hooks_no_verb_its_command_line_does(test: &Test) -> Result<(), String> {
    // This imitates systemd 262, which wants to pass the verb to its hooks but has overwritten it.
    for (verb, line) in [
        ("kexec", "nextkernel: jump to /kernel"),
        ("poweroff", "nextkernel: poweroff: no next kernel is asked for, left to the init"),
    ] {
        let mut guest = shutdown(test, verb, &stage("--preload no"))?;
        let hook = vm_directory().join("installed").join(HOOK.trim_start_matches('/'));
        guest.host_file("/usr/bin/nextkernel-hook", 0o755, &hook)?;
        guest.file(HOOK, 0o755, "#!/bin/sh\nexec /usr/bin/nextkernel-hook ''\n");
        let ended = guest.run()?;
        ended.expect(End::PoweredOff)?;
        ended.line(line)?;
        if verb == "kexec" {
            handed_over(&ended, verb)?;
        }
    }
    Ok(())
}
