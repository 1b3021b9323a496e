//! The system calls that no crate wraps.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

const UNLOAD: libc::c_ulong = 0x1;
const NO_INITRAMFS: libc::c_ulong = 0x4;

/// `KEXEC_FILE_NO_CMA`, since Linux 6.17.
const NO_CMA: libc::c_ulong = 0x10;

/// Its number; libc lacks it for riscv64, which has the common table (include/uapi/asm-generic/unistd.h).
#[cfg(not(target_arch = "riscv64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
#[cfg(target_arch = "riscv64")]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Loads a kernel for a later `reboot(KEXEC)`, in place of the one that is loaded, and none of it into CMA where that is
/// to be left out (`kexec_file_load(2)`).
pub fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
    leaves_cma_out: bool,
) -> io::Result<()> {
    let initramfs = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    let flags = initramfs | if leaves_cma_out { NO_CMA } else { 0 };
    call(kernel.as_raw_fd(), initrd.map_or(-1, |fd| fd.as_raw_fd()), Some(cmdline), flags)
}

/// Unloads what is loaded; where nothing is, nothing happens. Both calls can: without segments `kexec_load(2)` does
/// nothing else (`do_kexec_load`, kernel/kexec.c). A call that a kernel has not counts as no attempt.
pub fn kexec_unload() -> io::Result<()> {
    match call(-1, -1, None, UNLOAD) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => kexec_load(0, &[]),
        answer => answer,
    }
}

/// Bytes that go to a place in memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Them.
    pub bytes: &'a [u8],
    /// The physical address.
    pub at: u64,
    /// How much memory is kept for them there.
    pub takes: u64,
}

/// The same as the kernel reads it (`struct kexec_segment`, include/uapi/linux/kexec.h).
#[repr(C)]
struct RawSegment {
    bytes: *const c_void,
    size: usize,
    at: usize,
    takes: usize,
}

/// Loads segments for a later `reboot(KEXEC)`, in place of what is loaded (`kexec_load(2)`); the next kernel begins at
/// `start`.
pub fn kexec_load(start: u64, segments: &[Segment<'_>]) -> io::Result<()> {
    let word =
        |number: u64| usize::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    let raw = |segment: &Segment<'_>| {
        let (bytes, size) = (segment.bytes.as_ptr().cast(), segment.bytes.len());
        Ok(RawSegment { bytes, size, at: word(segment.at)?, takes: word(segment.takes)? })
    };
    let raw: Vec<_> = segments.iter().map(raw).collect::<io::Result<_>>()?;
    let start = word(start)?;
    // SAFETY: the kernel reads so many of the segments, and of each the bytes that it borrows; it writes nothing. The
    // flags are 0, `KEXEC_ARCH_DEFAULT`.
    let answer = unsafe { libc::syscall(libc::SYS_kexec_load, start, raw.len(), raw.as_ptr(), 0_usize) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file as memory, which nobody writes to: what is staged belongs to root alone, and is written once.
pub struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    /// Maps all of it.
    pub fn of(file: &File) -> io::Result<Mapping> {
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the kernel chooses a place where nothing is, and nothing else knows of it.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so much is mapped there, for reading, as long as this lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and whoever borrowed of it is gone.
        unsafe { libc::munmap(self.start.as_ptr(), self.length) };
    }
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
    /// Whether the first would load into CMA, and cannot be told not to ([`crate::machine::cma`]).
    pub loads_into_cma: bool,
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
        Some(Calls { file, segments, loads_into_cma: false })
    });
    asking.ok()?.join().ok()?
}

/// Whether `kexec_file_load(2)` does not know the flag that leaves CMA out. It is looked at before the files, and there are
/// none. Where calls are counted this is one.
pub fn knows_no_flag_for_cma() -> bool {
    call(-1, -1, None, NO_INITRAMFS | NO_CMA).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// The items of a tree of btrfs's that have an id and a kind, as many as fit, each behind its header
/// (`BTRFS_IOC_TREE_SEARCH`, include/uapi/linux/btrfs.h).
pub fn btrfs_search(file: &File, tree: u64, object: u64, kind: u32) -> io::Result<Vec<u8>> {
    /// `_IOWR(0x94, 17, struct btrfs_ioctl_search_args)`, whose size is a page of x86's everywhere.
    const TREE_SEARCH: libc::c_ulong = 0xd000_9411;
    const SIZE: usize = 4096;
    const KEY: usize = 104;
    let mut arguments = vec![0_u8; SIZE];
    let numbers = [tree, object, object, 0, u64::MAX, 0, u64::MAX];
    let key = numbers.iter().flat_map(|number| number.to_le_bytes());
    let key = key.chain([kind, kind, u32::MAX, 0].into_iter().flat_map(u32::to_le_bytes));
    for (to, from) in arguments.iter_mut().zip(key) {
        *to = from;
    }
    // SAFETY: the kernel reads and writes `SIZE` bytes at `arguments`, which has as many.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TREE_SEARCH as _, arguments.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    arguments.drain(..KEY);
    Ok(arguments)
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

/// How fast the counter counts, per second.
#[cfg(target_arch = "aarch64")]
pub fn counter_frequency() -> u64 {
    let frequency: u64;
    // SAFETY: the instruction reads a register, and Linux lets every program do so.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    frequency
}

/// Reads as much as there is of what is asked for.
pub(crate) fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    use std::os::unix::fs::FileExt;
    let mut has = 0;
    while let Some(left) = into.get_mut(has..).filter(|left| !left.is_empty()) {
        match file.read_at(left, at.saturating_add(has as u64)) {
            Ok(0) => break,
            Ok(read) => has += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(has)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn asking_for_the_calls_loads_nothing_and_counts_no_attempt() {
        let left = || std::fs::read_to_string("/proc/sys/kernel/kexec_load_limit_reboot").ok();
        let before = left();
        assert!(kexec_calls().is_some());
        assert_eq!(left(), before);
    }

    #[test]
    fn a_mapping_is_the_file() {
        let path = std::env::temp_dir().join(format!("nextkernel-mapping-{}", std::process::id()));
        std::fs::write(&path, [7; 5000]).unwrap();
        let mapping = Mapping::of(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mapping.bytes(), [7; 5000]);
    }
}
