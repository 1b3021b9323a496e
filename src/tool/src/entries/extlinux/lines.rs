//! Reads extlinux.conf and syslinux.cfg, line by line.

use crate::entries::extlinux::menu::{
    Config, Fdt, LABELS_MAX, Label, LineError, Linux, MenuProgram, SIZE_MAX, Wrong,
};
use crate::words::quoted::shown;

impl Config {
    /// Reads a text. Total: any bytes give labels, or the line with the error.
    pub fn parse(bytes: &[u8]) -> Result<Config, Wrong> {
        let mut reader = Reader::default();
        if bytes.len() > SIZE_MAX {
            return Err(Wrong { line: 1, why: LineError::TooLarge });
        }
        let mut at = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            at += 1;
            reader.line(at, line).map_err(|why| Wrong { line: at, why })?;
        }
        if reader.in_text {
            return Err(Wrong { line: at, why: LineError::Unclosed });
        }
        Ok(reader.config())
    }
}

/// Keywords that change the look of the menu, or its behavior if somebody touches a key. None changes the
/// kernel that a label boots, or its parameters.
const WITHOUT_EFFECT: [&str; 25] = [
    "prompt",
    "totaltimeout",
    "allowoptions",
    "noescape",
    "nocomplete",
    "implicit",
    "serial",
    "console",
    "font",
    "kbdmap",
    "display",
    "say",
    "onerror",
    "path",
    "sendcookies",
    "nohalt",
    "title",
    "background",
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "kaslrseed",
    "efi",
];

/// Keywords with which syslinux starts something other than a Linux kernel, and the one with which U-Boot goes
/// on to the next device.
const OTHERS: [&str; 8] = ["localboot", "com32", "boot", "bss", "pxe", "fdimage", "comboot", "config"];

/// The ending of syslinux's own programs, including its menus.
const MODULE: &str = ".c32";

/// The endings by which syslinux knows that a KERNEL is something else.
const OTHER_ENDS: [&str; 9] = [MODULE, ".com", ".cbt", ".bss", ".bin", ".0", ".img", ".bs", ".lua"];

/// A label that is not complete yet.
#[derive(Default)]
struct Open {
    name: String,
    title: Option<String>,
    line: usize,
    kernel: Option<String>,
    initrd: Option<String>,
    append: Option<String>,
    fdt: Option<Fdt>,
    overlays: Option<String>,
    /// The line at which U-Boot ends the label.
    ended: Option<usize>,
    /// The first error for any reader; below it the first one that counts only if U-Boot may read the file.
    wrong: Option<Wrong>,
    differs: Option<Wrong>,
}

#[derive(Default)]
struct Reader {
    labels: Vec<Open>,
    in_text: bool,
    timeout: Option<u32>,
    fallback: Option<String>,
    default: Option<String>,
    on_timeout: Option<String>,
    menu_defaults: Vec<String>,
    common: Option<String>,
    network: bool,
    syslinux: Option<MenuProgram>,
    saves: Option<usize>,
}

impl Reader {
    fn line(&mut self, at: usize, bytes: &[u8]) -> Result<(), LineError> {
        let line = std::str::from_utf8(bytes).map_err(|_| LineError::NotText)?.trim_ascii();
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(LineError::NotText);
        }
        let (word, value) = split(line);
        let keyword = word.to_ascii_lowercase();
        if self.in_text {
            self.in_text = keyword != "endtext";
            return Ok(());
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        match keyword.as_str() {
            "label" => return self.label(at, value),
            "menu" => return self.menu(at, value),
            "include" => return Err(LineError::Include(shown(value))),
            _ => {}
        }
        if self.in_label(at, &keyword, value)? {
            return Ok(());
        }
        // A keyword that does not belong to a label ends the label for U-Boot.
        if let Some(label) = self.labels.last_mut() {
            label.ended = label.ended.or(Some(at));
        }
        match keyword.as_str() {
            "ui" => self.syslinux = Some(MenuProgram::Ui),
            "default" if is_program(value) => self.syslinux = self.syslinux.or(Some(MenuProgram::Default)),
            "default" => self.default = Some(told("DEFAULT", value)?),
            "ontimeout" => self.on_timeout = Some(told("ONTIMEOUT", value)?),
            "fallback" => self.fallback = Some(told("FALLBACK", value)?),
            "timeout" => self.timeout = value.parse().ok(),
            "text" => self.in_text = true,
            "append" => self.common = Some(value.to_owned()),
            "ipappend" | "sysappend" => self.network = value != "0",
            keyword if WITHOUT_EFFECT.contains(&keyword) || is_function_key(keyword) => {}
            _ => return Err(LineError::Unknown(shown(word))),
        }
        Ok(())
    }

    fn label(&mut self, at: usize, value: &str) -> Result<(), LineError> {
        if self.labels.len() == LABELS_MAX {
            return Err(LineError::TooMany);
        }
        let name = told("LABEL", value)?;
        self.labels.push(Open { name, line: at, ..Open::default() });
        Ok(())
    }

    fn menu(&mut self, at: usize, value: &str) -> Result<(), LineError> {
        let (word, value) = split(value);
        match (word.to_ascii_lowercase().as_str(), self.labels.last_mut()) {
            ("include", _) => return Err(LineError::Include(shown(value))),
            ("default", Some(label)) => self.menu_defaults.push(label.name.clone()),
            ("save", _) => self.saves = self.saves.or(Some(at)),
            // The '^' marks the shortcut key.
            ("label", Some(label)) => label.title = Some(value.replacen('^', "", 1)),
            // A submenu has its own default; GOTO, EXIT and HIDE change the contents of a menu.
            (word @ ("begin" | "end" | "goto" | "exit" | "hide" | "start" | "disable" | "disabled"), _) => {
                return Err(LineError::Unknown(shown(&format!("MENU {}", word.to_ascii_uppercase()))));
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a keyword that belongs to a label. Returns false if it is not one, or if there is no label yet.
    fn in_label(&mut self, at: usize, keyword: &str, value: &str) -> Result<bool, LineError> {
        let Some(label) = self.labels.last_mut() else { return Ok(false) };
        let mut differs = None;
        match keyword {
            "linux" | "kernel" => {
                let kernel = told("KERNEL", value)?;
                if keyword == "kernel" && OTHER_ENDS.iter().any(|end| kernel.ends_with(end)) {
                    label.refuse(at, LineError::NotLinux(shown(&kernel)));
                } else if kernel.contains('#') {
                    label.refuse(at, LineError::Fit(shown(&kernel)));
                }
                label.kernel = Some(kernel);
            }
            "initrd" => {
                let initrd = told("INITRD", value)?;
                differs = label.initrd.replace(initrd).map(|_| LineError::Twice("INITRD"));
            }
            "append" => {
                differs = value.chars().find(|c| matches!(c, '$' | '\\' | '\'')).map(LineError::Macro);
                label.append = Some(if value == "-" { String::new() } else { value.to_owned() });
            }
            "fdt" | "devicetree" => {
                let before = label.fdt.replace(Fdt::File(told("FDT", value)?));
                differs = before.filter(|fdt| matches!(fdt, Fdt::File(_))).map(|_| LineError::Twice("FDT"));
            }
            "fdtdir" | "devicetreedir" => {
                // A file counts before a directory.
                label.fdt = label.fdt.take().or(Some(Fdt::Directory(value.to_owned())));
            }
            "fdtoverlays" | "devicetree-overlay" => {
                let overlays = label.overlays.replace(value.to_owned());
                differs = overlays.map(|_| LineError::Twice("FDTOVERLAYS"));
            }
            "ipappend" | "sysappend" => {
                if value != "0" {
                    label.refuse(at, LineError::Network);
                }
            }
            "kaslrseed" => {}
            other if OTHERS.contains(&other) => {
                label.refuse(at, LineError::NotLinux(other.to_ascii_uppercase()));
            }
            _ => return Ok(false),
        }
        let differs = differs.or(label.ended.map(LineError::Ended));
        if let Some(why) = differs {
            label.differs.get_or_insert(Wrong { line: at, why });
        }
        Ok(true)
    }

    fn config(self) -> Config {
        let (common, network, is_syslinux) = (self.common, self.network, self.syslinux.is_some());
        let labels = self.labels.into_iter().map(|label| Label {
            name: label.name.clone(),
            title: label.title.clone().unwrap_or_else(|| label.name.clone()),
            line: label.line,
            boots: label.boots(common.as_deref(), network, is_syslinux),
        });
        Config {
            labels: labels.collect(),
            timeout: self.timeout,
            fallback: self.fallback,
            default: self.default,
            on_timeout: self.on_timeout,
            menu_defaults: self.menu_defaults,
            syslinux: self.syslinux,
            saves: self.saves,
        }
    }
}

impl Open {
    fn refuse(&mut self, line: usize, why: LineError) {
        self.wrong.get_or_insert(Wrong { line, why });
    }

    fn boots(self, common: Option<&str>, network: bool, is_syslinux: bool) -> Result<Linux, Wrong> {
        let line = self.line;
        let wrong = |why| Wrong { line, why };
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        if let Some(differs) = self.differs.filter(|_| !is_syslinux) {
            return Err(differs);
        }
        let kernel = self.kernel.ok_or_else(|| wrong(LineError::NoKernel))?;
        let options = match (self.append, common) {
            (Some(append), _) => append,
            (None, Some(_)) if !is_syslinux => return Err(wrong(LineError::Common)),
            (None, None) if !is_syslinux => return Err(wrong(LineError::NoAppend)),
            (None, Some("-") | None) => String::new(),
            (None, Some(common)) => common.to_owned(),
        };
        if network {
            return Err(wrong(LineError::Network));
        }
        let words = options.split_ascii_whitespace();
        let appended: Vec<_> = words.filter_map(|word| word.strip_prefix("initrd=")).collect();
        let initrd = match (self.initrd.as_deref(), appended.as_slice()) {
            (initrd, []) => initrd,
            (None, [one]) => Some(*one),
            _ => return Err(wrong(LineError::TwoInitrds)),
        };
        let initrds = initrd.unwrap_or_default().split(',').map(str::trim_ascii);
        let overlays = self.overlays.unwrap_or_default();
        Ok(Linux {
            kernel,
            initrds: initrds.filter(|initrd| !initrd.is_empty()).map(str::to_owned).collect(),
            options,
            fdt: self.fdt,
            overlays: overlays.split_ascii_whitespace().map(str::to_owned).collect(),
        })
    }
}

/// Splits off the first word.
fn split(line: &str) -> (&str, &str) {
    let (word, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (word, value.trim_ascii())
}

fn told(keyword: &'static str, value: &str) -> Result<String, LineError> {
    if value.is_empty() { Err(LineError::Empty(keyword)) } else { Ok(value.to_owned()) }
}

/// Returns whether the value of DEFAULT is syslinux's menu instead of a label.
fn is_program(value: &str) -> bool {
    let word = value.split_ascii_whitespace().next().unwrap_or_default();
    word.to_ascii_lowercase().ends_with(MODULE)
}

/// Returns whether a keyword is the name of a function key up to F12, which sets the help that the key shows.
fn is_function_key(keyword: &str) -> bool {
    let digits = keyword.strip_prefix('f').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse::<u8>().ok()).is_some_and(|number| number <= 12)
}
