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

/// What the processor says of itself (`CPUID`), as eax, ebx, ecx, edx; none on one that is no x86, or knows nothing of
/// what is asked.
#[cfg(target_arch = "x86_64")]
// It is no longer unsafe in newer standard libraries than the oldest that this is built with.
#[allow(unused_unsafe)]
pub fn cpuid(leaf: u32, sub: u32) -> Option<[u32; 4]> {
    use std::arch::x86_64::__cpuid_count;
    // SAFETY: every x86_64 processor has the instruction.
    unsafe {
        let highest = __cpuid_count(leaf & 0x8000_0000, 0).eax;
        let found = (highest >= leaf).then(|| __cpuid_count(leaf, sub))?;
        Some([found.eax, found.ebx, found.ecx, found.edx])
    }
}

/// The same where it is not there.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpuid(_leaf: u32, _sub: u32) -> Option<[u32; 4]> {
    None
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
