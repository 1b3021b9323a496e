//! The places of the kernel, the initrd and the parameters in the free memory.

use super::kernel::{Choice, Kernel, LOWEST};
use crate::image::cmdline;
use crate::loading::prepare::memory::{Bounds, Memory, Pick};
use crate::loading::prepare::parts::Error;
use crate::words::size::Size;

/// The lowest address in use for an initrd. `kexec_file_load` leaves even more below it.
const INITRD_LOWEST: u64 = 16 << 20;

/// The kernel hands out memory above this address first, if there is any (`ZONE_NORMAL`,
/// `Documentation/mm/physical_memory.rst`). So the initrd goes below, if there is room. The gain is explained
/// in [`handed_out`](crate::loading::prepare::handed_out).
pub(super) const LAST_HANDED_OUT: u64 = 4 << 30;

/// Of all the random places for a kernel, the memory to leave alone must leave this fraction, so that the place
/// cannot be guessed.
const FAIR_SHARE: u64 = 4;

/// The parts that need places.
pub(super) struct Asked<'a> {
    pub(super) kernel: &'a Kernel<'a>,
    /// The initrd's size in bytes.
    pub(super) initrd: Option<u64>,
    /// The parameters' size in bytes.
    pub(super) parameters: u64,
    pub(super) cmdline: &'a str,
    /// A random number, for the kernel's place.
    pub(super) number: u64,
}

/// The places found.
pub(super) struct Places {
    pub(super) kernel: u64,
    pub(super) initrd: Option<u64>,
    pub(super) parameters: u64,
}

impl Asked<'_> {
    /// Finds a place for each part.
    pub(super) fn places(&self, mut memory: Memory) -> Result<Places, Error> {
        let below = memory_limit(self.cmdline);
        let (bounds, choice) = self.kernel.place(self.cmdline);
        let bounds = Bounds { high: bounds.high.min(below), ..bounds };
        let takes = self.kernel.takes;
        let no_kernel = || no_place("the kernel", takes);
        let (kernel, initrd) = if choice == Choice::Random {
            // The kernel is placed around the initrd, as its own code would do it.
            let initrd = self.initrd(&mut memory)?;
            let (left, all) = memory.places(takes, bounds);
            if left < all / FAIR_SHARE {
                return Err(no_kernel());
            }
            let kernel = memory.take(takes, bounds, Pick::Random(self.number));
            (kernel.ok_or_else(no_kernel)?, initrd)
        } else {
            // The kernel is placed first, even in memory to leave alone, so that nothing else affects its
            // place.
            let pick = if choice == Choice::Highest { Pick::Highest } else { Pick::Lowest };
            let kernel = memory.take_anywhere(takes, bounds, pick).ok_or_else(no_kernel)?;
            (kernel, self.initrd(&mut memory)?)
        };
        let bounds = Bounds { low: LOWEST, high: below, ..Bounds::default() };
        let parameters = memory.take(self.parameters, bounds, Pick::Highest);
        let parameters = parameters.ok_or_else(|| no_place("its parameters", self.parameters))?;
        Ok(Places { kernel, initrd, parameters })
    }

    fn initrd(&self, memory: &mut Memory) -> Result<Option<u64>, Error> {
        let Some(size) = self.initrd else { return Ok(None) };
        let below = memory_limit(self.cmdline);
        let mut highs = [below.min(LAST_HANDED_OUT), below].into_iter();
        let at = highs.find_map(|high| {
            let bounds = Bounds { low: INITRD_LOWEST, high, ..Bounds::default() };
            memory.take(size, bounds, Pick::Highest)
        });
        at.map(Some).ok_or_else(|| no_place("the initrd", size))
    }
}

fn no_place(what: &str, size: u64) -> Error {
    Error::Unfit(format!(
        "there is no place for {what}: nowhere in this machine's memory are {} together that nothing else is said to \
         be in; stage with --loader verified",
        Size(size)
    ))
}

/// Returns the limit of the memory that the next kernel will use, from its command line (`parse_memopt`,
/// arch/x86/kernel/e820.c).
fn memory_limit(cmdline: &str) -> u64 {
    let Some(text) = cmdline::value(cmdline, "mem") else { return u64::MAX };
    bytes_in(text).filter(|limit| *limit > 0).unwrap_or(u64::MAX)
}

/// Parses a number like the kernel's `memparse`: decimal, or hexadecimal behind `0x`, with an optional unit.
fn bytes_in(text: &str) -> Option<u64> {
    let (radix, digits) = text.strip_prefix("0x").map_or((10, text), |digits| (16, digits));
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (number, unit) = digits.split_at_checked(end)?;
    let shift = match unit.bytes().next().map(|unit| unit.to_ascii_uppercase()) {
        None => 0,
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(_) => return None,
    };
    u64::from_str_radix(number, radix).ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_is_read_as_the_kernel_reads_it() {
        for (line, limit) in [
            ("mem=512M", 512 << 20),
            ("mem=0x20000000 quiet", 512 << 20),
            ("mem=4G", 4 << 30),
            ("mem=1t", 1 << 40),
            ("mem=512", 512),
            ("mem=nopentium", u64::MAX),
            ("quiet", u64::MAX),
            ("mem=99999999999999999999", u64::MAX),
            ("mem=99999999999T", u64::MAX),
        ] {
            assert_eq!(memory_limit(line), limit, "{line}");
        }
    }
}
