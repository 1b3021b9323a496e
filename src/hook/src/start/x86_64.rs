//! `_start` for `x86_64` (System V ABI, "Process Initialization").
#![allow(unsafe_code)]

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp", // the outermost frame: nothing to return to
    "mov rdi, rsp", // the stack as the kernel left it is the first argument
    "and rsp, -16", // the ABI's alignment at a call
    "call {start}",
    "ud2", // start never returns
    start = sym super::start,
);
