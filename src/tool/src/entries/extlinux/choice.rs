//! The label that boots if nobody touches a key.

use thiserror::Error;

use crate::entries::extlinux::menu::{Config, MenuProgram};
use crate::words::quoted::shown;

/// The reason why a label is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// `DEFAULT` names it.
    Default,
    /// `ONTIMEOUT` names it.
    OnTimeout,
    /// The label contains `MENU DEFAULT`.
    MenuDefault,
    /// The label is the first.
    First,
}

/// The reason why the next label is unknown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Undecided {
    /// There are no labels.
    #[error("there is no label")]
    Empty,
    /// The default is not the name of a label.
    #[error("the default is {0}, and no label is called so; name an entry")]
    Missing(String),
    /// The default is the name of several labels.
    #[error("the default is {0}, and several labels are called so; name an entry")]
    Several(String),
    /// The default is set in two ways that disagree.
    #[error("U-Boot and syslinux differ in which label is next: {0} or {1}; name an entry")]
    Differ(String, String),
    /// syslinux stores the default in a place that nextkernel does not read.
    #[error(
        "line {0}: by MENU SAVE syslinux begins with the label that was chosen last, and keeps that in a file of its own \
         (ldlinux.sys), which is not read; name an entry"
    )]
    Saved(usize),
}

impl Config {
    /// Returns the number of the label that boots if nobody touches a key, and the reason.
    pub fn next(&self) -> Result<(usize, Because), Undecided> {
        if self.labels.is_empty() {
            return Err(Undecided::Empty);
        }
        if let Some(line) = self.saves {
            return Err(Undecided::Saved(line));
        }
        let menu_default = match (self.syslinux.is_some(), self.menu_defaults.as_slice()) {
            (_, []) => None,
            (true, [.., last]) => Some(last),
            (false, [one]) => Some(one),
            (false, [one, .., last]) => return Err(Undecided::Differ(shown(one), shown(last))),
        };
        let first = self.labels.first().map(|label| (&label.name, Because::First));
        let default = self.default.as_ref().map(|name| (name, Because::Default));
        let on_timeout = self.on_timeout.as_ref().map(|name| (name, Because::OnTimeout));
        let menu_default = menu_default.map(|name| (name, Because::MenuDefault));
        // U-Boot treats ONTIMEOUT and DEFAULT as the same, and takes the last of them. syslinux's menu knows
        // MENU DEFAULT and the first label, and when its time is over ONTIMEOUT. With UI, DEFAULT names a label
        // and is applied after all labels have been read (com32/menu/readconfig.c).
        let ways = if self.syslinux == Some(MenuProgram::Default) {
            [on_timeout, menu_default.or(first), default]
        } else {
            [on_timeout, default, menu_default.or(first)]
        };
        let (name, because) = ways.iter().flatten().next().copied().ok_or(Undecided::Empty)?;
        let asked = matches!(because, Because::OnTimeout | Because::First);
        if let Some((other, _)) = default.filter(|(other, _)| asked && *other != name) {
            return Err(Undecided::Differ(shown(name), shown(other)));
        }
        let mut called = self.labels.iter().enumerate().filter(|(_, label)| label.name == *name);
        match (called.next(), called.next()) {
            (Some((number, _)), None) => Ok((number, because)),
            (Some((number, _)), Some(_)) if because == Because::First => Ok((number, because)),
            (Some(_), Some(_)) => Err(Undecided::Several(shown(name))),
            (None, _) => Err(Undecided::Missing(shown(name))),
        }
    }
}
