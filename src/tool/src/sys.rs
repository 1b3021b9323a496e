//! The one system call that no crate wraps.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const UNLOAD: libc::c_ulong = 0x1;
const NO_INITRAMFS: libc::c_ulong = 0x4;

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
    let answer = unsafe { libc::syscall(libc::SYS_kexec_file_load, kernel, initrd, length, start, flags) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
