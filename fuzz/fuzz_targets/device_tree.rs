//! Parses any bytes as a device tree, or refuses them, without a panic. A tree written for the next kernel
//! parses again, and has room at the offsets it reports, with the bytes written there. It grows by no more than
//! the added data, and not at all when written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::loading::prepare::device_tree::Tree;
use nextkernel::loading::prepare::range::Range;
use nextkernel_plan::Area;

/// Maximum size of the added properties, their names, and a node for them.
const TOLD: usize = 512;

const ROOM: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = Tree::parse(bytes) else { return };
    let initrd = bytes.first().map(|_| Range { start: 0x4000_0000, end: 0x4123_4567 });
    let mut told = tree.told(initrd, ROOM as u64).unwrap_or_else(|_| unreachable!("{bytes:?}"));
    // A name may be shared, and a node without properties is written shorter, but nothing is added twice.
    assert!(told.bytes.len() <= 2 * bytes.len() + TOLD + ROOM);
    let again = Tree::parse(&told.bytes).and_then(|tree| tree.told(initrd, ROOM as u64));
    let again = again.unwrap_or_else(|_| unreachable!("{bytes:?}"));
    assert_eq!((again.bytes.len(), again.seeds.len()), (told.bytes.len(), told.seeds.len()));
    let areas: Vec<Area> = [told.cmdline].into_iter().chain(told.seeds.clone()).collect();
    for area in areas {
        let end = area.end_within(told.bytes.len() as u64).unwrap_or_else(|| unreachable!("{area:?}"));
        let (start, end) = (usize::try_from(area.offset), usize::try_from(end));
        let (Ok(start), Ok(end)) = (start, end) else { unreachable!("{area:?}") };
        told.bytes[start..end].fill(7);
    }
    let tree = Tree::parse(&told.bytes).unwrap_or_else(|_| unreachable!("{bytes:?}"));
    assert_eq!(tree.chosen("bootargs"), Some(&[7; ROOM][..]));
    assert_eq!(tree.chosen("kaslr-seed"), Some(&[7; 8][..]));
    assert_eq!(tree.chosen("rng-seed"), Some(&[7; 32][..]));
});
