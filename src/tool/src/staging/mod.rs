//! A staged image set: its files, its origin, and the directory that holds it.

pub mod copy;
pub mod directory;
pub mod extra;
pub mod images;
pub mod origin;
pub mod ready;
pub mod set;
pub mod stage;
pub mod unstage;
