//! The test bed: real Debian guests in QEMU, in which the product hands one kernel over to the next while the
//! tests watch the machine.
//!
//! A [`guest::whole::Guest`] is a whole Debian. A [`guest::shutdown::Shutdown`] is only its kernel and the real
//! systemd-shutdown, from the moment when the file systems are gone.

pub mod disk;
pub mod guest;
pub mod harness;
pub mod host;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod snapshot;
