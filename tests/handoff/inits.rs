//! Tests inits other than systemd: `nextkernel reboot` asks each to restart, and its own commands take the
//! machine down.

use std::fs;
use std::path::Path;

use bed::guest::inits;
use bed::guest::whole::Guest;
use bed::harness::Test;
use bed::machine::End;

use super::kexec::hand_over;

/// Runs outside the agent's session: on its way down, the init would wait for the agent until the agent's
/// command has ended.
const ASK: &str = "sh -c 'setsid nextkernel reboot &'";

/// Arms the staged kernel and vouches for it, as `nextkernel reboot` does.
const ARM: &str = "cd /run/nextkernel
    up=$(cut -d. -f1 /proc/uptime)
    printf 'nextkernel-armed 1\\n%s\\nuntil = %d\\nend\\n' \"$(grep ^handoff plan)\" $((up + 200)) >armed
    setsid sh -c 'trap \"\" TERM HUP; exec 9<armed; flock 9; while :; do sleep 1; done' >/dev/null 2>&1 &";

pub fn under_sysvinit_the_staged_kernel_starts_and_nothing_else_starts_it(test: &Test) -> Result<(), String> {
    passage(test, "sysvinit", "sysvinit", Some("shutdown -r now"), "poweroff")
}

pub fn under_openrc_and_sysvinit_the_staged_kernel_starts_and_nothing_else_starts_it(
    test: &Test,
) -> Result<(), String> {
    passage(test, "openrc", "openrc", None, "poweroff")
}

pub fn under_openrc_init_the_staged_kernel_starts_and_nothing_else_starts_it(
    test: &Test,
) -> Result<(), String> {
    passage(test, "openrc-init", "openrc", None, "openrc-shutdown -p now")
}

pub fn under_runit_the_staged_kernel_starts_and_nothing_else_starts_it(test: &Test) -> Result<(), String> {
    passage(test, "runit", "sysvinit", Some("reboot"), "poweroff")
}

pub fn under_finit_the_staged_kernel_starts_and_nothing_else_starts_it(test: &Test) -> Result<(), String> {
    passage(test, "finit", "finit", Some("initctl reboot"), "initctl poweroff")
}

pub fn under_busybox_the_staged_kernel_starts_and_nothing_else_starts_it(test: &Test) -> Result<(), String> {
    passage(test, "busybox", "busybox", Some("reboot"), "poweroff")
}

/// Proves that `nextkernel reboot` hands over, that the init's own restart goes through firmware, and that a
/// power off powers off, whatever is armed. Each of the three begins from the same boot.
fn passage(test: &Test, init: &str, unit: &str, restart: Option<&str>, off: &str) -> Result<(), String> {
    let begin = || {
        let mut guest = Guest::boot(&inits::spec(test, init)?)?;
        install(&mut guest, unit)?;
        guest.ok("nextkernel stage --loader direct --preload no")?;
        Ok::<_, String>(guest)
    };
    hand_over(&mut begin()?, ASK, "kexec")?;
    if let Some(restart) = restart {
        super::kexec::restart(&mut begin()?, restart)?;
    }
    let mut guest = begin()?;
    guest.ok(ARM)?;
    guest.send(off)?;
    let end = guest.await_off()?;
    if end == End::PoweredOff { Ok(()) } else { Err(guest.tell(&format!("{off}: {end:?}"))) }
}

/// Installs the files for an init with the commands of units/README.md.
fn install(guest: &mut Guest, unit: &str) -> Result<(), String> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../units");
    let text = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let readme = text(&units.join("README.md"))?;
    let commands = readme
        .split_once(&format!("\n## {unit}\n"))
        .and_then(|(_, section)| section.split_once("```sh\n"))
        .and_then(|(_, block)| block.split_once("```"))
        .ok_or_else(|| format!("units/README.md has no commands for {unit}"))?
        .0;
    let directory = units.join(unit);
    for entry in directory.read_dir().map_err(|e| format!("{}: {e}", directory.display()))?.flatten() {
        let (name, text) = (entry.file_name().to_string_lossy().into_owned(), text(&entry.path())?);
        guest.ok(&format!(
            "mkdir -p /root/units/{unit} && cat >/root/units/{unit}/{name} <<'END OF FILE'\n{text}END OF FILE"
        ))?;
    }
    guest.ok(&format!("set -e\ncd /root\n{commands}")).map(drop)
}
