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

/// The number of `kexec_file_load(2)`. libc lacks it for riscv64, which uses the common table
/// (include/uapi/asm-generic/unistd.h).
#[cfg(not(target_arch = "riscv64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
#[cfg(target_arch = "riscv64")]
const KEXEC_FILE_LOAD: libc::c_long = 294;

/// Loads a kernel for a later `reboot(KEXEC)` and replaces the loaded one (`kexec_file_load(2)`). With
/// `leaves_cma_out` nothing is put into CMA.
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

/// Unloads the loaded kernel; does nothing if there is none. Both calls can do this: without segments,
/// `kexec_load(2)` does nothing else (`do_kexec_load`, kernel/kexec.c). A call that the kernel does not have
/// counts as no attempt.
pub fn kexec_unload() -> io::Result<()> {
    match call(-1, -1, None, UNLOAD) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => kexec_load(0, &[]),
        answer => answer,
    }
}

/// Bytes for a fixed place in memory.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The contents.
    pub bytes: &'a [u8],
    /// The physical address.
    pub at: u64,
    /// How much memory the segment occupies there, in bytes.
    pub takes: u64,
}

/// A segment in the kernel's layout (`struct kexec_segment`, include/uapi/linux/kexec.h).
#[repr(C)]
struct RawSegment {
    bytes: *const c_void,
    size: usize,
    at: usize,
    takes: usize,
}

/// Loads segments for a later `reboot(KEXEC)` and replaces the loaded kernel (`kexec_load(2)`). The next
/// kernel starts at the address `start`.
pub fn kexec_load(start: u64, segments: &[Segment<'_>]) -> io::Result<()> {
    let word =
        |number: u64| usize::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    let raw = |segment: &Segment<'_>| {
        let (bytes, size) = (segment.bytes.as_ptr().cast(), segment.bytes.len());
        Ok(RawSegment { bytes, size, at: word(segment.at)?, takes: word(segment.takes)? })
    };
    let raw: Vec<_> = segments.iter().map(raw).collect::<io::Result<_>>()?;
    let start = word(start)?;
    // SAFETY: the kernel reads `raw.len()` segments, and the bytes that each of them borrows; it writes
    // nothing. The flags are 0, `KEXEC_ARCH_DEFAULT`.
    let answer = unsafe { libc::syscall(libc::SYS_kexec_load, start, raw.len(), raw.as_ptr(), 0_usize) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file mapped into memory. Nothing writes to it meanwhile: staged files belong to root alone and are
/// written once.
pub struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    /// Maps the whole file.
    pub fn of(file: &File) -> io::Result<Mapping> {
        let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: the kernel chooses an unused address range, which nothing else knows of.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the contents.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped there, readable, as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this address and length, and every borrow of it has ended.
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

/// Which of the two calls that load a kernel the running kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// Whether it has `kexec_file_load(2)`.
    pub file: bool,
    /// Whether it has `kexec_load(2)`.
    pub segments: bool,
    /// Whether `kexec_file_load(2)` would load into CMA, and has no flag that prevents it
    /// ([`crate::machine::cma`]).
    pub loads_into_cma: bool,
}

/// Probes both calls without the right to make them. The kernel checks the capability first
/// (`kexec_load_permitted`, `kernel/kexec_core.c`) and answers EPERM, before it counts an attempt or does
/// anything. A kernel without the call answers ENOSYS. Returns `None` if the probe itself fails.
/// `loads_into_cma` is not probed and is always false.
pub fn kexec_calls() -> Option<Calls> {
    // Capabilities belong to a thread; this thread ends without them.
    let asking = std::thread::Builder::new().spawn(|| {
        give_capabilities_up().ok()?;
        let there = |answer| answer != -1 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS);
        // SAFETY: neither call reads or writes memory of this process, because there is nothing to load.
        let (file, segments) = unsafe {
            let file = there(libc::syscall(KEXEC_FILE_LOAD, -1, -1, 0_usize, 0_usize, 0_usize));
            (file, there(libc::syscall(libc::SYS_kexec_load, 0_usize, 0_usize, 0_usize, 0_usize)))
        };
        Some(Calls { file, segments, loads_into_cma: false })
    });
    asking.ok()?.join().ok()?
}

/// Whether `kexec_file_load(2)` does not know the flag that leaves CMA out. The kernel checks flags before
/// files, and none are given here. If the kernel counts load attempts, this is one.
pub fn knows_no_flag_for_cma() -> bool {
    call(-1, -1, None, NO_INITRAMFS | NO_CMA).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

/// Returns the items of a btrfs tree with this object id and kind, as many as fit, each after its header
/// (`BTRFS_IOC_TREE_SEARCH`, include/uapi/linux/btrfs.h).
pub fn btrfs_search(file: &File, tree: u64, object: u64, kind: u32) -> io::Result<Vec<u8>> {
    /// `_IOWR(0x94, 17, struct btrfs_ioctl_search_args)`; the struct has 4096 bytes on every architecture.
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
    // SAFETY: the kernel reads and writes `SIZE` bytes at `arguments`, which has that length.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TREE_SEARCH as _, arguments.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    arguments.drain(..KEY);
    Ok(arguments)
}

/// Returns eax, ebx, ecx and edx of the processor's `CPUID` instruction. `None` if the processor is not an
/// x86, or does not know this leaf.
#[cfg(target_arch = "x86_64")]
// The intrinsic is safe in standard libraries newer than the oldest supported one.
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

/// There is no `CPUID` on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpuid(_leaf: u32, _sub: u32) -> Option<[u32; 4]> {
    None
}

/// Gives up all capabilities of this thread, for good (`capset(2)`).
fn give_capabilities_up() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: each set has 64 bits.
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads a header of two words, and by its version six words of data.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the frequency of the processor's counter, in Hz.
#[cfg(target_arch = "aarch64")]
pub fn counter_frequency() -> u64 {
    let frequency: u64;
    // SAFETY: the instruction only reads a register, and Linux allows that to every program.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack)) };
    frequency
}

/// Reads until `into` is full or the file ends, and returns the number of bytes read.
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
