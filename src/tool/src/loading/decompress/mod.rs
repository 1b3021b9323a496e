//! Thawing: what is compressed is decompressed by day, so that the next kernel spends nothing on it.
//!
//! A kernel loses nothing by that. What a bzImage does before the kernel itself begins, besides unpacking it, is done
//! here: it is laid out as in memory (`parse_elf`, arch/x86/boot/compressed/misc.c), moved to a random virtual address
//! (`choose_random_location`, kaslr.c; `handle_relocations`, misc.c), and told that it was. Its place in memory, which is
//! random, too, is chosen where a load is prepared. Where any of that cannot be done, the kernel is not thawed, and the
//! reason is told.

mod initrd;
mod kernel;
pub mod why;

pub use initrd::{Initrd, initrd, is_thawed, is_whole as is_whole_initrd};
pub use kernel::{Asked, Thawed, kernel};
