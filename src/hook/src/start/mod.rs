//! From the kernel's first instruction to `main`: what a C runtime would do, and no more of it
//! than this program needs.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod arch;
mod memory;

use core::ffi::CStr;

use nextkernel_hook::sys::arguments::Arguments;

/// Called by the architecture's `_start` with the stack as the kernel left it (execve(2)).
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel has just put argc, the argv pointers, a null, the environment pointers
    // and a null there, each pointing to a string that lives as long as the process
    // (System V ABI, "Initial Process Stack"; create_elf_tables, fs/binfmt_elf.c).
    let (arguments, environment) = unsafe {
        let count = *stack;
        let strings = stack.add(1).cast::<*const core::ffi::c_char>();
        (Strings(strings), Strings(strings.add(count + 1)))
    };
    crate::main(Arguments::collect(arguments, environment))
}

/// A null-terminated array of C strings, as the kernel hands them over.
struct Strings(*const *const core::ffi::c_char);

#[allow(unsafe_code)]
impl Iterator for Strings {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        // SAFETY: only `start` makes one, from an array that ends with a null, and it is left there.
        unsafe {
            let string = *self.0;
            if string.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            Some(CStr::from_ptr(string))
        }
    }
}
