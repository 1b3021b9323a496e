//! The five functions that the compiler calls by itself, for there is no libc to have them.
//! On `x86_64` the string instructions do them; written as loops, LLVM would make the loops call
//! the very functions they stand in.
#![allow(unsafe_code)]

use core::arch::asm;

/// memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` readable and writable bytes that do not overlap; the
    // ABI promises a clear direction flag.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: `to` does not begin within `from`, so copying upwards reads each byte before it
        // is written over.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller promises `count` readable and writable bytes; copying downwards reads
    // each before it is written over; the direction flag is set for this alone.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _,
             inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
             inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` writable bytes; the ABI promises a clear direction flag.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("eax") byte,
             options(nostack, preserves_flags));
    }
    to
}

/// memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller promises `count` readable bytes at both. Volatile, or LLVM would make
        // this loop a call to memcmp.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// bcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same promises.
    unsafe { memcmp(one, other, count) }
}

/// strlen(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the caller promises a NUL; nothing beyond it is read. Volatile as in memcmp.
    while unsafe { string.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
