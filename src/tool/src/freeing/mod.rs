//! What keeps a GPU, and how it is freed.

pub mod gpus;
pub mod unbind;
