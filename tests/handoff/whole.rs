//! Nothing half done: neither by a stage that is killed, nor by a hook that would need more than it has.

use bed::harness::Test;
use std::time::Duration;

use crate::kexec::boot;

/// Kills `nextkernel stage` as it enters its Nth system call, for every N, and looks each time: the
/// plan is the old one or a new one, and `nextkernel-hook --dry-run` finds its images whole.
const KILL_AT_EACH_CALL: &str = r#"
cd /root
stage() { nextkernel stage --kernel /vmlinuz --initrd small --cmdline "root=/dev/vda try=$1"; }
head -c 5000 /dev/urandom >small
stage old >/dev/null || exit 1
old=old n=0 killed=0 replaced=0
while :; do
    n=$((n + 1))
    strace -f -qq -o /dev/null -e trace=all -e inject=all:signal=KILL:when=$n \
        nextkernel stage --kernel /vmlinuz --initrd small --cmdline "root=/dev/vda try=$n" >/dev/null 2>&1
    status=$?
    shown=$(nextkernel-hook --dry-run kexec) || { echo "call $n: no plan that is whole"; exit 1; }
    try=$(echo "$shown" | sed -n "s/.*try=\([a-z0-9]*\).*/\1/p")
    [ "$try" = "$old" ] || [ "$try" = "$n" ] || { echo "call $n: staged is $try"; exit 1; }
    [ "$try" = "$old" ] || { replaced=$((replaced + 1)); old=$try; }
    [ "$status" = 0 ] && break
    killed=$((killed + 1))
    [ "$n" -lt 2000 ] || { echo "it never ends"; exit 1; }
done
[ "$(ls /run/nextkernel | wc -l)" = 3 ] || { ls /run/nextkernel; echo "left over"; exit 1; }
echo "killed $killed times, $replaced new plans"
[ "$killed" -gt 50 ] && [ "$replaced" -ge 1 ]
"#;

pub fn stage_killed_at_each_of_its_calls_leaves_the_old_plan_or_the_new_one(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    let ran = guest.run_within(Duration::from_secs(1800), KILL_AT_EACH_CALL)?;
    eprintln!("{}: {}", test.name, ran.output.trim_end());
    if ran.status == 0 { Ok(()) } else { Err(guest.tell(&ran.output)) }
}

/// The hook of the whole night, traced to the console: strace prints each call before the next.
const TRACED_HOOK: &str = r"
hook=/usr/lib/systemd/system-shutdown/nextkernel
mv $hook /usr/lib/nextkernel/traced
printf '#!/bin/sh\nexec strace -f -o /dev/ttyS0 /usr/lib/nextkernel/traced $1\n' >$hook
chmod 755 $hook
";

pub fn at_night_the_hook_asks_for_no_memory(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --hold late")?;
    guest.ok(TRACED_HOOK)?;
    guest.send("systemctl start --no-block --job-mode=replace-irreversibly kexec.target")?;
    let after = guest.await_boot()?;
    let console = guest.console();
    let traced = |call: &str| console.lines().any(|line| line.contains(call));
    if !after.jumped() || !traced("kexec_file_load(") || !traced("LINUX_REBOOT_CMD_KEXEC") {
        return Err(guest.tell("the whole night was not traced"));
    }
    let asks = ["brk(", "mmap(", "mremap(", "mprotect("];
    match console.lines().find(|line| asks.iter().any(|call| line.contains(call))) {
        None => Ok(()),
        Some(line) => Err(format!("the hook asks for memory: {line}")),
    }
}
