//! The end of a shutdown, as `nextkernel-hook` carries it out. The routine itself is in `handoff`;
//! `docs/night.md` describes it as a state table.
//!
//! Each layer uses only the layers before it: `sys` (the system), `scene` (the state of the machine),
//! `bounds` (deadlines, failures, the guard), `caller` (the program that called the hook), `acts` (the
//! steps), `decide` and `end`, `handoff`.
#![cfg_attr(not(test), no_std)]

pub mod acts;
pub mod bounds;
pub mod caller;
pub mod decide;
pub mod end;
pub mod handoff;
pub mod scene;
pub mod sys;
