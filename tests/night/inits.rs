//! Tests inits that Debian does not package: a stand-in for each does what the init's source says about its last
//! moments, with the file from `units`.

use std::fs;
use std::path::Path;

use bed::guest::inits;
use bed::guest::shutdown::Shutdown;
use bed::harness::Test;
use bed::machine::End;

use super::staged::{handed_over, shutdown, stage};

/// Arms the staged kernel. No process vouches for it, because the requesting process has been killed with all
/// others.
const ARM: &str = "read -r up _ </proc/uptime
{ echo 'nextkernel-armed 1'; grep '^handoff = ' /run/nextkernel/plan; echo \"until = $((${up%.*} + 200))\"; echo end; } \
    >/run/nextkernel/armed
";

/// `prepare_stage4` and its surroundings (s6-linux-init-shutdownd.c), under the real s6 and execline. The
/// programs of s6-linux-init itself are not packaged, and are stand-ins.
const S6: &str = "mount -o remount,exec /run
PATH=/usr/lib/execline/bin:$PATH; export PATH
printf '#!/bin/sh\\n' >/bin/s6-linux-init-umountall
printf '#!/bin/sh\\ncase $2 in -r) exec reboot -f ;; *) exec poweroff -f ;; esac\\n' >/bin/s6-linux-init-hpr
chmod 755 /bin/s6-linux-init-*
mkdir -p /run/service/s6-linux-init-shutdownd
cat >/run/service/s6-linux-init-shutdownd/run <<'EOF'
#!/usr/lib/execline/bin/execlineb -P

foreground { s6-linux-init-umountall }
foreground { tryexec { \"/etc/s6-linux-init/current/scripts/rc.shutdown.final\" } }
s6-linux-init-hpr -f -WAY
EOF
chmod 755 /run/service/s6-linux-init-shutdownd/run
exec s6-svscan /run/service
";

/// `do_system_shutdown` (src/shutdown.cc); PID 1 is a program with the name `shutdown`.
const DINIT: &str = "kill -TERM -1
sleep 1
kill -KILL -1
case $2 in -r) way=reboot ;; *) way=poweroff ;; esac
/etc/dinit/shutdown-hook $way || echo 'dinit unmounts'
[ $way = reboot ] && exec reboot -f
exec poweroff -f
";

/// The end of `main` (nitro.c).
const NITRO: &str = "cd /etc/nitro
kill -KILL -1
SYS/final $1
mount -o remount,ro /
sync
[ $1 = reboot ] && exec reboot -f
exec poweroff -f
";

/// `procd_shutdown` and what follows (state.c, rcS.c), and the part of rc.common that runs a script.
pub(super) const PROCD: &str = "printf '#!/bin/sh\\n. $1\\n$2\\n' >/etc/rc.common
printf '#!/bin/sh\\necho reboot >/run/asked\\n' >/run/reboot
chmod 755 /etc/rc.common
rm /bin/reboot
cp /run/reboot /bin/reboot
chmod 755 /bin/reboot
if [ $1 = reboot ]; then nextkernel reboot >/dev/console 2>&1 & else echo poweroff >/run/asked; fi
while [ ! -s /run/asked ]; do sleep 1; done
/etc/rc.d/K99nextkernel shutdown
kill -TERM -1
sleep 1
kill -KILL -1
sync
[ $1 = reboot ] && exec busybox reboot -f
exec busybox poweroff -f
";

pub fn s6_linux_init_runs_it_as_it_is_told_by_the_stage_it_ends_in(test: &Test) -> Result<(), String> {
    let tree = inits::tree(test)?;
    let final_script = "/etc/s6-linux-init/current/scripts/rc.shutdown.final";
    let programs = ["s6-svscan", "s6-supervise"].map(|name| format!("/usr/bin/{name}"));
    let chained = ["execlineb", "foreground", "tryexec"].map(|name| format!("/usr/lib/execline/bin/{name}"));
    both_ways(test, "s6-linux-init/rc.shutdown.final", final_script, |guest, way| {
        for program in programs.iter().chain(&chained) {
            guest.program_of(&tree, program)?;
        }
        Ok(ARM.to_owned() + &S6.replace("WAY", way.get(..1).unwrap_or_default()))
    })
}

pub fn dinit_runs_it_by_its_shutdown_hook(test: &Test) -> Result<(), String> {
    both_ways(test, "dinit/shutdown-hook", "/etc/dinit/shutdown-hook", |guest, way| {
        let option = way.get(..1).unwrap_or_default();
        pid_1(guest, "shutdown", DINIT)?;
        Ok(format!("{ARM}exec /sbin/shutdown /pid-1 --system -{option}"))
    })
}

pub fn nitro_runs_it_by_sys_final(test: &Test) -> Result<(), String> {
    both_ways(test, "nitro/final", "/etc/nitro/SYS/final", |guest, way| {
        pid_1(guest, "nitro", NITRO)?;
        let way = if way == "poweroff" { "shutdown" } else { way };
        Ok(format!("{ARM}exec /sbin/nitro /pid-1 {way}"))
    })
}

pub fn procd_runs_it_last_of_its_scripts(test: &Test) -> Result<(), String> {
    both_ways(test, "procd/nextkernel", "/etc/rc.d/K99nextkernel", |guest, way| {
        pid_1(guest, "procd", PROCD)?;
        // For a restart, `nextkernel reboot` arms the handoff itself and still waits.
        let arm = if way == "reboot" { "" } else { ARM };
        Ok(format!("{arm}exec /sbin/procd /pid-1 {way}"))
    })
}

/// Proves both ways: with a handoff armed, a restart starts the next kernel, and a power off powers off.
fn both_ways(
    test: &Test,
    unit: &str,
    place: &str,
    scenario: impl Fn(&mut Shutdown, &str) -> Result<String, String>,
) -> Result<(), String> {
    for way in ["reboot", "poweroff"] {
        let mut guest = shutdown(test, "", &stage("--preload no"))?;
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../units");
        guest.host_file(place, 0o755, &units.join(unit))?;
        let rest = scenario(&mut guest, way)?;
        guest.scenario.push_str(&rest);
        let ended = guest.run()?;
        if way == "reboot" {
            handed_over(&ended, "kexec")?;
        } else {
            ended.expect(End::PoweredOff)?;
            if ended.console.contains("NEXT KERNEL UP") {
                return Err("a next kernel came up at poweroff".into());
            }
        }
    }
    Ok(())
}

/// Installs a shell with the name of an init, and the script that it runs.
pub(super) fn pid_1(guest: &mut Shutdown, name: &str, script: &str) -> Result<(), String> {
    let shell = guest.image.files()?.tree().join("usr/bin/dash");
    let shell = fs::read(&shell).map_err(|e| format!("{}: {e}", shell.display()))?;
    guest.program("/usr/bin/dash")?;
    guest.file(&format!("/sbin/{name}"), 0o755, shell);
    guest.file("/pid-1", 0o644, script);
    Ok(())
}
