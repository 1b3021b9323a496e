//! Writing a device tree, with the properties of `/chosen` that are written anew for each kernel.

use nextkernel_plan::Area;

use super::tree::{BEGIN, LIKE_VERSION, MAGIC, Malformed, PROPERTY, VERSION};
use crate::loading::prepare::range::Range;

/// The length of the header in bytes.
const HEADER: usize = 40;

/// The properties of `/chosen` for the command line and for the initrd; each occurs once.
pub(super) const CMDLINE: &str = "bootargs";
pub(super) const INITRD: [&str; 2] = ["linux,initrd-start", "linux,initrd-end"];

/// The properties and sizes of two seeds: for the kernel's virtual address (`get_kaslr_seed`,
/// arch/arm64/kernel/pi), and for its random numbers, which are fully seeded from 256 bits on
/// (`add_bootloader_randomness`, drivers/char/random.c).
pub(super) const SEEDS: [(&str, usize); 2] = [("kaslr-seed", 8), ("rng-seed", 32)];

/// The mark of a kernel that was not started by firmware.
pub(super) const BY_KEXEC: &str = "linux,booted-from-kexec";

/// A device tree being written.
pub(super) struct Writer {
    /// The tree's bytes, beginning with the header.
    pub(super) bytes: Vec<u8>,
    names: Vec<u8>,
}

impl Writer {
    pub(super) fn new(names: &[u8]) -> Writer {
        Writer { bytes: vec![0; HEADER], names: names.to_vec() }
    }

    pub(super) fn word(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn begin(&mut self, name: &[u8]) {
        self.word(BEGIN);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
    }

    /// Writes a property, and returns the area of its value.
    pub(super) fn property(&mut self, name_at: u32, value: &[u8]) -> Result<Area, Malformed> {
        self.word(PROPERTY);
        self.word(u32::try_from(value.len()).map_err(|_| Malformed)?);
        self.word(name_at);
        let area = Area { offset: self.bytes.len() as u64, size: value.len() as u64 };
        self.bytes.extend_from_slice(value);
        self.pad();
        Ok(area)
    }

    /// Writes a property by name. The name is added only if it is missing, so that the tree does not grow from
    /// handoff to handoff.
    pub(super) fn own(&mut self, name: &str, value: &[u8]) -> Result<Area, Malformed> {
        let with_end = [name.as_bytes(), &[0]].concat();
        let at = self.names.windows(with_end.len()).position(|there| there == with_end);
        let at = at.unwrap_or_else(|| {
            // The existing names may lack a final NUL, if no property uses the last one.
            if self.names.last().is_some_and(|last| *last != 0) {
                self.names.push(0);
            }
            self.names.extend_from_slice(&with_end);
            self.names.len() - with_end.len()
        });
        self.property(u32::try_from(at).map_err(|_| Malformed)?, value)
    }

    /// Writes the properties for the next kernel, and returns the areas of the command line and of the seeds.
    pub(super) fn tell(
        &mut self,
        initrd: Option<Range>,
        room: usize,
    ) -> Result<(Area, Vec<Area>), Malformed> {
        let cmdline = self.own(CMDLINE, &vec![0; room])?;
        if let Some(initrd) = initrd {
            for (name, at) in INITRD.iter().zip([initrd.start, initrd.end]) {
                self.own(name, &at.to_be_bytes())?;
            }
        }
        let seeds =
            SEEDS.iter().map(|(name, size)| self.own(name, &vec![0; *size])).collect::<Result<_, _>>()?;
        self.own(BY_KEXEC, &[])?;
        Ok((cmdline, seeds))
    }

    /// Appends the names, and fills in the header.
    pub(super) fn finish(mut self, structure: usize, boot_cpu: u32) -> Result<Vec<u8>, Malformed> {
        let names = self.bytes.len();
        self.bytes.append(&mut self.names);
        // Whatever follows the tree, such as arm64's first instructions, begins at a multiple of 8.
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let whole = self.bytes.len();
        let sizes = [whole, structure, names, HEADER].map(|size| u32::try_from(size).map_err(|_| Malformed));
        let [whole, structure, names_at, reserved] = sizes;
        let (whole, structure, names_at) = (whole?, structure?, names_at?);
        let header = [
            MAGIC,
            whole,
            structure,
            names_at,
            reserved?,
            VERSION,
            LIKE_VERSION,
            boot_cpu,
            whole - names_at,
            names_at - structure,
        ];
        for (place, word) in self.bytes.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        Ok(self.bytes)
    }
}
