//! How the kernel takes the next one.

pub mod decompress;
pub mod loader;
pub mod prepare;
pub mod refusal;
pub mod test_load;
