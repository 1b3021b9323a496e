//! The flattened device tree for the next kernel: the running kernel's tree with another `/chosen` (Devicetree
//! Specification 0.4, 5; Documentation/devicetree/usage-model.rst).
//!
//! The changes that `kexec_file_load` makes to the tree (`of_kexec_alloc_and_setup_fdt`, drivers/of/kexec.c)
//! are made here, while the system runs. Properties of the last boot are left out, the place of the initrd is
//! set, and there is room for a command line and for seeds, which are filled in by each load.

use nextkernel_plan::Area;
use thiserror::Error;

use super::memory_map::Range;

/// The device tree with which the running kernel was started (Documentation/ABI/testing/sysfs-firmware-ofw).
pub const PATH: &str = "/sys/firmware/fdt";

/// The magic number; the first version whose header has the size of each part; the oldest version that it is
/// compatible with.
const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LIKE_VERSION: u32 = 16;

/// The length of the header in bytes.
const HEADER: usize = 40;

/// The tokens of the structure block.
const BEGIN: u32 = 1;
const END: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;
const FINISH: u32 = 9;

/// The properties of `/chosen` for the command line and for the initrd; each occurs once.
const CMDLINE: &str = "bootargs";
const INITRD: [&str; 2] = ["linux,initrd-start", "linux,initrd-end"];

/// The properties and sizes of two seeds: for the kernel's virtual address (`get_kaslr_seed`,
/// arch/arm64/kernel/pi), and for its random numbers, which are fully seeded from 256 bits on
/// (`add_bootloader_randomness`, drivers/char/random.c).
const SEEDS: [(&str, usize); 2] = [("kaslr-seed", 8), ("rng-seed", 32)];

/// The mark of a kernel that was not started by firmware.
const BY_KEXEC: &str = "linux,booted-from-kexec";

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

/// The file is not a device tree, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{PATH} holds no device tree that can be read, and the next kernel needs one; stage with --loader verified"
)]
pub struct Malformed;

/// A parsed device tree.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Pairs of address and size, of memory that must never be used.
    reserved: &'a [u8],
    structure: &'a [u8],
    /// The names of properties.
    names: &'a [u8],
    /// The number of the processor that boots.
    boot_cpu: u32,
}

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

enum Token<'a> {
    Begin(&'a [u8]),
    Property { name_at: u32, name: &'a [u8], value: &'a [u8] },
    End,
}

impl<'a> Tree<'a> {
    /// Parses a device tree. Any bytes are either a valid tree or an error.
    pub fn parse(bytes: &'a [u8]) -> Result<Tree<'a>, Malformed> {
        let word = |number: usize| word(bytes, number * 4).ok_or(Malformed);
        let (version, like) = (word(5)?, word(6)?);
        if word(0)? != MAGIC || version < VERSION || !(LIKE_VERSION..=VERSION).contains(&like) {
            return Err(Malformed);
        }
        let whole = bytes.get(..size(word(1)?)).ok_or(Malformed)?;
        let part = |at: u32, length: u32| {
            whole.get(size(at)..).and_then(|rest| rest.get(..size(length))).ok_or(Malformed)
        };
        let reserved = whole.get(size(word(4)?)..).ok_or(Malformed)?;
        let end = reserved.chunks_exact(16).position(|pair| pair.iter().all(|byte| *byte == 0));
        let tree = Tree {
            reserved: reserved.get(..end.ok_or(Malformed)? * 16).ok_or(Malformed)?,
            structure: part(word(2)?, word(9)?)?,
            names: part(word(3)?, word(8)?)?,
            boot_cpu: word(7)?,
        };
        let mut depth = 0_u32;
        let mut has_root = false;
        for token in tree.tokens() {
            match token.ok_or(Malformed)? {
                Token::Begin(_) if depth == 0 && has_root => return Err(Malformed),
                Token::Begin(_) => (depth, has_root) = (depth + 1, true),
                Token::Property { .. } if depth == 0 => return Err(Malformed),
                Token::Property { .. } => {}
                Token::End => depth = depth.checked_sub(1).ok_or(Malformed)?,
            }
        }
        if depth == 0 && has_root { Ok(tree) } else { Err(Malformed) }
    }

    /// Returns the tokens in order; the last token of a malformed tree is `None`.
    fn tokens(self) -> impl Iterator<Item = Option<Token<'a>>> + use<'a> {
        let mut rest = Some(self.structure);
        std::iter::from_fn(move || {
            let (token, left) = match rest.take().map(|bytes| self.token(bytes))? {
                Some((Some(token), left)) => (token, left),
                Some((None, _)) => return None,
                None => return Some(None),
            };
            rest = Some(left);
            Some(Some(token))
        })
    }

    /// Returns the next token and the bytes behind it; at the end there is no token.
    fn token(self, mut bytes: &'a [u8]) -> Option<(Option<Token<'a>>, &'a [u8])> {
        loop {
            let kind = word(bytes, 0)?;
            bytes = bytes.get(4..)?;
            let token = match kind {
                BEGIN => {
                    let name = until_nul(bytes)?;
                    bytes = bytes.get((name.len() + 1).next_multiple_of(4)..)?;
                    Token::Begin(name)
                }
                PROPERTY => {
                    let (length, name_at) = (size(word(bytes, 0)?), word(bytes, 4)?);
                    let value = bytes.get(8..)?.get(..length)?;
                    bytes = bytes.get(8..)?.get(length.checked_next_multiple_of(4)?..)?;
                    Token::Property { name_at, name: until_nul(self.names.get(size(name_at)..)?)?, value }
                }
                END => Token::End,
                NOTHING => continue,
                FINISH => return Some((None, bytes)),
                _ => return None,
            };
            return Some((Some(token), bytes));
        }
    }

    /// Returns the value of a property of `/chosen`.
    #[must_use]
    pub fn chosen(self, name: &str) -> Option<&'a [u8]> {
        let mut place = Place::default();
        self.tokens().flatten().find_map(|token| {
            place.pass(&token);
            match token {
                Token::Property { name: its, value, .. } if its == name.as_bytes() => {
                    place.is_in_chosen().then_some(value)
                }
                _ => None,
            }
        })
    }

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

/// The position in a tree while its tokens pass.
#[derive(Default)]
struct Place {
    /// The number of open nodes.
    depth: u32,
    chosen: Chosen,
}

#[derive(Default, PartialEq, Eq)]
enum Chosen {
    #[default]
    Ahead,
    Entered,
    Behind,
}

impl Place {
    fn pass(&mut self, token: &Token<'_>) {
        match token {
            Token::Begin(name) => {
                self.depth += 1;
                if self.depth == 2 && self.chosen == Chosen::Ahead && is_called_chosen(name) {
                    self.chosen = Chosen::Entered;
                }
            }
            Token::End => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 1 && self.chosen == Chosen::Entered {
                    self.chosen = Chosen::Behind;
                }
            }
            Token::Property { .. } => {}
        }
    }

    /// Returns whether the position is in `/chosen` itself.
    fn is_in_chosen(&self) -> bool {
        self.depth == 2 && self.chosen == Chosen::Entered
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

/// Returns whether the kernel takes a node for `/chosen`, with a unit address or without (`fdt_path_offset`,
/// libfdt).
fn is_called_chosen(name: &[u8]) -> bool {
    name.strip_prefix(b"chosen").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"@"))
}

/// A device tree being written.
struct Writer {
    /// The tree's bytes, beginning with the header.
    bytes: Vec<u8>,
    names: Vec<u8>,
}

impl Writer {
    fn new(names: &[u8]) -> Writer {
        Writer { bytes: vec![0; HEADER], names: names.to_vec() }
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend_from_slice(&word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn begin(&mut self, name: &[u8]) {
        self.word(BEGIN);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
    }

    /// Writes a property, and returns the area of its value.
    fn property(&mut self, name_at: u32, value: &[u8]) -> Result<Area, Malformed> {
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
    fn own(&mut self, name: &str, value: &[u8]) -> Result<Area, Malformed> {
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
    fn tell(&mut self, initrd: Option<Range>, room: usize) -> Result<(Area, Vec<Area>), Malformed> {
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
    fn finish(mut self, structure: usize, boot_cpu: u32) -> Result<Vec<u8>, Malformed> {
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

/// Reads a big-endian number of 4 or 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    let known = bytes.len() == 4 || bytes.len() == 8;
    known.then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

/// Converts without loss, because no machine that this runs on has fewer bits.
fn size(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// A property: its name and its value.
    type Content<'a> = (&'a str, &'a [u8]);

    /// Makes a tree with this content in `/chosen`, and with this reserved memory.
    pub(crate) fn tree(chosen: Option<&[Content<'_>]>, reserved: &[[u64; 2]]) -> Vec<u8> {
        let mut out = Writer::new(b"");
        for number in reserved.iter().flatten().chain(&[0, 0]) {
            out.bytes.extend_from_slice(&number.to_be_bytes());
        }
        let structure = out.bytes.len();
        out.begin(b"");
        out.own("compatible", b"board\0").unwrap();
        out.word(NOTHING);
        out.begin(b"memory@0");
        out.own("bootargs", b"another's\0").unwrap();
        out.begin(b"chosen");
        out.own("kaslr-seed", &[7; 8]).unwrap();
        out.word(END);
        out.word(END);
        if let Some(chosen) = chosen {
            out.begin(b"chosen");
            for (name, value) in chosen {
                out.own(name, value).unwrap();
            }
            out.begin(b"below");
            out.own("bootargs", b"below\0").unwrap();
            out.word(END);
            out.word(END);
        }
        out.begin(b"chosen@1");
        out.own("bootargs", b"no more\0").unwrap();
        out.word(END);
        out.word(END);
        out.word(FINISH);
        out.finish(structure, 3).unwrap()
    }

    fn reserved(tree: &[u8]) -> Vec<u64> {
        Tree::parse(tree).unwrap().reserved.chunks_exact(8).filter_map(number).collect()
    }

    const NEW: Range = Range { start: 0x4800_0000, end: 0x4812_3456 };

    #[test]
    fn what_was_of_the_last_boot_is_gone_and_the_rest_is_kept() {
        let mut chosen: Vec<Content<'_>> = vec![
            ("stdout-path", b"/serial"),
            ("bootargs", b"old\0"),
            ("linux,uefi-system-table", &[1; 8]),
            ("linux,initrd-start", &[0, 0, 0, 0, 0x44, 0, 0, 0]),
            ("linux,initrd-end", &[0x44, 0, 0x12, 0x34]),
            ("kaslr-seed", &[9; 8]),
            ("rng-seed", &[9; 64]),
        ];
        chosen.extend(LAST_BOOTS.map(|name| (name, &[2; 16][..])));
        let kept = [0x1000, 0x2000, 0x4400_0000, 0x1235];
        let old = [&kept[..], &[0x4400_0000, 0x1234, 0x4400_0000, 0x2000]].concat();
        let pairs: Vec<_> = old.chunks_exact(2).map(|pair| pair.try_into().unwrap()).collect();
        let old = tree(Some(&chosen), &pairs);
        let old = Tree::parse(&old).unwrap();
        let told = old.told(Some(NEW), 100).unwrap();
        let new = Tree::parse(&told.bytes).unwrap();
        assert_eq!(new.chosen("stdout-path").unwrap(), b"/serial");
        assert_eq!(new.chosen("linux,uefi-system-table").unwrap(), [1; 8]);
        assert_eq!(new.chosen("linux,booted-from-kexec").unwrap(), b"");
        assert!(LAST_BOOTS.iter().all(|name| new.chosen(name).is_none()));
        assert_eq!(new.last_initrd(), Some((NEW.start, NEW.end - NEW.start)));
        assert_eq!(reserved(&told.bytes), kept);
        assert_eq!(new.boot_cpu, 3);
        // Everything outside `/chosen` is unchanged.
        let count = |tree: Tree<'_>, value: &[u8]| {
            let is = |token: &Token<'_>| matches!(token, Token::Property { value: its, .. } if *its == value);
            tree.tokens().flatten().filter(is).count()
        };
        for value in [&b"another's\0"[..], b"below\0", b"no more\0", b"board\0", &[7; 8]] {
            assert_eq!((count(old, value), count(new, value)), (1, 1), "{value:?}");
        }
        assert_eq!((count(new, b"old\0"), count(new, &[9; 8])), (0, 0));
    }

    #[test]
    fn what_is_written_into_its_areas_is_what_the_next_kernel_reads() {
        for chosen in [Some(&[][..]), None] {
            let old = tree(chosen, &[]);
            let mut told = Tree::parse(&old).unwrap().told(None, 64).unwrap();
            assert_eq!(told.seeds.iter().map(|area| area.size).collect::<Vec<_>>(), [8, 32]);
            for (area, byte) in [told.cmdline, told.seeds[0], told.seeds[1]].into_iter().zip(b"abc") {
                let at = usize::try_from(area.offset).unwrap();
                let end = at + usize::try_from(area.size).unwrap();
                told.bytes.get_mut(at..end).unwrap().fill(*byte);
            }
            let new = Tree::parse(&told.bytes).unwrap();
            assert_eq!(new.chosen("bootargs").unwrap(), [b'a'; 64]);
            assert_eq!(new.chosen("kaslr-seed").unwrap(), [b'b'; 8]);
            assert_eq!(new.chosen("rng-seed").unwrap(), [b'c'; 32]);
            assert_eq!(new.last_initrd(), None);
        }
    }

    #[test]
    fn from_handoff_to_handoff_it_does_not_grow() {
        let first = Tree::parse(&tree(None, &[[1, 2]])).unwrap().told(Some(NEW), 2048).unwrap();
        let second = Tree::parse(&first.bytes).unwrap().told(Some(NEW), 2048).unwrap();
        assert_eq!(first, second);
        assert_eq!(first.bytes.len() % 8, 0);
    }

    #[test]
    fn a_tree_that_is_cut_off_or_damaged_anywhere_is_read_to_its_end() {
        let whole = tree(Some(&[("stdout-path", b"/serial")]), &[[1, 2]]);
        for at in 0..whole.len() {
            assert_eq!(Tree::parse(&whole[..at]).unwrap_err(), Malformed, "{at}");
            for byte in [0, 1, 3, 9, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                if let Ok(tree) = Tree::parse(&damaged) {
                    let told = tree.told(Some(NEW), 16).unwrap();
                    Tree::parse(&told.bytes).unwrap();
                }
            }
        }
    }
}
