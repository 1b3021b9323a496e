//! grub.cfg and grubenv: what GRUB's menu holds, and what it boots next.
//!
//! grub.cfg is a script (GRUB manual, "Shell-like scripting"). What grub-mkconfig writes into it
//! (`util/grub-mkconfig_lib.in`, `util/grub.d/00_header.in`, `10_linux.in`, `30_os-prober.in`, and Fedora's
//! own) is run here as GRUB would run it, with grubenv's variables; every other command is refused by name. A condition
//! that only GRUB can judge (is there a font, is this the platform) is taken both ways: what comes out the
//! same is known, and what does not is refused when it is needed.

pub mod choice;
mod condition;
pub mod environment;
pub mod found;
mod load;
pub mod menu;
pub mod order;
mod run;
mod script;
mod state;

use choice::{Next, Undecided};
use menu::{Blscfg, Config, Folder, Named, Wrong};

impl Config {
    /// Reads them. Total: any bytes give a menu, or the line that is wrong.
    pub fn read(folder: &Folder) -> Result<Config, Wrong> {
        run::run(folder)
    }

    /// What GRUB boots next if nobody touches a key.
    pub fn next(&self, bls: &[Named]) -> Result<Next, Undecided> {
        choice::next(self, bls)
    }
}

impl Blscfg {
    /// An entry's `options` as the kernel gets them: `$kernelopts` and its like put in, GRUB's quotes taken
    /// off, and its own put around.
    pub fn expand(&self, options: &str) -> Result<String, Wrong> {
        load::bls_options(options, &self.variables, self.at)
    }
}

#[cfg(test)]
mod tests;
