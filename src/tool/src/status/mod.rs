//! The status: the staged kernel, and the outcome of each reboot command, as text or as JSON.

mod facts;
pub mod stage;
mod text;

#[cfg(test)]
mod tests;

use std::io;

use nextkernel_plan::Plan;
use thiserror::Error;

use crate::freeing::gpus::{self, Said};
use crate::loading::syscall;
use crate::machine::root::Root;
use crate::machine::systemd;
use crate::request::conf::Conf;
use crate::staging::directory::{self, Directory};
use crate::status::facts::Status;
use crate::words::errno::InWords;
use crate::words::say;

/// A reason why the status cannot be printed.
#[derive(Debug, Error)]
pub enum Error {
    /// /run/nextkernel or the plan cannot be read.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// Standard output cannot be written.
    #[error("the status cannot be printed: {}", InWords(.0))]
    Output(io::Error),
}

/// Gathers the facts and prints them, as JSON or as text.
pub fn print(root: &Root, as_json: bool) -> Result<(), Error> {
    let text = Directory::plan_text(root)?;
    let plan = text.as_deref().map(Plan::parse).transpose().map_err(directory::Error::Malformed)?;
    let systemd = systemd::version();
    // The plan takes precedence over the configuration. A setting that a plan cannot express has its default.
    let conf = if plan.is_some() { Ok(Conf::default()) } else { Conf::read(root) };
    let conf = conf.unwrap_or_else(|error| {
        say::note(error);
        Conf::default()
    });
    let gpus = gpus::find(root, plan.as_ref().map_or(Said::Conf(&conf), Said::Plan));
    let status = Status::of(root, plan.as_ref(), &conf, gpus, systemd, syscall::calls(root));
    say::print(&status, as_json, || status.in_words(systemd)).map_err(Error::Output)
}
