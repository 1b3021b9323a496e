//! Requests: the arguments of a command, the configuration, and one-shot entries.

pub mod arguments;
pub mod choices;
pub mod conf;
pub mod firmware;
pub mod once;
