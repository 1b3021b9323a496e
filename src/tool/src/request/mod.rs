//! Requests: a request to stage, the configuration, and one-shot entries.

pub mod choices;
pub mod conf;
pub mod firmware;
pub mod once;
pub mod stage;
