//! The system calls that rustix does not have, and nothing else. This is the only place with `unsafe` besides
//! the first instructions in `start`.
#![allow(unsafe_code)]

use core::arch::asm;
use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::time::Duration;

use linux_raw_sys::general::{
    __NR_clock_gettime, __NR_clone, __NR_close_range, __NR_exit_group, __NR_getrandom, __NR_ioctl,
    __NR_kexec_file_load, __NR_kexec_load, __NR_reboot, __NR_rt_sigaction, __NR_rt_sigprocmask,
    __NR_sched_setscheduler, __NR_swapoff, __NR_syslog, CLONE_PIDFD, SIG_SETMASK, SIGCHLD,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::Pid;

/// `KEXEC_FILE_NO_INITRAMFS`, include/uapi/linux/kexec.h.
const KEXEC_FILE_NO_INITRAMFS: usize = 0x4;
/// `KEXEC_FILE_UNLOAD`, include/uapi/linux/kexec.h.
const KEXEC_FILE_UNLOAD: usize = 0x1;
/// `KEXEC_FILE_NO_CMA`, include/uapi/linux/kexec.h, since Linux 6.17.
const KEXEC_FILE_NO_CMA: usize = 0x10;

/// `SYSLOG_ACTION_CONSOLE_LEVEL`, include/linux/syslog.h.
const SYSLOG_ACTION_CONSOLE_LEVEL: usize = 8;

/// `WDIOC_SETTIMEOUT`, include/uapi/linux/watchdog.h, as most architectures encode it (`_IOWR('W', 6, int)`).
const WDIOC_SETTIMEOUT: usize = 0xc004_5706;

/// `LOOP_CLR_FD`, include/uapi/linux/loop.h.
const LOOP_CLR_FD: usize = 0x4c01;
/// `STOP_ARRAY`, `include/uapi/linux/raid/md_u.h`: `_IO(9, 0x32)`, as most architectures encode it.
const STOP_ARRAY: usize = 0x932;
/// `DM_DEV_REMOVE`, include/uapi/linux/dm-ioctl.h: `_IOWR(0xfd, 4, struct dm_ioctl)`, as most architectures
/// encode it.
const DM_DEV_REMOVE: usize = 0xc138_fd04;
/// The size of `struct dm_ioctl`, in words of eight bytes.
const DM_IOCTL_WORDS: usize = 39;
/// Version 4.0.0 of the interface. A kernel accepts minor versions older than its own (`check_version`,
/// drivers/md/dm-ioctl.c).
const DM_VERSION_MAJOR: u64 = 4;

/// Loads a kernel for a later `reboot(KEXEC)`, in place of the loaded one. With `leaves_cma_out`, none of it is
/// placed in CMA.
///
/// - `kexec_file_load(2)`
pub fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
    leaves_cma_out: bool,
) -> io::Result<()> {
    let initramfs = if initrd.is_some() { 0 } else { KEXEC_FILE_NO_INITRAMFS };
    let flags = initramfs | if leaves_cma_out { KEXEC_FILE_NO_CMA } else { 0 };
    let fd = |fd: BorrowedFd<'_>| usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX);
    let cmdline = cmdline.to_bytes_with_nul();
    // SAFETY: the kernel reads `cmdline.len()` bytes at `cmdline` and writes nothing.
    let result = unsafe {
        syscall(
            __NR_kexec_file_load,
            [
                fd(kernel),
                initrd.map_or(usize::MAX, fd),
                cmdline.len(),
                cmdline.as_ptr().expose_provenance(),
                flags,
            ],
        )
    };
    result.map(|_| ())
}

/// Maps a file into memory for the rest of this process's life. All pages are read in at once, rather than by
/// one page fault each. If the file is truncated meanwhile, this process dies (SIGBUS); the file belongs to
/// root.
///
/// - `MAP_PRIVATE`, `MAP_POPULATE`, mmap(2)
pub fn map(file: impl AsFd, size: usize) -> io::Result<&'static [u8]> {
    let start = map_as(file, size, ProtFlags::READ)?;
    // SAFETY: the mapping is `size` bytes long, and is never unmapped.
    Ok(unsafe { core::slice::from_raw_parts(start.cast(), size) })
}

/// Maps a private copy of a file like [`map`], but writable. Writes do not reach the file.
pub fn map_copy(file: impl AsFd, size: usize) -> io::Result<&'static mut [u8]> {
    let start = map_as(file, size, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: the mapping is `size` bytes long, nothing else refers to it, and it is never unmapped.
    Ok(unsafe { core::slice::from_raw_parts_mut(start.cast(), size) })
}

fn map_as(file: impl AsFd, size: usize, access: ProtFlags) -> io::Result<*mut c_void> {
    // SAFETY: the kernel chooses a free address range for it.
    unsafe { mmap(core::ptr::null_mut(), size, access, MapFlags::PRIVATE | MapFlags::POPULATE, file, 0) }
}

/// A segment of memory for the next kernel, laid out as the call expects (`struct kexec_segment`,
/// include/uapi/linux/kexec.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KexecSegment<'m> {
    bytes: *const u8,
    size: usize,
    at: usize,
    takes: usize,
    lives: PhantomData<&'m [u8]>,
}

impl<'m> KexecSegment<'m> {
    /// An empty segment.
    pub const NONE: KexecSegment<'static> =
        KexecSegment { bytes: core::ptr::null(), size: 0, at: 0, takes: 0, lives: PhantomData };

    /// Returns a segment that puts `bytes` at the physical address `at`, in a range of `takes` bytes.
    #[must_use]
    pub fn new(bytes: &'m [u8], at: usize, takes: usize) -> KexecSegment<'m> {
        KexecSegment { bytes: bytes.as_ptr(), size: bytes.len(), at, takes, lives: PhantomData }
    }
}

/// Loads these segments for a later `reboot(KEXEC)`, in place of the loaded image. The next kernel begins at
/// the physical address `start`.
///
/// - `kexec_load(2)`
pub fn kexec_load(start: usize, segments: &[KexecSegment<'_>]) -> io::Result<()> {
    let first = segments.as_ptr().expose_provenance();
    // SAFETY: the kernel reads all segments, and the bytes of each, which live as long as the segment; it
    // writes nothing. No flags: KEXEC_ARCH_DEFAULT.
    unsafe { syscall(__NR_kexec_load, [start, segments.len(), first, 0, 0]) }.map(|_| ())
}

/// Unloads the loaded image.
///
/// - `kexec_file_load(2)`; `kexec_load(2)` if the kernel has only that
pub fn kexec_unload() -> io::Result<()> {
    // SAFETY: with this flag the kernel ignores all other arguments.
    match unsafe { syscall(__NR_kexec_file_load, [usize::MAX, usize::MAX, 0, 0, KEXEC_FILE_UNLOAD]) } {
        Err(Errno::NOSYS) => kexec_load(0, &[]),
        answer => answer.map(|_| ()),
    }
}

/// Fills `bytes` with random bytes.
///
/// - getrandom(2)
pub fn fill_randomly(bytes: &mut [u8]) -> io::Result<()> {
    let (start, size) = (bytes.as_mut_ptr().expose_provenance(), bytes.len());
    // SAFETY: the kernel writes at most `size` bytes at `start`.
    match unsafe { syscall(__NR_getrandom, [start, size, 0, 0, 0]) }? {
        filled if filled == size => Ok(()),
        _ => Err(Errno::AGAIN),
    }
}

/// Restarts the machine and passes `parameter` to the firmware. Returns only if the kernel refuses.
///
/// - `LINUX_REBOOT_CMD_RESTART2`, reboot(2)
pub fn restart_with(parameter: &CStr) -> io::Result<()> {
    // LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART2 (include/uapi/linux/reboot.h).
    let text = parameter.as_ptr().expose_provenance();
    let arguments = [0xfee1_dead, 672_274_793, 0xa1b2_c3d4, text, 0];
    // SAFETY: the kernel reads a string of at most 256 bytes at `parameter`, which ends with a NUL.
    unsafe { syscall(__NR_reboot, arguments) }.map(|_| ())
}

/// Lets log lines of a level below `level` through to every console.
///
/// - `SYSLOG_ACTION_CONSOLE_LEVEL`, syslog(2)
pub fn set_console_level(level: usize) -> io::Result<()> {
    // SAFETY: this action takes a number, and no address.
    unsafe { syscall(__NR_syslog, [SYSLOG_ACTION_CONSOLE_LEVEL, 0, level, 0, 0]) }.map(|_| ())
}

/// Sets the number of seconds after which a watchdog resets the machine. Returns the number that the driver
/// accepted.
///
/// - `WDIOC_SETTIMEOUT`, Documentation/watchdog/watchdog-api.rst
pub fn set_watchdog_timeout(watchdog: impl AsFd, seconds: i32) -> io::Result<i32> {
    let mut seconds = seconds;
    let fd = usize::try_from(watchdog.as_fd().as_raw_fd()).unwrap_or(usize::MAX);
    // SAFETY: this request reads and writes an int at `seconds`; a descriptor of another kind refuses it.
    unsafe { syscall(__NR_ioctl, [fd, WDIOC_SETTIMEOUT, (&raw mut seconds).expose_provenance(), 0, 0]) }?;
    Ok(seconds)
}

/// Detaches the file from a loop device. If another process has the device open, this takes effect when it
/// closes it.
///
/// - `LOOP_CLR_FD`, loop(4)
pub fn loop_clear(device: impl AsFd) -> io::Result<()> {
    plain_ioctl(device.as_fd(), LOOP_CLR_FD)
}

/// Stops an md array.
///
/// - `STOP_ARRAY`, md(4)
pub fn md_stop(array: impl AsFd) -> io::Result<()> {
    plain_ioctl(array.as_fd(), STOP_ARRAY)
}

fn plain_ioctl(device: BorrowedFd<'_>, request: usize) -> io::Result<()> {
    let fd = usize::try_from(device.as_raw_fd()).unwrap_or(usize::MAX);
    // SAFETY: neither of the two requests has an argument; a descriptor of another kind refuses them.
    unsafe { syscall(__NR_ioctl, [fd, request, 0, 0, 0]) }.map(|_| ())
}

/// Removes a device-mapper device, identified by its device number.
///
/// - `DM_DEV_REMOVE`, include/uapi/linux/dm-ioctl.h
pub fn dm_remove(control: impl AsFd, number: u64) -> io::Result<()> {
    // struct dm_ioctl: version, total size, start of the data, five fields unused here, the device number; then
    // its name and UUID, both empty.
    let mut argument = [0; DM_IOCTL_WORDS];
    let words: [u64; 6] = [DM_VERSION_MAJOR, (8 * DM_IOCTL_WORDS as u64) << 32, 0, 0, 0, number];
    for (word, value) in argument.iter_mut().zip(words) {
        *word = value;
    }
    let fd = usize::try_from(control.as_fd().as_raw_fd()).unwrap_or(usize::MAX);
    // SAFETY: the kernel reads and writes at most the number of bytes at the argument that its second word
    // gives.
    unsafe { syscall(__NR_ioctl, [fd, DM_DEV_REMOVE, argument.as_mut_ptr().expose_provenance(), 0, 0]) }
        .map(|_| ())
}

/// Turns swap off on a file or a device.
///
/// - swapoff(2)
pub fn swapoff(path: &CStr) -> io::Result<()> {
    // SAFETY: the kernel reads a path that ends with its NUL, and writes nothing.
    unsafe { syscall(__NR_swapoff, [path.as_ptr().expose_provenance(), 0, 0, 0, 0]) }.map(|_| ())
}

/// Reads a clock.
///
/// - `clock_gettime(2)`
#[must_use]
pub fn clock_gettime(clock: u32) -> Duration {
    let mut time = [0_u64; 2];
    // SAFETY: the kernel writes two 64-bit numbers at `time`. It cannot fail for these clocks; if it did, the
    // time would stay 0.
    let _ = unsafe {
        syscall(__NR_clock_gettime, [clock as usize, (&raw mut time).expose_provenance(), 0, 0, 0])
    };
    let [seconds, nanoseconds] = time;
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

/// Returns the counter that keeps counting in the next kernel: the time-stamp counter.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn counter() -> u64 {
    // SAFETY: the instruction reads a register; this program never disables it for itself (PR_SET_TSC,
    // prctl(2)).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Returns the counter that keeps counting in the next kernel: the virtual one, which Linux lets every program
/// read.
#[cfg(target_arch = "aarch64")]
#[must_use]
pub fn counter() -> u64 {
    let counter: u64;
    // SAFETY: the instruction reads a register.
    unsafe { asm!("mrs {}, cntvct_el0", out(reg) counter, options(nomem, nostack)) };
    counter
}

/// Returns the counter that keeps counting in the next kernel: the platform's time, which Linux lets every
/// program read.
#[cfg(target_arch = "riscv64")]
#[must_use]
pub fn counter() -> u64 {
    let counter: u64;
    // SAFETY: the instruction reads a register.
    unsafe { asm!("rdtime {}", out(reg) counter, options(nomem, nostack)) };
    counter
}

/// Forks. Returns `None` in the child, and the child's id in the parent.
///
/// - fork(2), clone(2)
pub fn fork() -> io::Result<Option<Pid>> {
    clone(SIGCHLD, &mut -1)
}

/// Forks like [`fork`]. The parent also gets a pidfd of the child.
///
/// - `CLONE_PIDFD`, clone(2)
pub fn fork_with_handle() -> io::Result<Option<(Pid, OwnedFd)>> {
    let mut handle = -1;
    let child = clone(SIGCHLD | CLONE_PIDFD, &mut handle)?;
    // SAFETY: in the parent, which has a child, `handle` is a new descriptor that nothing else owns.
    Ok(child.map(|child| (child, unsafe { OwnedFd::from_raw_fd(handle) })))
}

fn clone(flags: u32, handle: &mut i32) -> io::Result<Option<Pid>> {
    // SAFETY: without CLONE_VM the child has its own copy of everything; there is one thread, no libc, and no
    // lock that another thread could hold. With CLONE_PIDFD the kernel writes an int at `handle` in the parent.
    let child =
        unsafe { syscall(__NR_clone, [flags as usize, 0, (&raw mut *handle).expose_provenance(), 0, 0]) }?;
    Ok(i32::try_from(child).ok().and_then(Pid::from_raw))
}

/// Ends the process with this exit status.
///
/// - `exit_group(2)`
pub fn exit(status: u8) -> ! {
    loop {
        // SAFETY: the call takes a number and does not return.
        let _ = unsafe { syscall(__NR_exit_group, [status.into(), 0, 0, 0, 0]) };
    }
}

/// Blocks every signal that can be blocked.
///
/// - `rt_sigprocmask(2)`
pub fn block_signals() -> io::Result<()> {
    let all = u64::MAX;
    let set = (&raw const all).expose_provenance();
    // SAFETY: the kernel reads eight bytes at `set`, which is the size of its signal set on 64 bits.
    unsafe { syscall(__NR_rt_sigprocmask, [SIG_SETMASK as usize, set, 0, size_of::<u64>(), 0]) }?;
    Ok(())
}

/// Resets SIGCHLD to its default. If it was ignored by the program that executed this one, it still is, and
/// then no child can be waited for (wait(2), "Notes").
///
/// - `rt_sigaction(2)`
pub fn notice_children() -> io::Result<()> {
    // The kernel's struct sigaction: SIG_DFL, no flags, no signal blocked and, on architectures that have one,
    // no restorer.
    let default = [0_u64; 4];
    let action = (&raw const default).expose_provenance();
    // SAFETY: the kernel reads at most four words at `action`, and eight bytes are the size of its signal set
    // on 64 bits.
    unsafe { syscall(__NR_rt_sigaction, [SIGCHLD as usize, action, 0, size_of::<u64>(), 0]) }.map(|_| ())
}

/// Makes this process run before all others that are runnable; with `false`, like them again.
///
/// - `SCHED_FIFO`, sched(7)
pub fn run_first(first: bool) -> io::Result<()> {
    // SCHED_FIFO with its lowest priority, or SCHED_OTHER, which has none.
    let priority = i32::from(first);
    let (policy, priority) = (usize::from(first), (&raw const priority).expose_provenance());
    // SAFETY: the kernel reads an int at `priority`; the 0 names this process.
    unsafe { syscall(__NR_sched_setscheduler, [0, policy, priority, 0, 0]) }.map(|_| ())
}

/// Closes every descriptor except the standard ones. Only for the very start, before this program has opened
/// any.
///
/// - `close_range(2)`, since Linux 5.9
pub fn close_inherited() -> io::Result<()> {
    let (first, last) = (3, u32::MAX as usize);
    // SAFETY: there is no address among the arguments, and nothing here owns a descriptor yet.
    unsafe { syscall(__NR_close_range, [first, last, 0, 0, 0]) }.map(|_| ())
}

/// Returns standard output (1) or standard error (2), whether open or not.
///
/// - stdin(3)
#[must_use]
pub fn standard(number: u8) -> BorrowedFd<'static> {
    // SAFETY: nothing here closes it; if it was closed before, a write only fails with EBADF.
    unsafe { BorrowedFd::borrow_raw(i32::from(number)) }
}

/// Makes one system call with at most five arguments.
///
/// # Safety
/// Depends on the call: every address among the arguments must be valid for the kernel's use of it.
unsafe fn syscall(number: u32, arguments: [usize; 5]) -> io::Result<usize> {
    // SAFETY: the caller's promise.
    let result = unsafe { raw(number as usize, arguments) };
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(0)))
}

/// Executes the system call instruction (syscall(2), "Architecture calling conventions").
#[cfg(target_arch = "x86_64")]
unsafe fn raw(number: usize, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller's promise; the instruction itself changes only rax, rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") number => result,
             in("rdi") first, in("rsi") second, in("rdx") third, in("r10") fourth, in("r8") fifth,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// Executes the system call instruction (syscall(2), "Architecture calling conventions").
#[cfg(target_arch = "aarch64")]
unsafe fn raw(number: usize, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller's promise; the instruction itself changes only x0.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") first => result,
             in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth, options(nostack));
    }
    result
}

/// Executes the system call instruction (syscall(2), "Architecture calling conventions").
#[cfg(target_arch = "riscv64")]
unsafe fn raw(number: usize, [first, second, third, fourth, fifth]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller's promise; the instruction itself changes only a0 and the vector registers, whose
    // content no call preserves (Documentation/arch/riscv/vector.rst).
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") first => result,
             in("a1") second, in("a2") third, in("a3") fourth, in("a4") fifth,
             lateout("v0") _, lateout("v1") _, lateout("v2") _, lateout("v3") _, options(nostack));
    }
    result
}
