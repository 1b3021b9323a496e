//! Loading an image into the kernel: the choice of the system call, decompression, the layout for `kexec_load`,
//! and the test load.

pub mod decompress;
pub mod policy;
pub mod prepare;
pub mod refusal;
pub mod restriction;
pub mod syscall;
pub mod test_load;
