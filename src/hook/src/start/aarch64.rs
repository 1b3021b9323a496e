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

/// getauxval(3), "none": compiler-builtins looks there, before `main`, for instructions that newer processors have.
/// Nobody calls it, for that is done by libc, and so the ones that every processor has are taken.
#[unsafe(no_mangle)]
extern "C" fn getauxval(_: core::ffi::c_ulong) -> core::ffi::c_ulong {
    0
}
