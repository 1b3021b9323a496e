//! Ranges of physical memory.

/// A range of physical memory, from `start` to `end`, without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// The first byte behind the range.
    pub end: u64,
}

impl Range {
    /// Returns the length in bytes.
    #[must_use]
    pub fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn overlaps(self, other: Range) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Returns the same memory as sorted ranges that do not touch.
pub(super) fn united(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable();
    let mut united: Vec<Range> = Vec::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => united.push(range),
        }
    }
    united
}

/// Returns the intersection; both arguments are as returned by `united`.
pub(super) fn both(one: &[Range], other: &[Range]) -> Vec<Range> {
    let mut both = Vec::new();
    let mut others = other.iter().copied().peekable();
    for range in one {
        while let Some(&with) = others.peek() {
            if with.overlaps(*range) {
                both.push(Range { start: range.start.max(with.start), end: range.end.min(with.end) });
            }
            if with.end > range.end {
                break;
            }
            others.next();
        }
    }
    both
}

/// Returns the first argument without the second; both are as returned by `united`.
pub(super) fn without(ranges: &[Range], taken: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut taken = taken.iter().copied().peekable();
    for range in ranges {
        let mut start = range.start;
        while let Some(&hole) = taken.peek() {
            if hole.start >= range.end {
                break;
            }
            if hole.start > start {
                left.push(Range { start, end: hole.start });
            }
            start = start.max(hole.end);
            if hole.end > range.end {
                break;
            }
            taken.next();
        }
        if start < range.end {
            left.push(Range { start, end: range.end });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn what_is_taken_away_is_gone_from_wherever_it_lies() {
        let all = [range(10, 20), range(30, 40), range(50, 60)];
        for (holes, left) in [
            (&[range(0, 100)][..], &[][..]),
            (&[range(20, 30)], &all),
            (&[range(15, 55)], &[range(10, 15), range(55, 60)]),
            (
                &[range(12, 13), range(14, 15), range(39, 51)],
                &[range(10, 12), range(13, 14), range(15, 20), range(30, 39), range(51, 60)],
            ),
        ] {
            assert_eq!(without(&all, holes), left, "{holes:?}");
            let kept: u64 = both(&all, holes).iter().map(|range| range.size()).sum();
            assert_eq!(kept + left.iter().map(|range| range.size()).sum::<u64>(), 30, "{holes:?}");
        }
    }
}
