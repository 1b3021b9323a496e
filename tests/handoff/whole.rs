//! Tests that nothing is left half done: neither by a killed `nextkernel stage`, nor by a hook that would need
//! more memory than it has.

use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::host::command;
use bed::host::scratch::Scratch;
use bed::kernel::stub;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::kexec::{START_KEXEC, boot, jump};

/// Kills `nextkernel stage` on entry to each of its system calls that can change anything, in turn. After each
/// kill, the plan must be the one before or the new one, `nextkernel-hook --dry-run` must find its images whole,
/// and must start the loaded image only if nothing indicates that it may be another plan's. A kill at a call
/// that only reads has the same effect as one at the next call that does not.
const KILL_AT_EACH_CALL: &str = r#"
cd /root
staging="nextkernel stage --kernel kernel --initrd small --cmdline"
echo kernel | cpio --quiet -o -H newc >small
$staging try=0 >/dev/null || exit 1
strace -o trace $staging try=0 >/dev/null || exit 1
# These only look, and strace counts each kind of call by itself.
looks='access|arch_prctl|brk|execve|exit_group|faccessat2?|f?stat|getdents64|getrandom|get[a-z]*id|lseek|mmap|mprotect'
looks="$looks|munmap|newfstatat|poll|prlimit64|pread64|read|readlink(at)?|rseq|rt_sig[a-z]*|sched_getaffinity"
looks="$looks|set_robust_list|set_tid_address|sigaltstack|f?statfs|statx|sysinfo|uname"
awk -F'(' '/^[a-z0-9_]+\(/ {
    seen[$1]++
    if ($1 != "openat" || /O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)/) print $1, seen[$1]
}' trace | grep -v -E "^($looks) " >calls
plan=0 n=0 killed=0 replaced=0
while read -r call count; do
    n=$((n + 1))
    strace -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$count" \
        $staging try=$n >/dev/null 2>&1 || killed=$((killed + 1))
    if [ -e /run/nextkernel/plan.new ] && nextkernel-hook --dry-run kexec | grep 'start what is loaded'; then
        echo "$call $count: what is loaded may be another plan's"
        exit 1
    fi
    cp /run/nextkernel/plan plan && sed -i 's/^preload = yes$/preload = no/' /run/nextkernel/plan
    shown=$(nextkernel-hook --dry-run kexec) || { echo "$call $count: no plan that is whole"; exit 1; }
    cp plan /run/nextkernel/plan
    try=$(echo "$shown" | sed -n "s/.*try=\([0-9]*\).*/\1/p")
    case $try in
    $plan) ;;
    $n) plan=$n replaced=$((replaced + 1)) ;;
    *) echo "$call $count: staged is $try, neither $plan nor $n"; exit 1 ;;
    esac
done <calls
$staging end >/dev/null || { echo "it cannot be staged any more"; exit 1; }
[ "$(ls /run/nextkernel | wc -l)" = 3 ] || { ls /run/nextkernel; echo "something is left over"; exit 1; }
echo "$n calls, killed at $killed, $replaced new plans"
[ "$n" -gt 20 ] && [ "$killed" -ge $((n * 9 / 10)) ] && [ "$replaced" -ge 1 ]
"#;

pub fn stage_killed_at_each_call_that_changes_anything_leaves_the_old_plan_or_the_new_one(
    test: &Test,
) -> Result<(), String> {
    let scratch = Scratch::new()?;
    let with_kernel = scratch.path("installed");
    command::run(Command::new("cp").arg("-a").arg(bed::host::paths::installed()).arg(&with_kernel))?;
    // The stub is staged some eighty times, and never started.
    let kernel = with_kernel.join("root/kernel");
    let stub = stub::kernel()?;
    fs::create_dir(with_kernel.join("root"))
        .and_then(|()| fs::write(&kernel, stub))
        .map_err(|e| format!("{}: {e}", kernel.display()))?;
    let mut guest = Guest::boot(&Spec { installed: Some(with_kernel), ..Spec::new(test) })?;
    let ran = guest.run_within(Duration::from_secs(1800), KILL_AT_EACH_CALL)?;
    eprintln!("{}: {}", test.name, ran.output.trim_end());
    if ran.status == 0 { Ok(()) } else { Err(guest.tell(&ran.output)) }
}

/// Traces the hook for its whole run to the console: strace prints each call before the next.
const TRACED_HOOK: &str = r"
hook=/usr/lib/systemd/system-shutdown/nextkernel
mv $hook /usr/lib/nextkernel/traced
printf '#!/bin/sh\nexec strace -f -o /dev/ttyS0 /usr/lib/nextkernel/traced $1\n' >$hook
chmod 755 $hook
";

pub fn at_night_the_hook_asks_for_no_memory(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    guest.ok("nextkernel stage --preload no")?;
    guest.ok(TRACED_HOOK)?;
    jump(&mut guest, START_KEXEC, "kexec")?;
    let console = guest.console();
    let traced = |call: &str| console.lines().any(|line| line.contains(call));
    if !traced("kexec_file_load(") || !traced("LINUX_REBOOT_CMD_KEXEC") {
        return Err(guest.tell("the whole night was not traced"));
    }
    let asks = ["brk(", "mmap(", "mremap(", "mprotect("];
    match console.lines().find(|line| asks.iter().any(|call| line.contains(call))) {
        None => Ok(()),
        Some(line) => Err(format!("the hook asks for memory: {line}")),
    }
}
