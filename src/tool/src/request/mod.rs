//! What a person asks for.

pub mod conf;
pub mod firmware;
