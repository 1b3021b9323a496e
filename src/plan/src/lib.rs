//! The plan: everything that `nextkernel` decided by day and `nextkernel-hook` carries out at night.
//!
//! It is the only thing the two programs share. It is plain text that a person can read, it names
//! its version, every limit in it stands in [`limits`], and it ends with a line that says so: a
//! plan that was cut short is no plan. The folder that holds it holds the images, too; names in it
//! are relative to that folder, for the folder stands at another path once the root is gone.
//!
//! ```
//! use nextkernel_plan::{Plan, Verb};
//!
//! let text = b"\
//! nextkernel-plan 2
//! handoff = 5f3a9c1e2b7d4a60
//! entry = 6.12.57-amd64
//! staged-at = 1763900000
//! on = kexec
//! preload = yes
//! kernel = 5f3a9c1e2b7d4a60/kernel size=12345678 inode=41 changed=1763900000.000000007
//! cmdline = root=/dev/vda1 ro quiet
//! end
//! ";
//! let plan = Plan::parse(text)?;
//! assert!(plan.on.covers(Verb::Kexec) && !plan.on.covers(Verb::Reboot));
//! assert_eq!(plan.to_string().as_bytes(), text);
//! # Ok::<(), nextkernel_plan::Malformed>(())
//! ```
#![cfg_attr(not(test), no_std)]

mod armed;
mod cma;
mod direct;
#[cfg(test)]
mod hostile;
mod id;
mod image;
pub mod limits;
mod list;
mod once;
mod plan;
mod record;
mod teardown;
mod verb;

pub use armed::Armed;
pub use cma::may_load_into_cma;
pub use direct::{Area, Direct, Part, Segment};
pub use id::HandoffId;
pub use image::{Changed, Image, Stamp};
pub use list::List;
pub use once::{ONCE, checksum};
pub use plan::{Jump, Malformed, Plan, Preload, VERSION, Why};
pub use record::{Marks, Night, Record, Recorded, Trouble};
pub use teardown::{
    GpuFailed, GpuPolicy, Policy, Watchdog, guard_seconds, is_module, is_nvidia, is_pci_address,
};
pub use verb::{On, Verb};
