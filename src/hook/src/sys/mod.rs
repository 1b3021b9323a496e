//! The system below: calls, files, clocks, and words for people. Nothing here knows of a handoff, but for the hook's own limits
//! and arguments.

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
