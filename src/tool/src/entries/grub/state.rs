//! The state of GRUB while it runs a script: its variables, and the kernel that an entry has loaded so far.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::entries::grub::menu::{Device, Linux, ScriptError, Wrong};

/// Values of `root` that stand for the device that GRUB will find. They hold a character that no device's name
/// has.
pub const HERE: &str = "\u{1}here";
pub const UUID: &str = "\u{1}uuid\u{1}";
pub const LABEL: &str = "\u{1}label\u{1}";
pub const HOLDS: &str = "\u{1}holds\u{1}";

/// Stands for a space in such a value, so that it stays one word.
pub const SPACE: &str = "\u{2}";

/// The value of `prefix` and `config_directory`: a stand-in for GRUB's directory.
pub const PREFIX: &str = "\u{1}prefix";

/// Stands for an argument that only GRUB knows.
pub const UNKNOWN: &str = "\u{1}unknown";

/// The features that every GRUB since 2.02 reports (`features`, grub-core/normal/main.c).
const FEATURES: [&str; 10] = [
    "feature_chainloader_bpb",
    "feature_ntldr",
    "feature_platform_search_hint",
    "feature_default_font_path",
    "feature_all_video_module",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_200_final",
    "feature_nativedisk_cmd",
    "feature_timeout_style",
];

/// Variables that GRUB sets by itself.
const GRUBS: [&str; 8] =
    ["grub_cpu", "grub_platform", "cmdpath", "config_file", "lockdown", "shim_lock", "?", "#"];

/// A word with its variables expanded, or an error if only GRUB knows one of them.
pub type Argument = Result<String, Wrong>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub value: Argument,
    pub from: Option<String>,
    pub exported: bool,
}

/// The kernel that a menu entry has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    Nothing,
    Linux(Linux),
    Refused(Wrong),
}

#[derive(Clone)]
pub struct State {
    pub variables: BTreeMap<String, Variable>,
    pub loaded: Loaded,
}

/// The context of a command.
#[derive(Clone)]
pub struct Scope {
    pub file: &'static str,
    /// The values of `$1` and so on.
    pub arguments: Rc<Vec<String>>,
    /// The condition that only GRUB can judge, if the command depends on one.
    pub maybe: Option<Wrong>,
    pub in_entry: bool,
}

impl Scope {
    pub fn wrong(&self, line: usize, why: ScriptError) -> Wrong {
        Wrong { file: self.file, line, why }
    }
}

impl State {
    /// Returns the variables that GRUB itself has set when it begins to read.
    pub fn start(platform: Option<&str>) -> State {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: Argument| {
            variables.insert(name.to_owned(), Variable { value, from: None, exported: true });
        };
        for name in FEATURES {
            set(name, Ok("y".to_owned()));
        }
        for name in GRUBS {
            let why = ScriptError::Variable(name.to_owned());
            set(name, Err(Wrong { file: "grub.cfg", line: 1, why }));
        }
        if let Some(platform) = platform {
            set("grub_platform", Ok(platform.to_owned()));
        }
        set("prefix", Ok(PREFIX.to_owned()));
        set("config_directory", Ok(PREFIX.to_owned()));
        set("root", Ok(HERE.to_owned()));
        State { variables, loaded: Loaded::Nothing }
    }

    /// Returns the cost of a copy of this state, in fuel.
    pub fn size(&self) -> usize {
        let held = self.variables.values().map(|variable| match &variable.value {
            Ok(value) => 1 + value.len() / 32,
            Err(_) => 1,
        });
        held.sum()
    }

    pub fn get(&self, name: &str, line: usize, scope: &Scope) -> Argument {
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let value = number.and_then(|number| scope.arguments.get(number)).cloned().unwrap_or_default();
            let known = value != UNKNOWN;
            return if known {
                Ok(value)
            } else {
                Err(scope.wrong(line, ScriptError::Variable(name.to_owned())))
            };
        }
        match self.variables.get(name) {
            Some(variable) => match &variable.value {
                Ok(value) => Ok(value.clone()),
                Err(Wrong { why: ScriptError::Variable(_), .. }) => {
                    Err(scope.wrong(line, ScriptError::Variable(name.to_owned())))
                }
                Err(wrong) => Err(wrong.clone()),
            },
            None if ["net_", "pxe_"].iter().any(|start| name.starts_with(start)) || "?#*@".contains(name) => {
                Err(scope.wrong(line, ScriptError::Variable(name.to_owned())))
            }
            None => Ok(String::new()),
        }
    }

    pub fn set(&mut self, name: &str, value: Argument, from: Option<String>) {
        let value = match (name, value) {
            // GRUB removes the parentheses (`grub_env_write_root`).
            ("root", Ok(value)) => Ok(value.trim_start_matches('(').trim_end_matches(')').to_owned()),
            (_, value) => value,
        };
        let exported = self.variables.get(name).is_some_and(|variable| variable.exported);
        let exported = exported || name == "chosen";
        self.variables.insert(name.to_owned(), Variable { value, from, exported });
    }

    pub fn load(&mut self, set: impl FnOnce(&mut Linux) -> Result<(), Wrong>, without: Wrong) {
        let wrong = match &mut self.loaded {
            Loaded::Linux(linux) => set(linux).err(),
            Loaded::Refused(_) => None,
            Loaded::Nothing => Some(without),
        };
        if let Some(wrong) = wrong {
            self.loaded = Loaded::Refused(wrong);
        }
    }

    /// Merges the states of both ways of a condition. A value that is the same both ways stays known; any other
    /// depends on the condition `judge`.
    pub fn merge(&mut self, other: &State, judge: &Wrong) {
        if self.loaded != other.loaded {
            self.loaded = Loaded::Refused(judge.clone());
        }
        let unset = Variable { value: Ok(String::new()), from: None, exported: false };
        for name in other.variables.keys() {
            self.variables.entry(name.clone()).or_insert_with(|| unset.clone());
        }
        for (name, variable) in &mut self.variables {
            let theirs = other.variables.get(name).unwrap_or(&unset);
            if variable.value != theirs.value {
                variable.value = Err(judge.clone());
            }
            if variable.from != theirs.from {
                variable.from = None;
            }
            variable.exported |= theirs.exported;
        }
    }
}

impl Device {
    /// Parses the value of `root`, or the text in a path's parentheses.
    pub(super) fn parse(text: &str) -> Device {
        let searched =
            [(UUID, Device::Uuid as fn(String) -> Device), (LABEL, Device::Label), (HOLDS, Device::Holds)];
        if text == HERE {
            return Device::Grub;
        }
        let found = searched
            .iter()
            .find_map(|(by, device)| text.strip_prefix(by).map(|value| device(value.replace(SPACE, " "))));
        found.unwrap_or_else(|| Device::Named(text.to_owned()))
    }
}
