//! Memory functions that work byte by byte, because the hook moves little data. The accesses are volatile,
//! because LLVM would otherwise turn each loop into a call to the very function that contains it.
#![allow(unsafe_code)]

/// memcpy(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: the caller promises `count` readable and writable bytes.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

/// memmove(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: `to` does not begin within `from`, so copying upwards reads each byte before it is
        // overwritten.
        return unsafe { memcpy(to, from, count) };
    }
    for at in (0..count).rev() {
        // SAFETY: the caller promises `count` readable and writable bytes; copying downwards reads each before
        // it is overwritten.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

/// memset(3).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    let [byte, ..] = byte.to_le_bytes();
    for at in 0..count {
        // SAFETY: the caller promises `count` writable bytes.
        unsafe { to.add(at).write_volatile(byte) };
    }
    to
}
