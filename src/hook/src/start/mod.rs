//! From the first instruction of the process to `main`: the work of a C runtime, reduced to the needs of this
//! program.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod arch;
mod memory;

use core::ffi::CStr;

use nextkernel_hook::sys::arguments::Arguments;

/// Is called by the architecture's `_start` with the stack as the kernel left it (execve(2)).
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

/// A null-terminated array of C strings, as the kernel passes them.
struct Strings(*const *const core::ffi::c_char);

#[allow(unsafe_code)]
impl Iterator for Strings {
    type Item = &'static CStr;

    fn next(&mut self) -> Option<&'static CStr> {
        // SAFETY: only `start` makes one, from an array that ends with a null, and the iterator stays at that
        // null.
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
