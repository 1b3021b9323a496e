//! Preparing a load on `x86_64`, by the 64-bit boot protocol (Documentation/arch/x86/boot.rst). The next kernel
//! gets the same parameters as from `kexec_file_load` (`bzImage64_load`, arch/x86/kernel/kexec-bzimage64.c),
//! but no purgatory.
//!
//! The running kernel jumps with all memory mapped at its own address, interrupts off, and all registers zero
//! (`relocate_kernel`, `arch/x86/kernel/relocate_kernel_64.S`). The next one also needs the address of its
//! parameters in `rsi`, and the protocol's segments. The [`trampoline`](trampoline::trampoline) provides both.
//!
//! The parameters are one segment, in this order:
//!
//! | content | offset |
//! |---|---|
//! | `boot_params` | 0, one page |
//! | the command line, and room for its record | 4096 |
//! | `setup_data`: more of the memory map, EFI's addresses | behind that, each at a multiple of 16 |
//! | EFI's map of its own memory | behind that |
//! | `setup_data`: the seed | behind that |
//! | the trampoline, its stack | behind that |

mod boot_params;
mod field;
mod kernel;
mod machine;
mod places;
#[cfg(test)]
mod tests;
mod trampoline;

use nextkernel_plan::{Area, Part, Segment};

use self::boot_params::{Layout, Told};
use self::kernel::{Kernel, PAGE};
use self::machine::Machine;
use self::places::Asked;
use crate::loading::prepare::memory::Memory;
use crate::loading::prepare::parts::{self, Error, Parts, Prepared, Random};

/// Prepares a load.
pub fn segments(parts: &Parts<'_>) -> Result<Prepared, Error> {
    let kernel = Kernel::read(parts)?;
    let machine = Machine::read(parts.root)?;
    kernel.fits(&machine, parts)?;
    let mut random = Random::open(parts.root)?;
    let number =
        random.number().map_err(|error| Error::Unreadable { what: "/dev/urandom".to_owned(), error })?;
    let memory = Memory::usable(parts.root, PAGE)?;
    let initrd = parts.initrd.map(|file| parts::length(file, "the staged initrd")).transpose()?;
    let told = |initrd| Told { kernel: &kernel, machine: &machine, initrd, cmdline_room: parts.cmdline_room };
    // The length does not depend on the initrd's place.
    let length = told(initrd.map(|size| (0, size))).layout(0, 0)?.parameters.len() as u64;
    let asked = Asked { kernel: &kernel, initrd, parameters: length, cmdline: parts.cmdline, number };
    let places = parts::with_least_in_the_way(&memory, parts.avoided, |memory| asked.places(memory))?;

    let told = told(places.initrd.zip(initrd));
    let Layout { parameters, start, cmdline, seed } =
        told.layout(places.parameters, places.kernel + kernel.entry)?;
    let segment =
        |part, bytes, at, takes: u64| Segment { part, bytes, at, takes: takes.next_multiple_of(PAGE) };
    let all = |size| Area { offset: 0, size };
    let mut segments = vec![
        segment(Part::Kernel, kernel.bytes, places.kernel, kernel.takes),
        segment(Part::Parameters, all(length), places.parameters, length),
    ];
    if let (Some(at), Some(size)) = (places.initrd, initrd) {
        segments.push(segment(Part::Initrd, all(size), at, size));
    }
    // Small segments are loaded first. The kernel sets a page aside if it is the destination of a later
    // segment, and searches all the pages set aside for each further page.
    segments.sort_by_key(|segment| segment.takes);
    let decompressed = parts.decompressed.map(|decompressed| decompressed.notes.clone()).unwrap_or_default();
    let notes = decompressed.into_iter().chain(machine.notes.iter().cloned()).collect();
    Ok(Prepared { parameters, start, segments, cmdline, seeds: vec![seed], notes })
}
