//! grub.cfg and grubenv: the contents of GRUB's menu, and the entry that it boots next.
//!
//! grub.cfg is a script (GRUB manual, "Shell-like scripting"). Everything that grub-mkconfig writes into it
//! (`util/grub-mkconfig_lib.in`, `util/grub.d/00_header.in`, `10_linux.in`, `30_os-prober.in`, and Fedora's
//! own) is run here as GRUB would run it, with grubenv's variables. Every other command is refused by name. A
//! condition that only GRUB can judge (is there a font, is this the platform) is taken both ways. A result that
//! is the same both ways is known; one that differs is refused when it is needed.

pub mod choice;
mod command;
mod condition;
pub mod environment;
pub mod found;
mod items;
mod load;
pub mod menu;
pub mod order;
mod run;
mod script;
mod state;

use choice::{Next, Undecided};
use menu::{Blscfg, Config, MenuFiles, Named, Wrong};

impl Config {
    /// Reads GRUB's files. Total: any bytes give a menu, or the line with the error.
    pub fn read(files: &MenuFiles) -> Result<Config, Wrong> {
        run::run(files)
    }

    /// Returns the entry that GRUB boots next if nobody touches a key.
    pub fn next(&self, bls: &[Named]) -> Result<Next, Undecided> {
        choice::next(self, bls)
    }
}

impl Blscfg {
    /// Returns an entry's `options` as the kernel gets them: variables like `$kernelopts` are expanded, the
    /// script's quotes are removed, and the quotes that GRUB writes for the kernel are added.
    pub fn expand(&self, options: &str) -> Result<String, Wrong> {
        load::bls_options(options, &self.variables, self.at)
    }
}

#[cfg(test)]
mod tests;
