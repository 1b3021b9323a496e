//! Runs grub.cfg, for its variables, its menu, and the kernel that each entry loads.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::entries::grub::condition;
use crate::entries::grub::environment::Environment;
use crate::entries::grub::load::{self, FUEL, expand, file, linux, search, set_by_grub};
use crate::entries::grub::menu::{Blscfg, Config, Device, Folder, Item, Kind, SIZE_MAX, Setting, Why, Wrong};
use crate::entries::grub::script::{self, Part, Statement, Word};
use crate::entries::grub::state::{Argument, HERE, Loaded, PREFIX, Scope, State, UNKNOWN};
use crate::words::quoted::shown;

/// Limit for the depth of nested functions, conditions and submenus; a menu needs ten.
const DEPTH_MAX: usize = 100;

/// Commands that change the look of the menu, the devices and files that GRUB can read, or its output. None
/// changes the kernel that an entry boots, or its parameters. Only GRUB knows whether one succeeds (GRUB
/// manual, "Commands").
const WITHOUT_EFFECT: [&str; 46] = [
    "echo",
    "insmod",
    "rmmod",
    "loadfont",
    "background_image",
    "background_color",
    "clear",
    "play",
    "sleep",
    "terminal",
    "terminal_input",
    "terminal_output",
    "serial",
    "terminfo",
    "gfxmode",
    "load_video",
    "recordfail",
    "savedefault",
    "save_env",
    "list_env",
    "keymap",
    "password",
    "password_pbkdf2",
    "export",
    "cryptomount",
    "loopback",
    "drivemap",
    "parttool",
    "cmostest",
    "cmosclean",
    "cmosset",
    "cmosdump",
    "videoinfo",
    "videotest",
    "vbeinfo",
    "badram",
    "cutmem",
    "gptsync",
    "hashsum",
    "keystatus",
    "lsefi",
    "ls",
    "pcidump",
    "usb",
    "setpci",
    "set_terminal",
];

/// Commands that make an entry boot something other than a Linux kernel.
const OTHERS: [&str; 37] = [
    "chainloader",
    "multiboot",
    "multiboot2",
    "module",
    "module2",
    "xen_hypervisor",
    "xen_module",
    "fwsetup",
    "halt",
    "reboot",
    "exit",
    "configfile",
    "normal",
    "legacy_configfile",
    "legacy_source",
    "syslinux_configfile",
    "ntldr",
    "freedos",
    "plan9",
    "truecrypt",
    "kfreebsd",
    "kfreebsd_loadenv",
    "kfreebsd_module",
    "kfreebsd_module_elf",
    "knetbsd",
    "knetbsd_module_elf",
    "kopenbsd",
    "kopenbsd_ramdisk",
    "xnu_kernel",
    "xnu_kernel64",
    "xnu_resume",
    "xnu_kext",
    "xnu_kextdir",
    "xnu_mkext",
    "xnu_ramdisk",
    "linux_xen",
    "uki",
];

/// Whether a command succeeded; `None` if only GRUB knows.
type Status = Option<bool>;

/// An entry before its commands are run.
struct Raw<'a> {
    title: String,
    id: String,
    scope: Scope,
    kind: RawKind<'a>,
}

enum RawKind<'a> {
    Entry(usize, &'a [Statement]),
    Submenu(usize, &'a [Statement]),
    Bls,
    Unread(Wrong),
}

/// Files that a script may read.
struct Sources {
    custom: Option<Vec<Statement>>,
    user: Option<Vec<Statement>>,
}

struct Run<'a> {
    folder: &'a Folder<'a>,
    environment: Option<Environment>,
    sources: &'a Sources,
    functions: BTreeMap<String, (&'static str, &'a [Statement])>,
    menu: Vec<Raw<'a>>,
    blscfg: Option<Blscfg>,
    fedora: bool,
    fuel: usize,
    depth: usize,
}

pub fn run(folder: &Folder) -> Result<Config, Wrong> {
    let main = parsed("grub.cfg", folder.config)?;
    let custom = folder.custom.map(|bytes| parsed("custom.cfg", bytes)).transpose()?;
    let user = folder.user.map(|bytes| parsed("user.cfg", bytes)).transpose()?;
    let broken = |why| Wrong { file: "grubenv", line: 1, why: Why::Broken(why) };
    let environment = folder.environment.map(Environment::parse).transpose().map_err(broken)?;
    let sources = Sources { custom, user };
    let mut run = Run {
        folder,
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
    let mut state = State::start(folder.platform);
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

fn parsed(file: &'static str, bytes: &[u8]) -> Result<Vec<Statement>, Wrong> {
    if bytes.len() > SIZE_MAX {
        return Err(Wrong { file, line: 1, why: Why::TooLarge });
    }
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let text = std::str::from_utf8(line).ok();
        if !text.is_some_and(|text| text.chars().all(|c| c == '\t' || !c.is_control())) {
            return Err(Wrong { file, line: at + 1, why: Why::NotText });
        }
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong { file, line: 1, why: Why::NotText })?;
    script::parse(text).map_err(|(line, why)| Wrong { file, line, why })
}

impl<'a> Run<'a> {
    fn burn(&mut self, scope: &Scope, line: usize, amount: usize) -> Result<(), Wrong> {
        load::burn(&mut self.fuel, scope, line, amount)
    }

    /// Runs `act` one level deeper. Fails at the limit.
    fn deeper<T>(
        &mut self,
        line: usize,
        scope: &Scope,
        act: impl FnOnce(&mut Self) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        if self.depth == DEPTH_MAX {
            return Err(scope.wrong(line, Why::TooDeep));
        }
        self.depth += 1;
        let result = act(self);
        self.depth -= 1;
        result
    }

    fn statements(
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
                let judge = scope.wrong(test.first().map_or(line, |test| test.line), Why::Condition);
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

    fn command(
        &mut self,
        line: usize,
        words: &'a [Word],
        block: Option<&'a [Statement]>,
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let (arguments, unsure) = expand(line, words, state, scope, &mut self.fuel)?;
        let Some((name, arguments)) = arguments.split_first() else { return Ok(Some(true)) };
        let Ok(name) = name else {
            return self
                .assigned(line, words.first(), state, scope)
                .transpose()
                .unwrap_or_else(|| Err(scope.wrong(line, Why::Command("that a variable names".to_owned()))));
        };
        match (name.as_str(), block) {
            ("menuentry" | "submenu", Some(block)) => {
                return self.entry(line, name == "submenu", arguments, block, scope).map(|()| Some(true));
            }
            (name, Some(_)) => return Err(scope.wrong(line, Why::Command(shown(name)))),
            (_, None) => {}
        }
        match name.as_str() {
            "true" | ":" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            "!" => {
                let rest = words.get(1..).unwrap_or_default();
                if rest.is_empty() {
                    return Err(scope.wrong(line, Why::Arguments("!")));
                }
                Ok(self.command(line, rest, None, state, scope)?.map(|status| !status))
            }
            "[" | "test" if unsure => Ok(None),
            "[" | "test" => {
                let known: Vec<_> = arguments.iter().map(|argument| argument.clone().ok()).collect();
                Ok(condition::holds(&known, &|path| self.exists(path)))
            }
            "set" => match words.get(1) {
                None => Ok(Some(true)),
                Some(word) => self
                    .assigned(line, Some(word), state, scope)?
                    .ok_or_else(|| scope.wrong(line, Why::Arguments("set"))),
            },
            "unset" => {
                for argument in arguments {
                    state.variables.remove(argument.as_ref().map_err(Wrong::clone)?);
                }
                Ok(Some(true))
            }
            "export" => {
                for argument in arguments {
                    let name = argument.as_ref().map_err(Wrong::clone)?;
                    if let Some(variable) = state.variables.get_mut(name) {
                        variable.exported = true;
                    }
                }
                Ok(Some(true))
            }
            "load_env" => self.load_env(line, arguments, state, scope),
            "increment" | "decrement" => {
                let by = if name == "increment" { 1 } else { -1 };
                let Some(variable) = arguments.first().and_then(|argument| argument.as_ref().ok()) else {
                    return Err(scope.wrong(line, Why::Arguments("increment")));
                };
                let value = state.variables.get(variable).and_then(|variable| variable.value.clone().ok());
                let number = value.and_then(|value| value.parse::<i64>().ok()?.checked_add(by));
                let value = number.map(|number| number.to_string());
                let value = value.ok_or_else(|| scope.wrong(line, Why::Variable(variable.clone())));
                state.set(variable, value, None);
                Ok(Some(true))
            }
            "insmod" => {
                // Only Fedora's GRUB has `increment` (its 08_fallback_counting), and until 2.14 `blscfg`; only
                // Fedora's grub-mkconfig writes the latter.
                let is_fedoras = |module: &str| matches!(module, "increment" | "blscfg");
                self.fedora |= arguments.iter().any(|module| module.as_deref().is_ok_and(is_fedoras));
                Ok(None)
            }
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => {
                search(line, name, arguments, state, scope).map(|()| None)
            }
            "probe" | "regexp" | "smbios" | "hwmatch" | "read" | "date" => {
                set_by_grub(line, name, arguments, state, scope);
                Ok(None)
            }
            // With this option it is a question to the firmware (GRUB's 30_uefi-firmware), not the way into the
            // setup. A GRUB older than its menu would enter the setup.
            "fwsetup" if matches!(arguments, [Ok(option)] if option == "--is-supported") => Ok(None),
            "source" | "." => self.source(line, arguments, state, scope),
            "blscfg" => self.blscfg(line, arguments, state, scope).map(|()| None),
            name if scope.in_entry && loads(line, name, arguments, state, scope) => Ok(None),
            "configfile" | "normal" => {
                let path = arguments.first().and_then(|path| path.as_deref().ok()).unwrap_or("another file");
                let path = shown(&path.replace(PREFIX, "$prefix"));
                Err(scope.wrong(line, Why::LeadsTo(path)))
            }
            _ => self.other_command(line, name, words, arguments, state, scope),
        }
    }

    /// Runs a function, a command without effect, or an assignment `name=value`, in the order in which GRUB
    /// looks.
    fn other_command(
        &mut self,
        line: usize,
        name: &str,
        words: &'a [Word],
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        if let Some((file, body)) = self.functions.get(name).copied() {
            // An unknown argument is refused where it is used, not where it is passed.
            let known =
                arguments.iter().map(|argument| argument.clone().unwrap_or_else(|_| UNKNOWN.to_owned()));
            let arguments = Rc::new(known.collect());
            let scope = Scope { file, arguments, ..scope.clone() };
            return self.deeper(line, &scope, |run| run.statements(body, state, &scope));
        }
        if WITHOUT_EFFECT.contains(&name) {
            return Ok(None);
        }
        match self.assigned(line, words.first(), state, scope)? {
            Some(status) => Ok(status),
            None => Err(scope.wrong(line, Why::Command(shown(name)))),
        }
    }

    /// Sets a variable if the word is `name=value`; returns `None` if it is not.
    fn assigned(
        &mut self,
        line: usize,
        word: Option<&'a Word>,
        state: &mut State,
        scope: &Scope,
    ) -> Result<Option<Status>, Wrong> {
        let Some((Part::Bare(first) | Part::Quoted(first), rest)) = word.and_then(|word| word.split_first())
        else {
            return Ok(None);
        };
        let Some((name, value)) = first.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Ok(None);
        };
        let mut parts = vec![Part::Quoted(value.to_owned())];
        parts.extend_from_slice(rest);
        let from = {
            let mut told = parts.iter().filter(|part| **part != Part::Quoted(String::new()));
            match (told.next(), told.next()) {
                (Some(Part::Variable(from) | Part::QuotedVariable(from)), None) => Some(from.clone()),
                _ => None,
            }
        };
        let (arguments, _) = expand(line, &[parts], state, scope, &mut self.fuel)?;
        let value = arguments.into_iter().next().unwrap_or_else(|| Ok(String::new()));
        state.set(name, value, from);
        Ok(Some(Some(true)))
    }

    /// Returns whether a file exists; `None` for a path that is not one of the known files.
    fn exists(&self, path: &str) -> Option<bool> {
        match path.strip_prefix(PREFIX)? {
            "/grubenv" => Some(self.environment.is_some()),
            "/custom.cfg" => Some(self.folder.custom.is_some()),
            "/user.cfg" => Some(self.folder.user.is_some()),
            _ => None,
        }
    }

    /// Runs `load_env` (GRUB manual, "`load_env`").
    fn load_env(
        &mut self,
        line: usize,
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let mut wanted = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref().map_err(Wrong::clone)?;
            let path = match argument.as_str() {
                "-s" | "--skip-sig" => continue,
                "-f" | "--file" => match arguments.next() {
                    Some(path) => path.as_ref().map_err(Wrong::clone)?,
                    None => return Err(scope.wrong(line, Why::Arguments("load_env"))),
                },
                option => {
                    let Some(path) = option.strip_prefix("--file=") else {
                        wanted.push(option);
                        continue;
                    };
                    path
                }
            };
            if path.strip_prefix(PREFIX) != Some("/grubenv") {
                let path = shown(&path.replace(HERE, "root"));
                return Err(scope.wrong(line, Why::Environment(path)));
            }
        }
        let variables = self.environment.as_ref().map_or(&[][..], |environment| &environment.variables);
        for (name, value) in variables {
            if wanted.is_empty() || wanted.contains(&name.as_str()) {
                state.set(name, Ok(value.clone()), None);
            }
        }
        Ok(Some(self.environment.is_some()))
    }

    fn source(
        &mut self,
        line: usize,
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let path = match arguments {
            [Ok(path)] => path.as_str(),
            _ => return Err(scope.wrong(line, Why::Arguments("source"))),
        };
        let sources = self.sources;
        let (file, statements) = match path.strip_prefix(PREFIX) {
            Some("/custom.cfg") => ("custom.cfg", sources.custom.as_ref()),
            Some("/user.cfg") => ("user.cfg", sources.user.as_ref()),
            // snapper writes this file: entries at the end, and nothing else.
            None if path.ends_with("/.snapshots/grub-snapshot.cfg") => {
                let wrong = scope.wrong(line, Why::Unread(shown(path)));
                self.menu.push(Raw {
                    title: String::new(),
                    id: String::new(),
                    scope: scope.clone(),
                    kind: RawKind::Unread(wrong),
                });
                return Ok(None);
            }
            _ => {
                let path = shown(&path.replace(PREFIX, "$prefix"));
                return Err(scope.wrong(line, Why::Unread(path)));
            }
        };
        let Some(statements) = statements else { return Ok(Some(false)) };
        let scope = Scope { file, ..scope.clone() };
        self.deeper(line, &scope, |run| run.statements(statements, state, &scope))
    }

    fn blscfg(
        &mut self,
        line: usize,
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<(), Wrong> {
        // Arguments would choose other directories and single files. A second `blscfg` would add nothing new.
        if !arguments.is_empty() || self.blscfg.is_some() {
            return Err(scope.wrong(line, Why::Arguments("blscfg")));
        }
        let root = state.get("root", line, scope)?;
        let variables = state.variables.iter();
        let variables = variables.map(|(name, variable)| (name.clone(), variable.value.clone())).collect();
        let at = (scope.file, line);
        self.blscfg = Some(Blscfg { device: Device::parse(&root), variables, at });
        self.menu.push(Raw {
            title: String::new(),
            id: String::new(),
            scope: scope.clone(),
            kind: RawKind::Bls,
        });
        Ok(())
    }

    /// Adds an entry or a submenu (GRUB manual, "menuentry").
    fn entry(
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
                _ => return Err(scope.wrong(line, Why::Arguments("menuentry"))),
            }
        }
        let Some(title) = words.first().cloned() else {
            return Err(scope.wrong(line, Why::Arguments("menuentry")));
        };
        if title.contains(char::is_control) || id.as_ref().is_some_and(|id| id.contains(char::is_control)) {
            return Err(scope.wrong(line, Why::NotText));
        }
        let id = id.unwrap_or_else(|| title.clone());
        let kind = if submenu { RawKind::Submenu(line, block) } else { RawKind::Entry(line, block) };
        self.menu.push(Raw { title, id, scope: Scope { arguments: Rc::new(words), ..scope.clone() }, kind });
        Ok(())
    }

    /// Runs the commands of a menu's entries, in the state that the menu's script has left.
    fn items(&mut self, menu: Vec<Raw<'a>>, state: &State, above: &str) -> Result<Vec<Item>, Wrong> {
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
                        (Err(Wrong { why: Why::TooMuch, file, line }), _) => {
                            return Err(Wrong { why: Why::TooMuch, file, line });
                        }
                        (Err(wrong), _) | (Ok(_), Loaded::Refused(wrong)) => Err(wrong),
                        (Ok(_), Loaded::Nothing) => Err(scope.wrong(line, Why::NoKernel)),
                        (Ok(_), Loaded::Linux(linux)) => Ok(linux),
                    })
                }
                RawKind::Submenu(line, block) => {
                    self.burn(&scope, line, state.size() + chosen.len())?;
                    match self.deeper(line, &scope, |run| run.submenu(line, block, state, &scope, &chosen)) {
                        Ok(items) => Kind::Submenu(items),
                        Err(wrong) if wrong.why == Why::TooMuch => return Err(wrong),
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
            return Err(scope.wrong(line, Why::Command(shown("submenu"))));
        }
        self.items(menu, &state, chosen)
    }
}

/// Runs a command that loads a kernel or a file for it, or that boots something else. Returns false for any
/// other command.
fn loads(line: usize, name: &str, arguments: &[Argument], state: &mut State, scope: &Scope) -> bool {
    match name {
        "linux" | "linuxefi" | "linux16" => {
            state.loaded = match linux(line, arguments, state, scope) {
                Ok(linux) => Loaded::Linux(linux),
                Err(wrong) => Loaded::Refused(wrong),
            };
        }
        "initrd" | "initrdefi" | "initrd16" => {
            let files = arguments.iter().map(|argument| file(line, argument, state, scope));
            let files = files.collect::<Result<Vec<_>, _>>();
            state.load(|linux| files.map(|files| linux.initrds = files), scope.wrong(line, Why::InitrdFirst));
        }
        "devicetree" => {
            let none = scope.wrong(line, Why::Arguments("devicetree"));
            let found = arguments.first().ok_or(none);
            let found = found.and_then(|argument| file(line, argument, state, scope));
            let without = scope.wrong(line, Why::NoKernel);
            state.load(|linux| found.map(|file| linux.devicetree = Some(file)), without);
        }
        // GRUB boots at the end of an entry anyway.
        "boot" => {}
        other if OTHERS.contains(&other) => {
            state.loaded = Loaded::Refused(scope.wrong(line, Why::NotLinux(other.to_owned())));
        }
        _ => return false,
    }
    true
}
