//! A staged image set: its files, its origin, and the directory that holds it.

pub mod contents;
pub mod copy;
pub mod directory;
pub mod extra;
pub mod interrupt;
pub mod leftovers;
pub mod line;
pub mod order;
pub mod origin;
pub mod plan;
pub mod ready;
pub mod room;
pub mod set;
pub mod source;
pub mod stage;
pub mod unstage;
