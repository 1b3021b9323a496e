//! `_start` for `riscv64` (RISC-V ELF psABI, "Integer Calling Convention" and "Global Pointer").
#![allow(unsafe_code)]

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    ".option push",
    ".option norelax", // relaxed, this would be `mv gp, gp`
    "la gp, __global_pointer$", // the linker may have made addresses relative to it
    ".option pop",
    "mv s0, zero", // the outermost frame: nothing to return to
    "mv ra, zero",
    "mv a0, sp", // the stack as the kernel left it, aligned as the ABI wants it, is the first argument
    "call {start}",
    "unimp", // start never returns
    start = sym super::start,
);
