//! The lowest layer: system calls, files, clocks, and text for people. Apart from the hook's own limits and
//! arguments, nothing here knows about a handoff.

pub mod arguments;
pub mod calls;
pub mod clock;
pub mod errno;
pub mod files;
pub mod limits;
pub mod name;
pub mod say;
pub mod terminal;
pub mod text;
