//! The entries and submenus of the menu: collected while grub.cfg runs, and run when it has ended.

use std::rc::Rc;

use crate::entries::grub::menu::{Item, Kind, ScriptError, Wrong};
use crate::entries::grub::run::{Raw, RawKind, Run};
use crate::entries::grub::script::Statement;
use crate::entries::grub::state::{Argument, Loaded, Scope, State};
use crate::words::quoted::shown;

impl<'a> Run<'a> {
    /// Adds an entry or a submenu (GRUB manual, "menuentry").
    pub(super) fn entry(
        &mut self,
        line: usize,
        submenu: bool,
        arguments: &[Argument],
        block: &'a [Statement],
        scope: &Scope,
    ) -> Result<(), Wrong> {
        let mut known = Vec::new();
        for argument in arguments {
            known.push(argument.clone()?);
        }
        let (mut words, mut id) = (Vec::new(), None);
        let mut arguments = known.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some(option) = argument.strip_prefix("--") else {
                words.push(argument);
                continue;
            };
            let (option, mut value) = match option.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (option, None),
            };
            match option {
                "unrestricted" => {}
                // As in `grub_arg_parse`, the next word is the value unless it looks like an option.
                "class" | "users" | "hotkey" | "id" => {
                    value = value.or_else(|| arguments.next_if(|next| !next.starts_with('-')));
                    id = if option == "id" { value } else { id };
                }
                _ => return Err(scope.wrong(line, ScriptError::Arguments("menuentry"))),
            }
        }
        let Some(title) = words.first().cloned() else {
            return Err(scope.wrong(line, ScriptError::Arguments("menuentry")));
        };
        if title.contains(char::is_control) || id.as_ref().is_some_and(|id| id.contains(char::is_control)) {
            return Err(scope.wrong(line, ScriptError::NotText));
        }
        let id = id.unwrap_or_else(|| title.clone());
        let kind = if submenu { RawKind::Submenu(line, block) } else { RawKind::Entry(line, block) };
        self.menu.push(Raw { title, id, scope: Scope { arguments: Rc::new(words), ..scope.clone() }, kind });
        Ok(())
    }

    /// Runs the commands of a menu's entries, in the state that the menu's script has left.
    pub(super) fn items(
        &mut self,
        menu: Vec<Raw<'a>>,
        state: &State,
        above: &str,
    ) -> Result<Vec<Item>, Wrong> {
        let mut items = Vec::new();
        for Raw { title, id, mut scope, kind } in menu {
            let maybe = scope.maybe.take();
            let chosen = [above, &id.replace('>', ">>")].join(if above.is_empty() { "" } else { ">" });
            let kind = match kind {
                RawKind::Bls => Kind::Bls,
                RawKind::Unread(wrong) => Kind::Unread(wrong),
                RawKind::Entry(line, block) => {
                    self.burn(&scope, line, state.size() + chosen.len())?;
                    let mut state = State { loaded: Loaded::Nothing, ..state.clone() };
                    state.set("chosen", Ok(chosen), None);
                    scope.in_entry = true;
                    let run = self.statements(block, &mut state, &scope);
                    Kind::Entry(match (run, state.loaded) {
                        (Err(Wrong { why: ScriptError::TooMuch, file, line }), _) => {
                            return Err(Wrong { why: ScriptError::TooMuch, file, line });
                        }
                        (Err(wrong), _) | (Ok(_), Loaded::Refused(wrong)) => Err(wrong),
                        (Ok(_), Loaded::Nothing) => Err(scope.wrong(line, ScriptError::NoKernel)),
                        (Ok(_), Loaded::Linux(linux)) => Ok(linux),
                    })
                }
                RawKind::Submenu(line, block) => {
                    self.burn(&scope, line, state.size() + chosen.len())?;
                    match self.deeper(line, &scope, |run| run.submenu(line, block, state, &scope, &chosen)) {
                        Ok(items) => Kind::Submenu(items),
                        Err(wrong) if wrong.why == ScriptError::TooMuch => return Err(wrong),
                        Err(wrong) => Kind::Entry(Err(wrong)),
                    }
                }
            };
            items.push(Item { title, id, maybe, kind });
        }
        Ok(items)
    }

    /// Runs a submenu. It has a context of its own, with only the exported variables (`grub_env_context_open`).
    fn submenu(
        &mut self,
        line: usize,
        block: &'a [Statement],
        state: &State,
        scope: &Scope,
        chosen: &str,
    ) -> Result<Vec<Item>, Wrong> {
        let exported = state.variables.iter().filter(|(_, variable)| variable.exported);
        let variables = exported.map(|(name, variable)| (name.clone(), variable.clone())).collect();
        let mut state = State { variables, loaded: Loaded::Nothing };
        state.set("chosen", Ok(chosen.to_owned()), None);
        let outer = std::mem::take(&mut self.menu);
        let run = self.statements(block, &mut state, scope);
        let menu = std::mem::replace(&mut self.menu, outer);
        run?;
        // A submenu that sets `default` itself would not use the part behind the '>'.
        if state.variables.contains_key("default") || menu.is_empty() {
            return Err(scope.wrong(line, ScriptError::Command(shown("submenu"))));
        }
        self.items(menu, &state, chosen)
    }
}
