//! A command each.

pub mod consume;
pub mod embed;
pub mod entries;
pub mod exitrd;
pub mod reboot;
pub mod stage;
pub mod status;
pub mod unstage;
pub mod updated;
