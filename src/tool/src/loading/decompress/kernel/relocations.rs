//! Moving a laid-out kernel to another virtual address.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::elf::piece;
use super::layout::Layout;
use crate::loading::decompress::failure::Failure;
use crate::words::little_endian::long;

/// The virtual address at which the kernel is mapped (`__START_KERNEL_map`,
/// `arch/x86/include/asm/page_64_types.h`).
pub(super) const MAPPED: u64 = 0xffff_ffff_8000_0000;

/// Bytes of the file that are relocated at a time.
const WINDOW: u64 = 1 << 20;

/// The values to change in a kernel that is moved: 32-bit addresses, negated 32-bit addresses, and 64-bit
/// addresses.
pub(super) struct Relocations {
    narrow: Vec<u32>,
    inverse: Vec<u32>,
    wide: Vec<u32>,
}

impl Relocations {
    /// Reads the bytes behind the ELF file (`emit_relocs`, arch/x86/tools/relocs.c): lists of addresses, each
    /// preceded by a zero, for the 64-bit addresses, the negated ones (before Linux 6.15 dropped them), and the
    /// 32-bit ones. Returns `None` if there are no bytes.
    pub(super) fn parse(tail: &[u8]) -> Result<Option<Relocations>, Failure> {
        if tail.is_empty() {
            return Ok(None);
        }
        let odd = || Failure::unfit("what it says of how to move it (KASLR) is not understood");
        let words: Vec<_> = tail.chunks_exact(4).map(|word| long(word, 0)).collect();
        let lists: Vec<_> = words.split(|word| *word == 0).skip(1).collect();
        let is_begun = words.first() == Some(&0) && tail.len() % 4 == 0;
        let sorted = |list: &[u32]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        match lists.as_slice() {
            [wide, narrow] if is_begun => {
                Ok(Some(Relocations { narrow: sorted(narrow), inverse: Vec::new(), wide: sorted(wide) }))
            }
            [wide, inverse, narrow] if is_begun => {
                Ok(Some(Relocations { narrow: sorted(narrow), inverse: sorted(inverse), wide: sorted(wide) }))
            }
            _ => Err(odd()),
        }
    }

    /// Changes a laid-out kernel as needed when it lies `by` bytes further on.
    pub(super) fn apply(&self, to: &File, layout: &mut Layout, by: u64) -> Result<(), Failure> {
        let low = u32::try_from(by).map_err(|_| Failure::unfit("it would be moved too far"))?;
        let narrow = |value: &mut [u8], add: u32| {
            if let Some(value) = value.first_chunk_mut() {
                *value = u32::from_le_bytes(*value).wrapping_add(add).to_le_bytes();
            }
        };
        each(to, layout, &self.narrow, 4, &|value| narrow(value, low))?;
        each(to, layout, &self.inverse, 4, &|value| narrow(value, low.wrapping_neg()))?;
        each(to, layout, &self.wide, 8, &|value| {
            if let Some(value) = value.first_chunk_mut() {
                *value = u64::from_le_bytes(*value).wrapping_add(by).to_le_bytes();
            }
        })
    }
}

/// Changes the values of that width at the given addresses, which are sorted, one piece of the file at a time.
fn each(
    to: &File,
    layout: &mut Layout,
    places: &[u32],
    width: u64,
    change: &dyn Fn(&mut [u8]),
) -> Result<(), Failure> {
    let Layout { size, linked, .. } = *layout;
    // An entry is the lower half of a virtual address whose upper half is all ones.
    let offset = |place: u32| {
        let address = u64::from(place) | 0xffff_ffff_0000_0000;
        let offset = address.checked_sub(MAPPED + linked);
        let offset = offset.filter(|offset| offset.checked_add(width).is_some_and(|end| end <= size));
        offset.ok_or_else(|| Failure::unfit("what it says of how to move it (KASLR) leads out of it"))
    };
    let mut window = Vec::new();
    let mut places = places.iter().copied().peekable();
    while let Some(first) = places.peek() {
        let begin = offset(*first)?;
        let length = (WINDOW + width).min(size - begin);
        window.resize(usize::try_from(length).unwrap_or_default(), 0);
        to.read_exact_at(&mut window, begin).map_err(Failure::Write)?;
        let mut end = 0;
        while let Some(place) = places.peek() {
            let at = offset(*place)? - begin;
            let Some(value) = usize::try_from(at).ok().and_then(|at| window.get_mut(at..)) else { break };
            if (value.len() as u64) < width {
                break;
            }
            let value = value.get_mut(..usize::try_from(width).unwrap_or_default()).unwrap_or_default();
            change(value);
            end = at + width;
            places.next();
        }
        to.write_all_at(piece(&window, 0, end), begin).map_err(Failure::Write)?;
        layout.filled = layout.filled.max(begin + end);
    }
    Ok(())
}
