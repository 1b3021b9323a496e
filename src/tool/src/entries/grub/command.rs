//! Runs a command of grub.cfg.

use std::rc::Rc;

use crate::entries::grub::condition;
use crate::entries::grub::load::{expand, file, linux, search, set_by_grub};
use crate::entries::grub::menu::{Blscfg, Device, ScriptError, Wrong};
use crate::entries::grub::run::{Raw, RawKind, Run, Status};
use crate::entries::grub::script::{Part, Statement, Word};
use crate::entries::grub::state::{Argument, HERE, Loaded, PREFIX, Scope, State, UNKNOWN};
use crate::words::quoted::shown;

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

impl<'a> Run<'a> {
    /// Runs a command: one of GRUB's, or a function of the script.
    pub(super) fn command(
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
            return self.assigned(line, words.first(), state, scope).transpose().unwrap_or_else(|| {
                Err(scope.wrong(line, ScriptError::Command("that a variable names".to_owned())))
            });
        };
        match (name.as_str(), block) {
            ("menuentry" | "submenu", Some(block)) => {
                return self.entry(line, name == "submenu", arguments, block, scope).map(|()| Some(true));
            }
            (name, Some(_)) => return Err(scope.wrong(line, ScriptError::Command(shown(name)))),
            (_, None) => {}
        }
        match name.as_str() {
            "true" | ":" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            "!" => {
                let rest = words.get(1..).unwrap_or_default();
                if rest.is_empty() {
                    return Err(scope.wrong(line, ScriptError::Arguments("!")));
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
                    .ok_or_else(|| scope.wrong(line, ScriptError::Arguments("set"))),
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
                    return Err(scope.wrong(line, ScriptError::Arguments("increment")));
                };
                let value = state.variables.get(variable).and_then(|variable| variable.value.clone().ok());
                let number = value.and_then(|value| value.parse::<i64>().ok()?.checked_add(by));
                let value = number.map(|number| number.to_string());
                let value = value.ok_or_else(|| scope.wrong(line, ScriptError::Variable(variable.clone())));
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
                Err(scope.wrong(line, ScriptError::LeadsTo(path)))
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
            None => Err(scope.wrong(line, ScriptError::Command(shown(name)))),
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
            "/custom.cfg" => Some(self.files.custom.is_some()),
            "/user.cfg" => Some(self.files.user.is_some()),
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
                    None => return Err(scope.wrong(line, ScriptError::Arguments("load_env"))),
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
                return Err(scope.wrong(line, ScriptError::Environment(path)));
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

    /// Runs the statements of another file, if that is custom.cfg or user.cfg.
    fn source(
        &mut self,
        line: usize,
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<Status, Wrong> {
        let path = match arguments {
            [Ok(path)] => path.as_str(),
            _ => return Err(scope.wrong(line, ScriptError::Arguments("source"))),
        };
        let sources = self.sources;
        let (file, statements) = match path.strip_prefix(PREFIX) {
            Some("/custom.cfg") => ("custom.cfg", sources.custom.as_ref()),
            Some("/user.cfg") => ("user.cfg", sources.user.as_ref()),
            // snapper writes this file: entries at the end, and nothing else.
            None if path.ends_with("/.snapshots/grub-snapshot.cfg") => {
                let wrong = scope.wrong(line, ScriptError::Unread(shown(path)));
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
                return Err(scope.wrong(line, ScriptError::Unread(path)));
            }
        };
        let Some(statements) = statements else { return Ok(Some(false)) };
        let scope = Scope { file, ..scope.clone() };
        self.deeper(line, &scope, |run| run.statements(statements, state, &scope))
    }

    /// Notes the place in the menu, and the variables, that `blscfg` finds.
    fn blscfg(
        &mut self,
        line: usize,
        arguments: &[Argument],
        state: &mut State,
        scope: &Scope,
    ) -> Result<(), Wrong> {
        // Arguments would choose other directories and single files. A second `blscfg` would add nothing new.
        if !arguments.is_empty() || self.blscfg.is_some() {
            return Err(scope.wrong(line, ScriptError::Arguments("blscfg")));
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
            state.load(
                |linux| files.map(|files| linux.initrds = files),
                scope.wrong(line, ScriptError::InitrdFirst),
            );
        }
        "devicetree" => {
            let none = scope.wrong(line, ScriptError::Arguments("devicetree"));
            let found = arguments.first().ok_or(none);
            let found = found.and_then(|argument| file(line, argument, state, scope));
            let without = scope.wrong(line, ScriptError::NoKernel);
            state.load(|linux| found.map(|file| linux.devicetree = Some(file)), without);
        }
        // GRUB boots at the end of an entry anyway.
        "boot" => {}
        other if OTHERS.contains(&other) => {
            state.loaded = Loaded::Refused(scope.wrong(line, ScriptError::NotLinux(other.to_owned())));
        }
        _ => return false,
    }
    true
}
