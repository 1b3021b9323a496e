//! What `nextkernel-hook` does at the end of a shutdown. `handoff` is the routine to read aloud; `docs/night.md` has the same
//! as a state table.
//!
//! Each layer uses those before it, and none behind it: `sys` (the system), `scene` (what the machine shows), `bounds`
//! (deadlines, failures, the guard), `caller` (who has called), `acts` (what is done), `decide` and `end`, `handoff`.
#![cfg_attr(not(test), no_std)]

pub mod acts;
pub mod bounds;
pub mod caller;
pub mod decide;
pub mod end;
pub mod handoff;
pub mod scene;
pub mod sys;
