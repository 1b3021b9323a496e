//! The system calls that no crate wraps.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const UNLOAD: libc::c_ulong = 0x1;
const NO_INITRAMFS: libc::c_ulong = 0x4;

/// Its number; libc lacks it for riscv64, which has the common table (include/uapi/asm-generic/unistd.h).
#[cfg(not(target_arch = "riscv64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
#[cfg(target_arch = "riscv64")]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Loads a kernel for a later `reboot(KEXEC)`, in place of the one that is loaded (`kexec_file_load(2)`).
pub fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
) -> io::Result<()> {
    let flags = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    call(kernel.as_raw_fd(), initrd.map_or(-1, |fd| fd.as_raw_fd()), Some(cmdline), flags)
}

/// Unloads what is loaded; where nothing is, nothing happens.
pub fn kexec_unload() -> io::Result<()> {
    call(-1, -1, None, UNLOAD)
}

fn call(kernel: i32, initrd: i32, cmdline: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let length = cmdline.map_or(0, |cmdline| cmdline.to_bytes_with_nul().len());
    let start = cmdline.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the kernel reads `length` bytes at `start` and writes nothing.
    let answer = unsafe { libc::syscall(KEXEC_FILE_LOAD, kernel, initrd, length, start, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which of the two calls that load a kernel this one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// `kexec_file_load(2)`
    pub file: bool,
    /// `kexec_load(2)`
    pub segments: bool,
}

/// Asks for them as somebody who may not: the kernel looks at the capability first (`kexec_load_permitted`,
/// `kernel/kexec_core.c`) and answers EPERM, before it counts an attempt or does anything. ENOSYS is the answer
/// of a kernel without the call. `None` where that cannot be asked.
pub fn kexec_calls() -> Option<Calls> {
    // Capabilities are a thread's own; this one ends without them.
    let asking = std::thread::Builder::new().spawn(|| {
        give_capabilities_up().ok()?;
        let there = |answer| answer != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS);
        // SAFETY: neither reads or writes anything of this process: there is nothing to load.
        let (file, segments) = unsafe {
            let file = there(libc::syscall(KEXEC_FILE_LOAD, -1, -1, 0_usize, 0_usize, 0_usize));
            (file, there(libc::syscall(libc::SYS_kexec_load, 0_usize, 0_usize, 0_usize, 0_usize)))
        };
        Some(Calls { file, segments })
    });
    asking.ok()?.join().ok()?
}

/// Takes all of them from this thread, for good (`capset(2)`).
fn give_capabilities_up() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 bits of each set.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads a header of two words, whose version means six words of data.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How fast the counter counts, per second.
#[cfg(target_arch = "aarch64")]
pub fn counter_frequency() -> u64 {
    let frequency: u64;
    // SAFETY: the instruction reads a register, and Linux lets every program do so.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    frequency
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_the_calls_loads_nothing_and_counts_no_attempt() {
        let left = || std::fs::read_to_string("/proc/sys/kernel/kexec_load_limit_reboot").ok();
        let before = left();
        assert!(kexec_calls().is_some());
        assert_eq!(left(), before);
    }
}
