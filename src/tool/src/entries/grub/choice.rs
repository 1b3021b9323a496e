//! The entry that GRUB boots if nobody touches a key (GRUB manual, "default" and "fallback";
//! grub-core/normal/menu.c).

use thiserror::Error;

use crate::entries::grub::menu::{Config, Item, Kind, Named, Wrong};
use crate::words::quoted::shown;

/// The entry that GRUB boots next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The entry's numbers, as in [`crate::entries::grub::menu::Entry::place`].
    pub place: Vec<usize>,
    /// The reason why it is next.
    pub because: Because,
    /// The numbers in the top menu that GRUB tries, in order, if it cannot load that entry (`fallback`).
    pub fallbacks: Vec<usize>,
}

/// The reason why an entry is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// `next_entry` in grubenv, for one boot (grub-reboot).
    OneShot,
    /// `saved_entry` in grubenv (from grub-set-default, or the entry that was booted last).
    Saved,
    /// `default` in grub.cfg.
    Default,
    /// It is the first entry, and `default` names none.
    First,
}

/// The reason why the next entry is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Undecided {
    /// The menu is empty.
    #[error("GRUB's menu is empty")]
    Empty,
    /// The value of `default` is not known.
    #[error("what GRUB boots next cannot be told: {0}; name an entry")]
    Default(Wrong),
    /// It depends on entries that may or may not be there.
    #[error("what GRUB boots next hangs on what only GRUB can tell: {0}; name an entry")]
    Maybe(Wrong),
    /// GRUB's versions differ in the meaning of `default`.
    #[error("GRUB's versions differ in what default={0} means; name an entry")]
    Versions(String),
}

/// A place in a menu, with a place for each entry of loader/entries.
struct Slot<'a> {
    title: &'a str,
    id: &'a str,
    maybe: Option<&'a Wrong>,
    submenu: Option<&'a [Item]>,
    /// Whether any number of entries may be here.
    unread: bool,
}

pub(super) fn next(config: &Config, bls: &[Named]) -> Result<Next, Undecided> {
    let setting = config.default.as_ref();
    let mut value = match setting.map(|setting| &setting.value) {
        None => None,
        Some(Ok(value)) => Some(value.as_str()),
        Some(Err(wrong)) => return Err(Undecided::Default(wrong.clone())),
    };
    let mut because = match setting.and_then(|setting| setting.from.as_deref()) {
        Some("next_entry") => Because::OneShot,
        Some("saved_entry" | "prev_saved_entry") => Because::Saved,
        _ => Because::Default,
    };
    let (mut items, mut place) = (config.items.as_slice(), Vec::new());
    loop {
        let slots = slots(items, bls);
        let found = value.map(|value| find(&slots, value, config.fedora)).transpose()?.flatten();
        // "If DEFAULT is not within the menu", the first entry is taken.
        let number = found.unwrap_or(0);
        if found.is_none() {
            because = Because::First;
            sure(slots.first())?;
        }
        place.push(number);
        match slots.get(number).and_then(|slot| slot.submenu) {
            None if slots.is_empty() => return Err(Undecided::Empty),
            None => return Ok(Next { place, because, fallbacks: fallbacks(config, bls) }),
            // The part behind '>' is the submenu's default. Without that part the submenu has none.
            Some(submenu) => {
                items = submenu;
                value = value.and_then(|value| split(value).1);
            }
        }
    }
}

fn slots<'a>(items: &'a [Item], bls: &[Named<'a>]) -> Vec<Slot<'a>> {
    let mut slots = Vec::new();
    for item in items {
        let maybe = item.maybe.as_ref();
        let slot = Slot { title: &item.title, id: &item.id, maybe, submenu: None, unread: false };
        match &item.kind {
            Kind::Entry(_) => slots.push(slot),
            Kind::Submenu(items) => slots.push(Slot { submenu: Some(items), ..slot }),
            Kind::Bls => slots.extend(bls.iter().map(|named| Slot {
                title: named.title,
                id: named.id,
                maybe,
                submenu: None,
                unread: false,
            })),
            Kind::Unread(wrong) => slots.push(Slot { maybe: Some(wrong), unread: true, ..slot }),
        }
    }
    slots
}

/// Fails if the entry may be missing.
fn sure(slot: Option<&Slot>) -> Result<(), Undecided> {
    match slot.and_then(|slot| slot.maybe) {
        Some(wrong) => Err(Undecided::Maybe(wrong.clone())),
        None => Ok(()),
    }
}

fn find(slots: &[Slot], value: &str, fedora: bool) -> Result<Option<usize>, Undecided> {
    let (name, _) = split(value);
    let number = number(value);
    if !fedora {
        return match number {
            Some((number, _)) => numbered(slots, number),
            None => named(slots, |slot| slot.title == name || slot.id == name),
        };
    }
    // Fedora's GRUB takes a number only if no entry has that name, and only if nothing follows the number.
    let found = match named(slots, |slot| slot.id == name)? {
        Some(found) => Some(found),
        None => named(slots, |slot| slot.title == name)?,
    };
    match (found, number) {
        (Some(found), _) => Ok(Some(found)),
        (None, Some((number, ""))) => numbered(slots, number),
        (None, Some((number, _))) if numbered(slots, number)?.is_some() => {
            Err(Undecided::Versions(shown(value)))
        }
        (None, _) => Ok(None),
    }
}

fn named(slots: &[Slot], is_meant: impl Fn(&Slot) -> bool) -> Result<Option<usize>, Undecided> {
    for (number, slot) in slots.iter().enumerate() {
        if slot.unread || is_meant(slot) {
            sure(Some(slot))?;
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn numbered(slots: &[Slot], number: usize) -> Result<Option<usize>, Undecided> {
    for slot in slots.iter().take(number.saturating_add(1)) {
        sure(Some(slot))?;
    }
    Ok((number < slots.len()).then_some(number))
}

/// Returns the part before the first single '>', with doubled ones as one, and the part behind it.
fn split(value: &str) -> (String, Option<&str>) {
    let mut name = String::new();
    let mut chars = value.char_indices();
    while let Some((_, c)) = chars.next() {
        if c == '>' && !chars.as_str().starts_with('>') {
            return (name, Some(chars.as_str()).filter(|rest| !rest.is_empty()));
        }
        if c == '>' {
            chars.next();
        }
        name.push(c);
    }
    (name, None)
}

/// Returns the number that a text begins with, and the rest (`grub_strtoul`, base 0).
fn number(text: &str) -> Option<(usize, &str)> {
    let text = text.trim_ascii_start();
    let (digits, base) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text
            .strip_prefix('0')
            .is_some_and(|text| text.starts_with(['0', '1', '2', '3', '4', '5', '6', '7'])) =>
        {
            (text, 8)
        }
        None => (text, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return None;
    }
    Some((usize::from_str_radix(digits, base).unwrap_or(usize::MAX), rest))
}

/// Returns the numbers in `fallback` that the menu has. As GRUB does, stops at the first word that is not a
/// number.
fn fallbacks(config: &Config, bls: &[Named]) -> Vec<usize> {
    let value = config.fallback.as_ref().and_then(|setting| setting.value.as_deref().ok());
    let size = slots(&config.items, bls).len();
    let words = value.unwrap_or_default().split_ascii_whitespace();
    let numbers = words.map_while(|word| number(word).filter(|(_, rest)| rest.is_empty()));
    numbers.map(|(number, _)| number).filter(|number| *number < size).collect()
}

#[cfg(test)]
mod tests {
    use crate::entries::grub::choice::*;

    #[test]
    fn a_doubled_mark_is_one_and_a_single_one_parts() {
        assert_eq!(split("a>>b>c>d"), ("a>b".to_owned(), Some("c>d")));
        assert_eq!(split("a>"), ("a".to_owned(), None));
        assert_eq!(split("1>0"), ("1".to_owned(), Some("0")));
        assert_eq!(split("é"), ("é".to_owned(), None));
    }

    #[test]
    fn numbers_are_read_as_grub_reads_them() {
        assert_eq!(number("1>2"), Some((1, ">2")));
        assert_eq!(number(" 010"), Some((8, "")));
        assert_eq!(number("08"), Some((8, "")));
        assert_eq!(number("0x1f-a"), Some((31, "-a")));
        assert_eq!(number("0"), Some((0, "")));
        assert_eq!(number("6.1"), Some((6, ".1")));
        assert_eq!(number("a1"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("99999999999999999999999"), Some((usize::MAX, "")));
    }
}
