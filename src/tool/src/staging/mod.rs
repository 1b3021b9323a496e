//! What a set is made of.

pub mod directory;
pub mod extra;
pub mod images;
pub mod origin;
pub mod set;
