//! How long the last handoff took, part by part, and how much time it saved.

pub mod arrival;
pub mod boot;
pub mod clock;
pub mod history;
pub mod json;
pub mod known;
pub mod prometheus;
pub mod svg;
pub mod table;
pub mod words;
