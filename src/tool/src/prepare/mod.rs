//! Preparing a load by `kexec_load(2)`: what lies where in memory when the next kernel begins, worked out by day to the
//! last byte. At night two things are filled in, the command line with its record and a random seed, and one call is
//! made.

pub mod memory_map;
