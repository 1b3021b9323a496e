//! The flattened device tree for the next kernel: the running kernel's tree with another `/chosen` (Devicetree
//! Specification 0.4, 5; Documentation/devicetree/usage-model.rst).
//!
//! The changes that `kexec_file_load` makes to the tree (`of_kexec_alloc_and_setup_fdt`, drivers/of/kexec.c)
//! are made here, while the system runs. Properties of the last boot are left out, the place of the initrd is
//! set, and there is room for a command line and for seeds, which are filled in by each load.

#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod writer;

use nextkernel_plan::Area;

use self::tree::{END, FINISH, Place, Token};
use self::writer::{BY_KEXEC, CMDLINE, INITRD, SEEDS, Writer};
use crate::loading::prepare::range::Range;

pub use self::tree::{Malformed, PATH, Tree};

/// Other properties that belong to the last boot: a crash kernel's memory and its dump, the IMA measurements
/// left by the kernel before, and the memory that it handed over (drivers/of/fdt.c, drivers/of/kexec.c).
const LAST_BOOTS: [&str; 5] = [
    "linux,elfcorehdr",
    "linux,usable-memory-range",
    "linux,ima-kexec-buffer",
    "linux,kho-fdt",
    "linux,kho-scratch",
];

/// The page size. Firmware reserves an initrd's memory up to the end of its last page.
const PAGE: u64 = 4096;

/// A device tree for the next kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The tree.
    pub bytes: Vec<u8>,
    /// The area for the command line.
    pub cmdline: Area,
    /// The areas for the seeds.
    pub seeds: Vec<Area>,
}

impl Tree<'_> {
    /// Returns the address and the size of the last boot's initrd.
    fn last_initrd(self) -> Option<(u64, u64)> {
        let [start, end] = INITRD.map(|name| number(self.chosen(name)?));
        let start = start?;
        Some((start, end?.checked_sub(start)?))
    }

    /// Makes the tree for the next kernel, with its initrd in this range, and with `cmdline_room` bytes for its
    /// command line.
    pub fn told(self, initrd: Option<Range>, cmdline_room: u64) -> Result<Told, Malformed> {
        let mut out = Writer::new(self.names);
        let last = self.last_initrd();
        for pair in self.reserved.chunks_exact(16) {
            let (at, length) = pair.split_at(8);
            let was_initrds = last.is_some_and(|(start, size)| {
                let whole = size.checked_next_multiple_of(PAGE);
                number(at) == Some(start) && [Some(size), whole].contains(&number(length))
            });
            if !was_initrds {
                out.bytes.extend_from_slice(pair);
            }
        }
        out.bytes.extend_from_slice(&[0; 16]);
        let structure = out.bytes.len();

        let room = usize::try_from(cmdline_room).map_err(|_| Malformed)?;
        let mut told = None;
        let mut place = Place::default();
        for token in self.tokens().flatten() {
            place.pass(&token);
            match token {
                Token::Begin(name) => {
                    out.begin(name);
                    if place.is_in_chosen() && told.is_none() {
                        told = Some(out.tell(initrd, room)?);
                    }
                }
                Token::Property { name, .. } if place.is_in_chosen() && is_told_anew(name) => {}
                Token::Property { name_at, value, .. } => {
                    out.property(name_at, value)?;
                }
                Token::End => {
                    if place.depth == 0 && told.is_none() {
                        out.begin(b"chosen");
                        told = Some(out.tell(initrd, room)?);
                        out.word(END);
                    }
                    out.word(END);
                }
            }
        }
        out.word(FINISH);
        let (cmdline, seeds) = told.ok_or(Malformed)?;
        Ok(Told { bytes: out.finish(structure, self.boot_cpu)?, cmdline, seeds })
    }
}

/// Returns whether a property of `/chosen` is written anew for each kernel, or left out.
fn is_told_anew(name: &[u8]) -> bool {
    let seeds = SEEDS.iter().map(|(name, _)| name);
    [CMDLINE, BY_KEXEC]
        .iter()
        .chain(&INITRD)
        .chain(&LAST_BOOTS)
        .chain(seeds)
        .any(|own| own.as_bytes() == name)
}

/// Reads a big-endian number of 4 or 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    let known = bytes.len() == 4 || bytes.len() == 8;
    known.then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
