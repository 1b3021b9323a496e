//! The kinds of guests, and files that take a guest to make.

pub mod bios;
pub mod boards;
pub mod chain;
pub mod inits;
pub mod kexec_tools;
pub mod shutdown;
pub mod standins;
pub mod whole;
