//! Decompressing kernels and initrds while the system runs, so that the next kernel spends no time on it.
//!
//! A kernel loses nothing by that, because the other work of a bzImage before the kernel itself begins is done
//! here, too: the kernel is laid out as in memory (`parse_elf`, arch/x86/boot/compressed/misc.c), moved to a
//! random virtual address (`choose_random_location`, kaslr.c; `handle_relocations`, misc.c), and told that it
//! was moved. Its physical address is random, too, and is chosen when a load is prepared. If any of that is
//! impossible, the kernel is not decompressed, and the reason is reported.

pub mod failure;
mod initrd;
mod kernel;

pub use initrd::{Initrd, initrd, is_decompressed, is_whole as is_whole_initrd};
pub use kernel::{Asked, Decompressed, kernel};
