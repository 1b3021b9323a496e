//! extlinux.conf and syslinux.cfg: the labels, and the one that boots if nobody touches a key.
//!
//! Two programs read such a file, U-Boot (doc/develop/bootstd/extlinux.rst; `boot/pxe_utils.c`) and syslinux
//! (its wiki's "Config"; com32/menu/readconfig.c), and they do not agree in everything. A file that means the
//! same to both is read. A `UI` line shows that syslinux reads the file, because U-Boot does not know that
//! keyword. Everything else that they would read differently is refused by name. Paths stay as they are
//! written: see [`menu::path`].

pub mod choice;
pub(super) mod found;
mod lines;
pub mod menu;

#[cfg(test)]
mod tests;
