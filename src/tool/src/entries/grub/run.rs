//! Runs grub.cfg, for its variables, its menu, and the kernel that each entry loads.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::entries::grub::environment::Environment;
use crate::entries::grub::load::{self, FUEL};
use crate::entries::grub::menu::{Blscfg, Config, MenuFiles, SIZE_MAX, ScriptError, Setting, Wrong};
use crate::entries::grub::script::{self, Statement};
use crate::entries::grub::state::{Scope, State};

/// Limit for the depth of nested functions, conditions and submenus; a menu needs ten.
const DEPTH_MAX: usize = 100;

/// Whether a command succeeded; `None` if only GRUB knows.
pub(super) type Status = Option<bool>;

/// An entry before its commands are run.
pub(super) struct Raw<'a> {
    pub(super) title: String,
    pub(super) id: String,
    pub(super) scope: Scope,
    pub(super) kind: RawKind<'a>,
}

/// The kind of such an entry. Commands come with the line in which the entry begins.
pub(super) enum RawKind<'a> {
    Entry(usize, &'a [Statement]),
    Submenu(usize, &'a [Statement]),
    /// The place of the entries of loader/entries.
    Bls,
    /// Any number of entries, from a file that is not read.
    Unread(Wrong),
}

/// Files that a script may read.
pub(super) struct Sources {
    pub(super) custom: Option<Vec<Statement>>,
    pub(super) user: Option<Vec<Statement>>,
}

/// The state of a run that functions, conditions and submenus share. Variables are in `State`.
pub(super) struct Run<'a> {
    pub(super) files: &'a MenuFiles<'a>,
    pub(super) environment: Option<Environment>,
    pub(super) sources: &'a Sources,
    /// The functions of the script, each with the file that it is written in.
    pub(super) functions: BTreeMap<String, (&'static str, &'a [Statement])>,
    pub(super) menu: Vec<Raw<'a>>,
    pub(super) blscfg: Option<Blscfg>,
    pub(super) fedora: bool,
    pub(super) fuel: usize,
    depth: usize,
}

/// Runs grub.cfg, and then the commands of each entry.
pub(super) fn run(files: &MenuFiles) -> Result<Config, Wrong> {
    let main = parsed("grub.cfg", files.config)?;
    let custom = files.custom.map(|bytes| parsed("custom.cfg", bytes)).transpose()?;
    let user = files.user.map(|bytes| parsed("user.cfg", bytes)).transpose()?;
    let broken = |why| Wrong { file: "grubenv", line: 1, why: ScriptError::Broken(why) };
    let environment = files.environment.map(Environment::parse).transpose().map_err(broken)?;
    let sources = Sources { custom, user };
    let mut run = Run {
        files,
        environment,
        sources: &sources,
        functions: BTreeMap::new(),
        menu: Vec::new(),
        blscfg: None,
        fedora: false,
        fuel: FUEL,
        depth: 0,
    };
    let scope = Scope { file: "grub.cfg", arguments: Rc::default(), maybe: None, in_entry: false };
    let mut state = State::start(files.platform);
    run.statements(&main, &mut state, &scope)?;
    let raw = std::mem::take(&mut run.menu);
    let items = run.items(raw, &state, "")?;
    let setting = |name: &str| {
        let variable = state.variables.get(name)?;
        Some(Setting { value: variable.value.clone(), from: variable.from.clone() })
    };
    Ok(Config {
        default: setting("default"),
        fallback: setting("fallback"),
        items,
        blscfg: run.blscfg,
        fedora: run.fedora,
    })
}

/// Checks that a file is text, and parses it.
fn parsed(file: &'static str, bytes: &[u8]) -> Result<Vec<Statement>, Wrong> {
    if bytes.len() > SIZE_MAX {
        return Err(Wrong { file, line: 1, why: ScriptError::TooLarge });
    }
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = std::str::from_utf8(line).ok();
        if !text.is_some_and(|text| text.chars().all(|c| c == '\t' || !c.is_control())) {
            return Err(Wrong { file, line: at + 1, why: ScriptError::NotText });
        }
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong { file, line: 1, why: ScriptError::NotText })?;
    script::parse(text).map_err(|(line, why)| Wrong { file, line, why })
}

impl<'a> Run<'a> {
    pub(super) fn burn(&mut self, scope: &Scope, line: usize, amount: usize) -> Result<(), Wrong> {
        load::burn(&mut self.fuel, scope, line, amount)
    }

    /// Runs `act` one level deeper. Fails at the limit.
    pub(super) fn deeper<T>(
        &mut self,
        line: usize,
        scope: &Scope,
        act: impl FnOnce(&mut Self) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        if self.depth == DEPTH_MAX {
            return Err(scope.wrong(line, ScriptError::TooDeep));
        }
        self.depth += 1;
        let result = act(self);
        self.depth -= 1;
        result
    }

    /// Runs statements in order. Returns the status of the last one.
    pub(super) fn statements(
        &mut self,
        statements: &'a [Statement],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let mut status = Some(true);
        for statement in statements {
            let line = statement.line;
            self.burn(scope, line, 1)?;
            status = match &statement.kind {
                script::Kind::Command { words, block } => {
                    self.command(line, words, block.as_deref(), state, scope)?
                }
                script::Kind::If { branches, otherwise } => {
                    self.deeper(line, scope, |run| run.branches(line, branches, otherwise, state, scope))?
                }
                script::Kind::Function { name, body } => {
                    self.functions.insert(name.clone(), (scope.file, body));
                    status
                }
            };
        }
        Ok(status)
    }

    /// Runs the first branch whose condition holds. A condition that only GRUB can judge is taken both ways.
    fn branches(
        &mut self,
        line: usize,
        branches: &'a [(Vec<Statement>, Vec<Statement>)],
        otherwise: &'a [Statement],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let Some(((test, body), others)) = branches.split_first() else {
            return if otherwise.is_empty() {
                Ok(Some(true))
            } else {
                self.statements(otherwise, state, scope)
            };
        };
        match self.statements(test, state, scope)? {
            Some(true) => self.statements(body, state, scope),
            Some(false) => {
                self.deeper(line, scope, |run| run.branches(line, others, otherwise, state, scope))
            }
            None => {
                self.burn(scope, line, state.size())?;
                let judge = scope.wrong(test.first().map_or(line, |test| test.line), ScriptError::Condition);
                let scope =
                    Scope { maybe: Some(scope.maybe.clone().unwrap_or(judge.clone())), ..scope.clone() };
                let mut other = state.clone();
                let taken = self.statements(body, state, &scope)?;
                let passed = self
                    .deeper(line, &scope, |run| run.branches(line, others, otherwise, &mut other, &scope))?;
                state.merge(&other, &judge);
                Ok(taken.filter(|taken| passed == Some(*taken)))
            }
        }
    }
}
