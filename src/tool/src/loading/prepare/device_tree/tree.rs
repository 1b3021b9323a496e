//! Reading a device tree.

use thiserror::Error;

/// The device tree with which the running kernel was started (Documentation/ABI/testing/sysfs-firmware-ofw).
pub const PATH: &str = "/sys/firmware/fdt";

/// The magic number; the first version whose header has the size of each part; the oldest version that it is
/// compatible with.
pub(super) const MAGIC: u32 = 0xd00d_feed;
pub(super) const VERSION: u32 = 17;
pub(super) const LIKE_VERSION: u32 = 16;

/// The tokens of the structure block.
pub(super) const BEGIN: u32 = 1;
pub(super) const END: u32 = 2;
pub(super) const PROPERTY: u32 = 3;
pub(super) const NOTHING: u32 = 4;
pub(super) const FINISH: u32 = 9;

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
    pub(super) reserved: &'a [u8],
    pub(super) structure: &'a [u8],
    /// The names of properties.
    pub(super) names: &'a [u8],
    /// The number of the processor that boots.
    pub(super) boot_cpu: u32,
}

pub(super) enum Token<'a> {
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
    pub(super) fn tokens(self) -> impl Iterator<Item = Option<Token<'a>>> + use<'a> {
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
}

/// The position in a tree while its tokens pass.
#[derive(Default)]
pub(super) struct Place {
    /// The number of open nodes.
    pub(super) depth: u32,
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
    pub(super) fn pass(&mut self, token: &Token<'_>) {
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
    pub(super) fn is_in_chosen(&self) -> bool {
        self.depth == 2 && self.chosen == Chosen::Entered
    }
}

/// Returns whether the kernel takes a node for `/chosen`, with a unit address or without (`fdt_path_offset`,
/// libfdt).
fn is_called_chosen(name: &[u8]) -> bool {
    name.strip_prefix(b"chosen").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"@"))
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
