//! The common part of arm64 and riscv64: a kernel that lies in memory as it lies in its file, and a device tree
//! with everything else that it needs to know.

use std::fs;

use nextkernel_plan::{Area, Part, Segment};

use super::device_tree::{self, Malformed, Tree};
use super::memory::{Bounds, Memory, Pick};
use super::range::Range;
use crate::image::header::{self, Flat, Header};
use crate::loading::prepare::parts::{Error, Parts, Prepared, head, length};

/// The alignment of large parts, which is that of a large page in the next kernel's own mapping.
pub(super) const LARGE: u64 = 2 << 20;

/// The largest device tree that a kernel accepts (`MAX_FDT_SIZE`, arch/arm64/include/asm/boot.h).
const TREE_MAX: u64 = LARGE;

/// The differences between the two architectures.
pub(super) struct Way<'a> {
    /// The page size, or a multiple of it.
    pub page: u64,
    /// Bytes that are reserved for the kernel before its first byte.
    pub before: u64,
    /// Returns the highest end of the initrd, given the beginning of the memory reserved for the kernel.
    pub initrd_below: &'a dyn Fn(u64) -> u64,
    /// Returns the first instructions, given the addresses of the device tree and the kernel. If there are
    /// none, execution begins in the kernel itself.
    pub code: Option<&'a dyn Fn(u64, u64) -> Vec<u8>>,
}

/// Returns the facts in the kernel's header, if it is a flat image for that architecture.
pub(super) fn image(parts: &Parts<'_>, machine: &str) -> Result<Flat, Error> {
    let sentence = match Header::parse(&head(parts.kernel, "the staged kernel", header::LENGTH)?) {
        Header::Flat(flat) if flat.machine == machine => {
            if flat.memory != 0 {
                return Ok(flat);
            }
            "the kernel does not say how much memory it takes, which those before Linux 3.17 did not; stage a newer one"
                .into()
        }
        Header::Bz(_) => foreign("x86", machine),
        Header::For(other) | Header::Flat(Flat { machine: other, .. }) if other != machine => {
            foreign(other, machine)
        }
        _ => format!(
            "the kernel is no Image, as kernels for {machine} are built (arch/*/boot/Image), and no other form is loaded \
             so; name that"
        ),
    };
    Err(Error::Unfit(sentence))
}

fn foreign(machine: &str, here: &str) -> String {
    format!("it is a kernel for {machine}, and this machine is {here}; name one for this machine")
}

/// The places found.
#[derive(Clone, Copy)]
struct Places {
    /// The beginning of the memory reserved for the kernel.
    kernel: u64,
    initrd: Option<u64>,
    parameters: u64,
}

/// Prepares a load.
pub(super) fn segments(parts: &Parts<'_>, image: &Flat, way: &Way<'_>) -> Result<Prepared, Error> {
    let whole = |bytes: u64| bytes.checked_next_multiple_of(way.page);
    let kernel = length(parts.kernel, "the staged kernel")?;
    let initrd = parts.initrd.map(|initrd| length(initrd, "the staged initrd")).transpose()?;
    let old = fs::read(parts.root.path(device_tree::PATH)).map_err(|error| Error::Unreadable {
        what: format!("the device tree that this kernel was started with, {},", device_tree::PATH),
        error,
    })?;
    let old = Tree::parse(&old)?;

    // The length does not depend on the initrd's place.
    let told = |initrd: Option<Range>| old.told(initrd, parts.cmdline_room);
    let tree = told(initrd.map(|_| Range { start: 0, end: 0 }))?.bytes.len() as u64;
    if tree > TREE_MAX {
        return Err(Error::Unfit(
            "the device tree is larger than a kernel takes, which is 2 MiB; stage with --loader verified"
                .into(),
        ));
    }
    let code = way.code.map_or(0, |code| code(0, 0).len() as u64);

    // `memory` includes `before`.
    let takes = whole(kernel.max(image.memory.saturating_sub(way.before)));
    let kept = takes.and_then(|takes| takes.checked_add(way.before));
    let (Some(takes), Some(kept)) = (takes, kept) else {
        return Err(Error::Unfit("the kernel takes more memory than any machine has; stage another".into()));
    };
    let memory = Memory::usable(parts.root, way.page)?;
    let fit = |memory: &Memory, low: &Range| {
        let mut memory = memory.clone();
        let bounds = Bounds { align: LARGE, low: low.start, high: u64::MAX };
        // The kernel always gets the lowest place, because old kernels use no memory below their own.
        let kernel = memory.take_anywhere(kept, bounds, Pick::Lowest)?;
        let after = Bounds { align: way.page, low: kernel, high: (way.initrd_below)(kernel) };
        let initrd = match initrd {
            Some(size) => Some(memory.take(size, after, Pick::Lowest)?),
            None => None,
        };
        let parameters = Bounds { align: LARGE, low: kernel, high: u64::MAX };
        let parameters = memory.take(tree + code, parameters, Pick::Lowest)?;
        Some(Places { kernel, initrd, parameters })
    };
    let places = crate::loading::prepare::parts::with_least_in_the_way(&memory, parts.avoided, |memory| {
        memory.free().iter().find_map(|low| fit(&memory, low)).ok_or_else(|| {
            Error::Unfit(
                "there is no free place in memory where kernel and initrd could lie together; a smaller initrd may fit"
                    .into(),
            )
        })
    })?;

    let at = places.kernel + way.before;
    let lies_at = |initrd: u64| Some(Range { start: places.initrd?, end: places.initrd? + initrd });
    let told = told(initrd.and_then(lies_at))?;
    let mut parameters = told.bytes;
    let start = match way.code {
        Some(code) => {
            parameters.extend(code(places.parameters, at));
            places.parameters + tree
        }
        None => at,
    };
    let size = parameters.len() as u64;
    let segment = |part, size, at, takes| Segment { part, bytes: Area { offset: 0, size }, at, takes };
    let rounded = |size| whole(size).unwrap_or(size);
    let mut segments = vec![segment(Part::Kernel, kernel, at, takes)];
    if let (Some(size), Some(at)) = (initrd, places.initrd) {
        segments.push(segment(Part::Initrd, size, at, rounded(size)));
    }
    segments.push(segment(Part::Parameters, size, places.parameters, rounded(size)));
    segments.sort_by_key(|segment| segment.at);
    Ok(Prepared { parameters, start, segments, cmdline: told.cmdline, seeds: told.seeds, notes: Vec::new() })
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Error {
        Error::Unfit(malformed.to_string())
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::loading::prepare::{self, device_tree};
    use crate::machine::scratch::Scratch;
    use std::fs::File;

    pub(crate) const MIB: u64 = 1 << 20;

    /// QEMU's board with 512 MiB, as its kernel lists it.
    pub(crate) const IOMEM: &str = "\
09000000-09000fff : pl011@9000000
40000000-5fffffff : System RAM
  40200000-4119ffff : Kernel code
  411a0000-4145ffff : reserved
  41460000-4163ffff : Kernel data
  5c000000-5fffffff : reserved
";

    /// Returns the first bytes of an Image.
    pub(crate) fn image(magic: [u8; 4], offset: u64, size: u64, flags: u64) -> Vec<u8> {
        let [offset, size, flags] = [offset, size, flags].map(u64::to_le_bytes);
        header::tests::image(&[(8, &offset), (16, &size), (24, &flags), (56, &magic)])
    }

    /// Prepares a load on a machine, of a kernel and an initrd of that size.
    pub(crate) fn prepared(
        machine: &str,
        iomem: &str,
        kernel: &[u8],
        initrd: Option<u64>,
    ) -> Result<Prepared, String> {
        let scratch = Scratch::new();
        scratch.put("/proc/iomem", iomem);
        scratch.put("/sys/firmware/fdt", "");
        fs::write(scratch.root.path("/sys/firmware/fdt"), device_tree::tests::tree(None, &[])).unwrap();
        fs::write(scratch.root.path("/kernel"), kernel).unwrap();
        let kernel = scratch.root.open("/kernel").unwrap();
        let initrd = initrd.map(|size| {
            let file = File::create(scratch.root.path("/initrd")).unwrap();
            file.set_len(size).unwrap();
            file
        });
        let parts = Parts {
            root: &scratch.root,
            kernel: &kernel,
            decompressed: None,
            initrd: initrd.as_ref(),
            cmdline: "quiet",
            cmdline_room: 256,
            avoided: &[],
        };
        prepare::of(machine, &parts).map_err(|error| error.to_string())
    }

    /// Returns the segment of a part.
    pub(crate) fn of(prepared: &Prepared, part: Part) -> Segment {
        *prepared.segments.iter().find(|segment| segment.part == part).unwrap()
    }
}
