//! `_start` for `aarch64` (AAPCS64, "The Stack"; `start_thread`, arch/arm64/include/asm/processor.h).
#![allow(unsafe_code)]

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr", // the outermost frame: nothing to return to
    "mov x30, xzr",
    "mov x0, sp", // the stack as the kernel left it, aligned as the ABI wants it, is the first argument
    "bl {start}",
    "brk #1", // start never returns
    start = sym super::start,
);

/// getauxval(3), which always returns 0, "none". compiler-builtins asks it for the instructions of newer processors, in
/// a function that libc would call before `main`. Here nobody calls that function, so the instructions that every
/// processor has are used.
#[unsafe(no_mangle)]
extern "C" fn getauxval(_: core::ffi::c_ulong) -> core::ffi::c_ulong {
    0
}
