//! A file for each command: its arguments, its errors, and the text that it prints.

pub mod check;
pub mod consume;
pub mod embed;
pub mod entries;
pub mod exitrd;
pub mod reboot;
pub mod report;
pub mod stage;
pub mod status;
pub mod unstage;
pub mod updated;
