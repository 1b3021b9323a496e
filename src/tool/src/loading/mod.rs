//! Loading an image into the kernel: which call, the trial load, and what is prepared for it.

pub mod decompress;
pub mod loader;
pub mod policy;
pub mod prepare;
pub mod refusal;
pub mod test_load;
