//! The six functions that the compiler calls by itself. There is no libc to provide them.
#![allow(unsafe_code)]

#[cfg_attr(target_arch = "x86_64", path = "strings.rs")]
#[cfg_attr(not(target_arch = "x86_64"), path = "loops.rs")]
mod blocks;

/// memcmp(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller promises `count` readable bytes at both. Volatile, because LLVM would otherwise
        // turn this loop into a call to memcmp.
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
    // SAFETY: the caller makes the same promises.
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
