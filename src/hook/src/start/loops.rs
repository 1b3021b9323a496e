//! Blocks of memory byte by byte: what the hook moves is small. Volatile, or LLVM would make each loop a call to
//! the very function it stands in.
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
        // SAFETY: `to` does not begin within `from`, so copying upwards reads each byte before it
        // is written over.
        return unsafe { memcpy(to, from, count) };
    }
    for at in (0..count).rev() {
        // SAFETY: the caller promises `count` readable and writable bytes; copying downwards reads
        // each before it is written over.
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
