//! Parses any text as a memory map, or refuses it. The free ranges are in order and never touch. Every place
//! taken is within a free range and the bounds, is aligned, and is taken only once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::loading::prepare::memory::{Bounds, Memory, Pick};
use nextkernel::loading::prepare::memory_map::free_in;
use nextkernel::loading::prepare::range::Range;

const PAGE: u64 = 4096;

fuzz_target!(|bytes: &[u8]| {
    let (numbers, text) = bytes.split_at(bytes.len().min(33));
    let number = |at: usize| {
        numbers.get(at..at + 8).map_or(0, |all| u64::from_le_bytes(all.try_into().unwrap_or_default()))
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(ranges) = free_in(text) else { return };
    in_order(&ranges);
    let random = number(0);
    let start = number(5) >> (random % 64) & !(PAGE - 1);
    let avoided = Range { start, end: start.saturating_add(PAGE << (number(13) % 30)) };
    let mut memory = Memory::new(&ranges, PAGE).avoiding(&[avoided]);
    for round in 0..4 {
        let before = memory.free().to_vec();
        in_order(&before);
        assert!(before.iter().all(|range| range.start % PAGE == 0 && range.end % PAGE == 0));
        let bounds =
            Bounds { align: 1 << (number(8) % 40), low: number(16), high: u64::MAX - (number(24) >> 8) };
        let size = number(8) >> (16 + number(0) % 48);
        let pick = match round {
            0 => Pick::Lowest,
            1 => Pick::Highest,
            _ => Pick::Random(random),
        };
        let place = if round == 3 {
            memory.take_anywhere(size, bounds, pick)
        } else {
            memory.take(size, bounds, pick)
        };
        let Some(at) = place else {
            assert_eq!(memory.free(), before);
            continue;
        };
        let taken = Range { start: at, end: at + size.max(1).next_multiple_of(PAGE) };
        assert!(before.iter().any(|range| range.start <= taken.start && taken.end <= range.end));
        assert!(round == 3 || taken.end <= avoided.start || avoided.end <= taken.start);
        assert!(at >= bounds.low && taken.end <= bounds.high && at % bounds.align == 0);
        let sum = |ranges: &[Range]| ranges.iter().map(|range| u128::from(range.size())).sum::<u128>();
        assert_eq!(sum(&before), sum(memory.free()) + u128::from(taken.size()));
        assert!(memory.free().iter().all(|range| range.end <= taken.start || taken.end <= range.start));
    }
});

fn in_order(ranges: &[Range]) {
    assert!(ranges.iter().all(|range| range.start < range.end));
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
}
