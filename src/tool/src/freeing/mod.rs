//! GPUs and other devices that the hook frees.

pub mod gpus;
pub mod unbind;
