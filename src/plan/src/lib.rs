//! The plan: everything that `nextkernel` decides at staging, for `nextkernel-hook` to carry out at the end
//! of shutdown.
//!
//! Both programs use this crate. The plan is plain text that a person can read. It names its version, all its
//! limits are in [`limits`], and its last line says that it is complete: a plan that was cut short is refused.
//! Its directory holds the images, too. The names in the plan are relative to that directory, because the path
//! of the directory changes once the root is gone.
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
pub use plan::{Fault, Jump, Malformed, Plan, Preload, VERSION};
pub use record::{Course, Marks, Record, Recorded, Trouble};
pub use teardown::{
    GpuFailed, GpuPolicy, Policy, Watchdog, guard_seconds, is_module, is_nvidia, is_pci_address,
};
pub use verb::{On, Verb};
