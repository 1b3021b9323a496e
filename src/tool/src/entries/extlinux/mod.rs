//! extlinux.conf and syslinux.cfg: the labels, and the one that boots if nobody touches a key.
//!
//! Two programs read such a file, U-Boot (doc/develop/bootstd/extlinux.rst; `boot/pxe_utils.c`) and syslinux
//! (its wiki's "Config"; com32/menu/readconfig.c), and they do not agree in everything. A file that means the
//! same to both is read. A `UI` line shows that syslinux reads the file, because U-Boot does not know that
//! keyword. Everything else that they would read differently is refused by name. Paths stay as they are
//! written: see [`path`].

pub mod found;

use thiserror::Error;

use crate::words::quoted::quoted;

/// Limit in bytes; a larger file is not a configuration.
const SIZE_MAX: usize = 1 << 20;

/// Limit for the labels. A file with more is not a menu, and each search goes through all of them.
const LABELS_MAX: usize = 1000;

/// Limit in characters for text of the file that an error shows.
const SHOWN_MAX: usize = 60;

/// An error, and its line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct Wrong {
    /// The line, counted from 1.
    pub line: usize,
    /// The error.
    pub why: Why,
}

/// An error in a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Why {
    /// The bytes are not text.
    #[error("it is not plain text")]
    NotText,
    /// The file is too large to be a configuration.
    #[error("the file is larger than {SIZE_MAX} bytes")]
    TooLarge,
    /// There are too many labels for a menu.
    #[error("there are more than {LABELS_MAX} labels")]
    TooMany,
    /// The keyword is unknown.
    #[error("{0} is no keyword that is understood")]
    Unknown(String),
    /// The keyword lacks its value.
    #[error("{0} says nothing")]
    Empty(&'static str),
    /// The file refers to another file.
    #[error("what {0} holds is not read: put it into this file")]
    Include(String),
    /// The keyword occurs twice.
    #[error("{0} stands there a second time, and U-Boot and syslinux differ in which they take")]
    Twice(&'static str),
    /// The initrd is named in two ways.
    #[error("INITRD and APPEND both name an initrd, and U-Boot and syslinux differ in which they take")]
    TwoInitrds,
    /// The label does not start a Linux kernel.
    #[error("the label starts no Linux kernel, but {0}")]
    NotLinux(String),
    /// The label starts nothing.
    #[error("the label names no kernel")]
    NoKernel,
    /// The kernel is in a FIT.
    #[error("{0} names a configuration of a FIT image, which is not read")]
    Fit(String),
    /// The boot loader adds parameters of its own.
    #[error("the boot loader adds the network's settings to the command line (IPAPPEND, SYSAPPEND)")]
    Network,
    /// U-Boot interprets the character, and syslinux does not.
    #[error("U-Boot takes {0:?} in APPEND for its own, and syslinux does not")]
    Macro(char),
    /// U-Boot ends the label earlier, at the line given here.
    #[error("U-Boot ends the label at line {0} and passes over this, and syslinux does not")]
    Ended(usize),
    /// The only APPEND comes before all labels.
    #[error("the label has no APPEND; syslinux takes the one before all labels, and U-Boot does not")]
    Common,
    /// There is no APPEND.
    #[error("the label has no APPEND, and U-Boot then takes what its environment holds (bootargs)")]
    NoAppend,
    /// A block is not closed.
    #[error("TEXT is never closed by ENDTEXT")]
    Unclosed,
}

/// The location of the device tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fdt {
    /// This file.
    File(String),
    /// A file in this directory, whose name the board knows.
    Folder(String),
}

/// The kernel of a label, and everything that it boots with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The kernel's path.
    pub kernel: String,
    /// The initrds' paths, in order. U-Boot takes only one.
    pub initrds: Vec<String>,
    /// The command line as it is written, with `initrd=` if that is in it.
    pub options: String,
    /// The device tree.
    pub fdt: Option<Fdt>,
    /// Overlays for the device tree, in order.
    pub overlays: Vec<String>,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// The title in the menu.
    pub title: String,
    /// The line in which it begins.
    pub line: usize,
    /// The kernel that it boots, or the reason why it cannot be staged.
    pub boots: Result<Linux, Wrong>,
}

/// The contents of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The labels, in order.
    pub labels: Vec<Label>,
    /// `TIMEOUT`, in tenths of a second.
    pub timeout: Option<u32>,
    /// The label for U-Boot to take after too many failed boots (`FALLBACK`).
    pub fallback: Option<String>,
    default: Option<String>,
    on_timeout: Option<String>,
    menu_defaults: Vec<String>,
    syslinux: Option<Menu>,
    /// The line by which syslinux begins with the label that was chosen last.
    saves: Option<usize>,
}

/// The way in which a file says that syslinux shows its menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Menu {
    /// `DEFAULT` names the menu's program instead of a label.
    Default,
    /// `UI` names the menu's program.
    Ui,
}

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
    /// Reads a text. Total: any bytes give labels, or the line with the error.
    pub fn parse(bytes: &[u8]) -> Result<Config, Wrong> {
        let mut reader = Reader::default();
        if bytes.len() > SIZE_MAX {
            return Err(Wrong { line: 1, why: Why::TooLarge });
        }
        let mut at = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            at += 1;
            reader.line(at, line).map_err(|why| Wrong { line: at, why })?;
        }
        if reader.in_text {
            return Err(Wrong { line: at, why: Why::Unclosed });
        }
        Ok(reader.config())
    }

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
        let ways = if self.syslinux == Some(Menu::Default) {
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

/// Returns the path on its file system of a name in a file in `folder`. A name with a leading '/' begins at the
/// top of the file system, any other in that directory. `..` stays for the reader of the file.
#[must_use]
pub fn path(folder: &str, named: &str) -> String {
    if named.starts_with('/') {
        return named.to_owned();
    }
    format!("{}/{named}", folder.trim_end_matches('/'))
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
    syslinux: Option<Menu>,
    saves: Option<usize>,
}

impl Reader {
    fn line(&mut self, at: usize, bytes: &[u8]) -> Result<(), Why> {
        let line = std::str::from_utf8(bytes).map_err(|_| Why::NotText)?.trim_ascii();
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Why::NotText);
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
            "include" => return Err(Why::Include(shown(value))),
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
            "ui" => self.syslinux = Some(Menu::Ui),
            "default" if is_program(value) => self.syslinux = self.syslinux.or(Some(Menu::Default)),
            "default" => self.default = Some(told("DEFAULT", value)?),
            "ontimeout" => self.on_timeout = Some(told("ONTIMEOUT", value)?),
            "fallback" => self.fallback = Some(told("FALLBACK", value)?),
            "timeout" => self.timeout = value.parse().ok(),
            "text" => self.in_text = true,
            "append" => self.common = Some(value.to_owned()),
            "ipappend" | "sysappend" => self.network = value != "0",
            keyword if WITHOUT_EFFECT.contains(&keyword) || is_function_key(keyword) => {}
            _ => return Err(Why::Unknown(shown(word))),
        }
        Ok(())
    }

    fn label(&mut self, at: usize, value: &str) -> Result<(), Why> {
        if self.labels.len() == LABELS_MAX {
            return Err(Why::TooMany);
        }
        let name = told("LABEL", value)?;
        self.labels.push(Open { name, line: at, ..Open::default() });
        Ok(())
    }

    fn menu(&mut self, at: usize, value: &str) -> Result<(), Why> {
        let (word, value) = split(value);
        match (word.to_ascii_lowercase().as_str(), self.labels.last_mut()) {
            ("include", _) => return Err(Why::Include(shown(value))),
            ("default", Some(label)) => self.menu_defaults.push(label.name.clone()),
            ("save", _) => self.saves = self.saves.or(Some(at)),
            // The '^' marks the shortcut key.
            ("label", Some(label)) => label.title = Some(value.replacen('^', "", 1)),
            // A submenu has its own default; GOTO, EXIT and HIDE change the contents of a menu.
            (word @ ("begin" | "end" | "goto" | "exit" | "hide" | "start" | "disable" | "disabled"), _) => {
                return Err(Why::Unknown(shown(&format!("MENU {}", word.to_ascii_uppercase()))));
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads a keyword that belongs to a label. Returns false if it is not one, or if there is no label yet.
    fn in_label(&mut self, at: usize, keyword: &str, value: &str) -> Result<bool, Why> {
        let Some(label) = self.labels.last_mut() else { return Ok(false) };
        let mut differs = None;
        match keyword {
            "linux" | "kernel" => {
                let kernel = told("KERNEL", value)?;
                if keyword == "kernel" && OTHER_ENDS.iter().any(|end| kernel.ends_with(end)) {
                    label.refuse(at, Why::NotLinux(shown(&kernel)));
                } else if kernel.contains('#') {
                    label.refuse(at, Why::Fit(shown(&kernel)));
                }
                label.kernel = Some(kernel);
            }
            "initrd" => {
                let initrd = told("INITRD", value)?;
                differs = label.initrd.replace(initrd).map(|_| Why::Twice("INITRD"));
            }
            "append" => {
                differs = value.chars().find(|c| matches!(c, '$' | '\\' | '\'')).map(Why::Macro);
                label.append = Some(if value == "-" { String::new() } else { value.to_owned() });
            }
            "fdt" | "devicetree" => {
                let before = label.fdt.replace(Fdt::File(told("FDT", value)?));
                differs = before.filter(|fdt| matches!(fdt, Fdt::File(_))).map(|_| Why::Twice("FDT"));
            }
            "fdtdir" | "devicetreedir" => {
                // A file counts before a directory.
                label.fdt = label.fdt.take().or(Some(Fdt::Folder(value.to_owned())));
            }
            "fdtoverlays" | "devicetree-overlay" => {
                let overlays = label.overlays.replace(value.to_owned());
                differs = overlays.map(|_| Why::Twice("FDTOVERLAYS"));
            }
            "ipappend" | "sysappend" => {
                if value != "0" {
                    label.refuse(at, Why::Network);
                }
            }
            "kaslrseed" => {}
            other if OTHERS.contains(&other) => {
                label.refuse(at, Why::NotLinux(other.to_ascii_uppercase()));
            }
            _ => return Ok(false),
        }
        let differs = differs.or(label.ended.map(Why::Ended));
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
    fn refuse(&mut self, line: usize, why: Why) {
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
        let kernel = self.kernel.ok_or_else(|| wrong(Why::NoKernel))?;
        let options = match (self.append, common) {
            (Some(append), _) => append,
            (None, Some(_)) if !is_syslinux => return Err(wrong(Why::Common)),
            (None, None) if !is_syslinux => return Err(wrong(Why::NoAppend)),
            (None, Some("-") | None) => String::new(),
            (None, Some(common)) => common.to_owned(),
        };
        if network {
            return Err(wrong(Why::Network));
        }
        let words = options.split_ascii_whitespace();
        let appended: Vec<_> = words.filter_map(|word| word.strip_prefix("initrd=")).collect();
        let initrd = match (self.initrd.as_deref(), appended.as_slice()) {
            (initrd, []) => initrd,
            (None, [one]) => Some(*one),
            _ => return Err(wrong(Why::TwoInitrds)),
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

fn told(keyword: &'static str, value: &str) -> Result<String, Why> {
    if value.is_empty() { Err(Why::Empty(keyword)) } else { Ok(value.to_owned()) }
}

/// Returns whether the value of DEFAULT is syslinux's menu instead of a label.
fn is_program(value: &str) -> bool {
    let word = value.split_ascii_whitespace().next().unwrap_or_default();
    word.to_ascii_lowercase().ends_with(MODULE)
}

/// Returns whether a keyword is the name of a function key up to F12, which sets the help that the key shows.
fn is_function_key(keyword: &str) -> bool {
    let number = keyword.strip_prefix('f').and_then(|number| number.parse::<u8>().ok());
    number.is_some_and(|number| number <= 12)
}

fn shown(text: &str) -> String {
    quoted(text, SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::entries::extlinux::*;

    /// A file as in an image for a board.
    const BOARD: &str = "\
# made by u-boot-update
DEFAULT l0
MENU TITLE U-Boot menu
PROMPT 0
TIMEOUT 50

label l0
	menu label Debian 13 6.12
	linux /boot/vmlinuz-6.12
	initrd /boot/initrd.img-6.12
	fdtdir /usr/lib/linux-image-6.12/
	append root=UUID=1 ro quiet

label l0r
	menu label Debian 13 6.12 (rescue target)
	linux /boot/vmlinuz-6.12
	initrd /boot/initrd.img-6.12
	fdt /boot/board.dtb
	append root=UUID=1 ro single
";

    fn linux(text: &str) -> Result<Linux, Wrong> {
        Config::parse(format!("label x\n{text}").as_bytes()).unwrap().labels.remove(0).boots
    }

    fn next(text: &str) -> Result<(usize, Because), Undecided> {
        let labels = "label a\nlinux /a\nlabel b\nlinux /b\nlabel c\nlinux /c\n";
        Config::parse(text.replace("LABELS\n", labels).as_bytes()).unwrap().next()
    }

    #[test]
    fn a_boards_menu_is_read_whole() {
        let config = Config::parse(BOARD.as_bytes()).unwrap();
        let titles: Vec<_> = config.labels.iter().map(|label| (label.line, label.title.as_str())).collect();
        assert_eq!(titles, [(7, "Debian 13 6.12"), (14, "Debian 13 6.12 (rescue target)")]);
        assert_eq!(
            config.labels[0].boots,
            Ok(Linux {
                kernel: "/boot/vmlinuz-6.12".into(),
                initrds: vec!["/boot/initrd.img-6.12".into()],
                options: "root=UUID=1 ro quiet".into(),
                fdt: Some(Fdt::Folder("/usr/lib/linux-image-6.12/".into())),
                overlays: vec![],
            })
        );
        assert_eq!(config.labels[1].boots.as_ref().unwrap().fdt, Some(Fdt::File("/boot/board.dtb".into())));
        assert_eq!(config.next(), Ok((0, Because::Default)));
        assert_eq!(config.timeout, Some(50));
    }

    #[test]
    fn keywords_are_known_in_any_case_and_values_keep_theirs() {
        let boots =
            linux("  LINUX\t/A b \r\nInitrd /U,../I\nDEVICETREE-OVERLAY /1  /2\nAPPEND Root=X  # y").unwrap();
        assert_eq!(
            (boots.kernel.as_str(), boots.initrds.as_slice()),
            ("/A b", &["/U".to_owned(), "../I".to_owned()][..])
        );
        assert_eq!((boots.options.as_str(), boots.overlays.len()), ("Root=X  # y", 2));
        assert_eq!(linux("linux /a").unwrap_err().why, Why::NoAppend);
        assert_eq!(linux("linux /a\nappend -").unwrap().options, "");
    }

    #[test]
    fn an_initrd_may_be_named_in_append() {
        let boots = linux("kernel /a\nappend initrd=/u.img,/i.img root=x").unwrap();
        assert_eq!(boots.initrds, ["/u.img", "/i.img"]);
        assert_eq!(linux("linux /a\nappend xinitrd=1 noinitrd").unwrap().initrds, [""; 0]);
        let two = linux("linux /a\ninitrd /i\nappend initrd=/j").unwrap_err();
        assert_eq!(two.why, Why::TwoInitrds);
    }

    #[test]
    fn the_default_is_told_in_every_way_that_both_understand() {
        for (text, number, because) in [
            ("LABELS\n", 0, Because::First),
            ("default b\nLABELS\n", 1, Because::Default),
            ("LABELS\ndefault b\n", 1, Because::Default),
            ("ontimeout c\nLABELS\n", 2, Because::OnTimeout),
            ("LABELS\nmenu default\n", 2, Because::MenuDefault),
            ("default a\nLABELS\nmenu default\n", 0, Because::Default),
            ("ui menu.c32\nLABELS\nmenu default\n", 2, Because::MenuDefault),
            ("ui menu.c32\ndefault a\nLABELS\nmenu default\n", 0, Because::Default),
            ("default menu.c32\nLABELS\nmenu default\n", 2, Because::MenuDefault),
            ("default vesamenu.c32\nLABELS\n", 0, Because::First),
            ("ui menu.c32\ndefault b\nLABELS\n", 1, Because::Default),
            ("default b\nontimeout b\nLABELS\n", 1, Because::OnTimeout),
        ] {
            assert_eq!(next(text), Ok((number, because)), "{text:?}");
        }
    }

    #[test]
    fn a_default_that_the_two_take_differently_is_refused() {
        for (text, says) in [
            ("", "there is no label"),
            ("default d\nLABELS\n", "'d', and no label"),
            ("default b quiet\nLABELS\n", "'b quiet', and no label"),
            ("default a\nLABELS\nlabel a\nlinux /z\n", "several labels"),
            ("default a\nontimeout b\nLABELS\n", "'b' or 'a'"),
            ("ui menu.c32\nmenu save\ndefault a\nLABELS\n", "line 2: by MENU SAVE"),
            (
                "default a\nLABELS\nmenu save\n",
                "by MENU SAVE syslinux begins with the label that was chosen last",
            ),
            ("LABELS\nmenu default\nlabel d\nmenu default\n", "'c' or 'd'"),
        ] {
            let undecided = next(text).unwrap_err().to_string();
            assert!(undecided.contains(says), "{text:?}: {undecided}");
        }
    }

    #[test]
    fn a_label_that_starts_something_else_is_refused_and_the_others_stay() {
        for (text, line, says) in [
            ("localboot 0", 2, "LOCALBOOT"),
            ("com32 reboot.c32", 2, "COM32"),
            ("\nkernel memdisk.bin", 3, "'memdisk.bin'"),
            ("menu label x", 1, "no kernel"),
            ("linux /fit.itb#conf-1", 2, "FIT"),
            ("linux /a\nipappend 2", 3, "network"),
            ("linux /a\nappend x=${y}", 3, "'$'"),
            ("linux /a\nappend x='y'", 3, "'\\''"),
            ("linux /a\ninitrd /b\ninitrd /c", 4, "INITRD"),
            ("linux /a\nsay hello\nappend x", 4, "ends the label at line 3"),
        ] {
            let wrong = linux(text).unwrap_err();
            let why = wrong.to_string();
            assert!(wrong.line == line && why.contains(says), "{text:?}: {why}");
        }
        let common = Config::parse(b"append x\nlabel a\nlinux /a\nlabel b\nlinux /b\nappend y").unwrap();
        assert_eq!(common.labels[0].boots.as_ref().unwrap_err().why, Why::Common);
        assert!(common.labels[1].boots.is_ok());
        let common = Config::parse(b"ui menu.c32\nappend x\nlabel a\nlinux /a\nsay b\ninitrd /i").unwrap();
        assert_eq!(common.labels[0].boots.as_ref().unwrap().options, "x");
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, line, says) in [
            ("\ninclude more.conf", 2, "'more.conf'"),
            ("menu include more.conf", 1, "'more.conf'"),
            ("frobnicate", 1, "'frobnicate' is no keyword"),
            ("menu begin x", 1, "'MENU BEGIN'"),
            ("label", 1, "LABEL says nothing"),
            ("default", 1, "DEFAULT says nothing"),
            ("label a\nlinux", 2, "KERNEL says nothing"),
            ("text help\nlabel a\n", 3, "ENDTEXT"),
            ("label \u{1b}[2J", 1, "not plain text"),
        ] {
            let wrong = Config::parse(text.as_bytes()).unwrap_err();
            assert!(wrong.line == line && wrong.to_string().contains(says), "{text:?}: {wrong}");
        }
        assert_eq!(Config::parse(b"\n\xff").unwrap_err(), Wrong { line: 2, why: Why::NotText });
        let text = b"label a\ntext help\nlabel b\nendtext\nf1 help.txt\nF12 x\n";
        assert_eq!(Config::parse(text).unwrap().labels.len(), 1);
    }

    #[test]
    fn a_path_begins_at_the_top_or_at_the_folder() {
        assert_eq!(path("/boot/extlinux", "/vmlinuz"), "/vmlinuz");
        assert_eq!(path("/boot/extlinux/", "../vmlinuz"), "/boot/extlinux/../vmlinuz");
        assert_eq!(path("/", "vmlinuz"), "/vmlinuz");
    }
}
