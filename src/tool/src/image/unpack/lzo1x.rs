//! Decompresses LZO1X block by block, as lzop writes it (Documentation/staging/lzo.rst).

/// Decompresses a block of `size` bytes. Returns `None` if the data is malformed, or the block has another
/// size.
pub(super) fn unpack(packed: &[u8], size: usize, block: &mut Vec<u8>) -> Option<()> {
    block.clear();
    let mut block = Block { packed, size, whole: block };
    // The number of bytes copied from the input just before an instruction determines what it means; 4 stands
    // for 4 or more.
    let mut literals = 0;
    if let first @ 18.. = *packed.first()? {
        block.byte()?;
        literals = block.copy(usize::from(first) - 17)?;
    }
    loop {
        let code = usize::from(block.byte()?);
        let (length, distance, next) = match (code, literals) {
            (0..16, 0) => {
                let length = block.length(code, 15)?;
                literals = block.copy(length + 3)?;
                continue;
            }
            (0..16, 4) => (3, (usize::from(block.byte()?) << 2) + (code >> 2) + 2049, code),
            (0..16, _) => (2, (usize::from(block.byte()?) << 2) + (code >> 2) + 1, code),
            (16..32, _) => {
                let length = block.length(code & 7, 7)? + 2;
                let rest = block.pair()?;
                let distance = ((code & 8) << 11) + (rest >> 2) + 16384;
                if distance == 16384 {
                    return block.is_whole().then_some(());
                }
                (length, distance, rest)
            }
            (32..64, _) => {
                let length = block.length(code & 31, 31)? + 2;
                let rest = block.pair()?;
                (length, (rest >> 2) + 1, rest)
            }
            _ => {
                let length = if code < 128 { 3 + (code >> 5 & 1) } else { 5 + (code >> 5 & 3) };
                (length, (usize::from(block.byte()?) << 3) + (code >> 2 & 7) + 1, code)
            }
        };
        block.repeat(length, distance)?;
        literals = block.copy(next & 3)?;
    }
}

/// A block that is being decompressed.
struct Block<'a> {
    packed: &'a [u8],
    size: usize,
    whole: &'a mut Vec<u8>,
}

impl Block<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.packed.split_first()?;
        self.packed = rest;
        Some(*byte)
    }

    fn pair(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    /// Returns the length that the instruction holds. If that is 0, the length follows: it is the largest that
    /// the instruction could hold, plus 255 for each zero byte, plus the first other byte.
    fn length(&mut self, code: usize, most: usize) -> Option<usize> {
        if code > 0 {
            return Some(code);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Some(length + usize::from(last)),
            }
        }
    }

    fn copy(&mut self, count: usize) -> Option<usize> {
        let (copied, rest) = self.packed.split_at_checked(count)?;
        self.packed = rest;
        self.whole.extend_from_slice(copied);
        (self.whole.len() <= self.size).then_some(count.min(4))
    }

    /// Copies from earlier output; source and destination may overlap.
    fn repeat(&mut self, count: usize, distance: usize) -> Option<()> {
        let from = self.whole.len().checked_sub(distance)?;
        if count > self.size.checked_sub(self.whole.len())? {
            return None;
        }
        for at in from..from + count {
            self.whole.push(*self.whole.get(at)?);
        }
        Some(())
    }

    fn is_whole(&self) -> bool {
        self.packed.is_empty() && self.whole.len() == self.size
    }
}

/// Returns the checksum that lzop writes (RFC 1950, 8.2). A block is too short for these sums to overflow.
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) =
        bytes.iter().fold((1_u64, 0_u64), |(a, b), byte| (a + u64::from(*byte), a + b + u64::from(*byte)));
    u32::try_from(((b % 65521) << 16) | (a % 65521)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decompresses a block. Each test case is an instruction from the description of the format.
    fn unpacked(packed: &[u8], size: usize) -> Option<Vec<u8>> {
        let mut block = Vec::new();
        unpack(packed, size, &mut block).map(|()| block)
    }

    #[test]
    fn each_instruction_does_what_the_format_says() {
        let end = [0x11, 0, 0];
        let block = |code: &[u8]| [code, &end[..]].concat();
        for (code, text) in [
            (block(&[17 + 3, b'a', b'b', b'c']), "abc"),
            (block(&[17 + 5, 1, 2, 3, 4, 5]), "\u{1}\u{2}\u{3}\u{4}\u{5}"),
            (block(&[1, b'a', b'b', b'c', b'd']), "abcd"),
            (block(&[18, b'a', 0, 0]), "aaa"),
            (block(&[19, b'a', b'b', 4, 0]), "abab"),
            (block(&[18, b'a', 0x40 + 0x20, 0]), "aaaaa"),
            (block(&[18, b'a', 0x80 + 0x60, 0]), "aaaaaaaaa"),
            (block(&[18, b'a', 0x20 + 3, 1, 0, b'b']), "aaaaaab"),
            (block(&[18, b'a', 0x20, 1, 0, 0]), &"a".repeat(1 + 2 + 31 + 1)),
            (block(&[18, b'a', 0x20, 0, 1, 0, 0]), &"a".repeat(1 + 2 + 31 + 255 + 1)),
        ] {
            assert_eq!(unpacked(&code, text.len()), Some(text.into()), "{code:?}");
            assert_eq!(unpacked(&code, text.len() - 1), None, "{code:?}");
            assert_eq!(unpacked(&code, text.len() + 1), None, "{code:?}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        // Reducing the sums once at the end gives the same result as reducing them at every byte.
        let many = vec![0xff; 256 << 10];
        let step = |(a, b): (u64, u64)| ((a + 255) % 65521, (b + a + 255) % 65521);
        let (a, b) = many.iter().fold((1, 0), |sums, _| step(sums));
        assert_eq!(u64::from(adler32(&many)), (b << 16) | a);
    }

    #[test]
    fn what_reaches_before_the_beginning_or_has_no_end_is_malformed() {
        for bad in [&[][..], &[18, b'a'], &[18, b'a', 4, 9, 0x11, 0, 0], &[0x11, 0], &[17 + 9, 1], &[0, 0, 0]]
        {
            assert_eq!(unpacked(bad, 5), None, "{bad:?}");
        }
    }
}
