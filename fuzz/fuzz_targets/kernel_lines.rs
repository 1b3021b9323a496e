//! Parses any content of the /proc files that the hook reads, without a panic. A file system that may be
//! writable is never taken for one that is not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel_hook::bounds::sync;
use nextkernel_hook::caller;
use nextkernel_hook::scene::processes::Process;
use nextkernel_hook::scene::{families, holders, locks, mounts};
use nextkernel_plan::Verb;
use rustix::process::Pid;

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|byte| *byte == b'\n') {
        // A device's file system is passed over for only one reason: the line itself says that it is read-only.
        let disk = [line, b" - ext4 /dev/vda rw"].concat();
        let named_before = line.windows(3).any(|dash| dash == b" - ") || line.starts_with(b"- ");
        assert!(named_before || mounts::writable(&disk).is_some(), "{line:?}");
        let mut buffer = [0; 64];
        let point = mounts::point(line, &mut buffer).map(|point| point.count_bytes());
        assert!(point.is_none_or(|length| length < buffer.len() && length <= line.len()));
        let _ = sync::amount(line);
        if let Some(process) = Process::parse(Pid::INIT, line) {
            assert!(!(process.has_ended() && process.has_lost_its_first_thread()), "{line:?}");
        }
        let _ = families::of(line);
        if let Some((_, name)) = holders::major(line) {
            assert!(line.ends_with(name) || line.trim_ascii().ends_with(name), "{line:?}");
        }
    }
    // A stack that shows the lock is never reported as free, whatever surrounds it.
    let lines = || bytes.split(|byte| *byte == b'\n');
    let stack = locks::Stack::of_lines(lines());
    assert_eq!(lines().any(locks::is_under_device_lock), stack.lock == locks::Lock::Held);
    if let Some((_, Verb::Kexec)) = caller::of_systemd(bytes) {
        assert!(bytes.windows(14).any(|word| word == b"shutdown\0kexec"), "{bytes:?}");
    }
});
