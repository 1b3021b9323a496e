//! Unified kernel images (UAPI.5): the kernel, initrds and command line of a profile, with its addons, joined
//! as by systemd-stub(7).
//!
//! Only headers and short texts are read. Where the specification leaves something open, this follows
//! systemd-stub (src/boot/stub.c, src/boot/pe.c of systemd).

mod addon;
mod companions;
pub mod error;
pub(super) mod found;
pub mod image;
mod pe;
mod stub;

#[cfg(test)]
pub(crate) mod tests;
