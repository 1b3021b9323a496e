//! /etc/nextkernel.conf, which holds an administrator's settings for every staging. Its values go into the
//! plan; the hook reads no configuration. docs/nextkernel.conf explains every key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use nextkernel_plan::{
    GpuFailed, GpuPolicy, Jump, Policy, Watchdog, guard_seconds, is_module, is_nvidia, is_pci_address, limits,
};
use thiserror::Error;

use crate::machine::root::Root;
use crate::request::choices::{BootLoader, PreloadChoice, SyscallChoice};
use crate::words::errno::InWords;
use crate::words::quoted::quoted;

/// The path of the configuration.
pub const PATH: &str = "/etc/nextkernel.conf";

/// The largest configuration that is read, in bytes. A larger file is something else under its name.
const SIZE_MAX: u64 = 64 * 1024;

/// The number of characters that an error shows of a word in the file.
const SHOWN_MAX: usize = 40;

/// The handling of requests for the firmware, or for another boot entry, at the next restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirmwareRequests {
    /// The restart is a full reboot.
    #[default]
    Honour,
    /// The staged kernel starts all the same.
    Ignore,
}

/// The settings. A default that is right for the machine applies to each one that is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// `gpu` (under [`GpuPolicy::EVERY`]) and `gpu.DRIVER`, each driver once.
    pub gpu: Vec<(String, Policy)>,
    /// `gpu-failed`: what to do if a GPU cannot be freed.
    pub gpu_failed: Option<GpuFailed>,
    /// `modules`: more modules to unload, in this order.
    pub modules: Vec<String>,
    /// `unbind`: other devices to unbind just before the jump.
    pub unbind: Vec<UnbindTarget>,
    /// `guard`: the seconds that the jump may take.
    pub guard: Option<u16>,
    /// `watchdog`: whether to stop the hardware watchdog before the jump, or to arm it.
    pub watchdog: Option<Watchdog>,
    /// `jump`: whether the hook or the init makes the jump.
    pub jump: Option<Jump>,
    /// `boot-loader`: the boot loader in charge, if it cannot be detected.
    pub boot_loader: Option<BootLoader>,
    /// `panic`: the seconds after which the next kernel restarts when it panics.
    pub panic: Option<u16>,
    /// `acpi-rsdp`: whether to give the next kernel the address of the ACPI tables' root.
    pub acpi_rsdp: bool,
    /// `loader`: which of the kernel's loading syscalls loads the next kernel.
    pub loader: Option<SyscallChoice>,
    /// `handoff-failed`: the number of failed handoffs in a row after which nothing is staged any more.
    pub handoff_failed: Option<u16>,
    /// `offline-cpus`: whether to take every processor but the first offline early.
    pub offline_cpus: bool,
    /// `firmware-requests`: how to handle requests in the firmware's variables.
    pub firmware_requests: FirmwareRequests,
    /// `thaw`: whether to decompress kernel and initrd when they are staged.
    pub thaw: bool,
    /// `preload`: whether to load the image when it is staged.
    pub preload: PreloadChoice,
    /// `stage-on-update`: the restarts for which an updated kernel is staged.
    pub stage_on_update: OnUpdate,
}

/// The restarts for which an updated kernel is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUpdate {
    /// None: an updated kernel is not staged.
    #[default]
    No,
    /// `systemctl kexec` and `nextkernel reboot`.
    Kexec,
    /// Also a plain `reboot`.
    Reboot,
}

impl OnUpdate {
    fn from_word(word: &str) -> Option<OnUpdate> {
        match word {
            "no" => Some(OnUpdate::No),
            "kexec" => Some(OnUpdate::Kexec),
            "reboot" => Some(OnUpdate::Reboot),
            _ => None,
        }
    }
}

/// One or more devices to unbind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnbindTarget {
    /// The device at a PCI address.
    Address(String),
    /// Every device of a PCI driver, as /sys/bus/pci/drivers names it; '-' and '_' are equal.
    Driver(String),
}

/// A reason why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{PATH} cannot be read: {}; every key has a default: without the file they hold", InWords(.0))]
    Unreadable(io::Error),
    /// The file is too large to be a configuration.
    #[error(
        "{PATH} is larger than {SIZE_MAX} bytes; write one there as in share/doc/nextkernel/nextkernel.conf"
    )]
    TooLarge,
    /// A line is wrong.
    #[error(transparent)]
    Line(#[from] InvalidLine),
}

/// An error in a line.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{PATH}, line {line}: {error}")]
pub struct InvalidLine {
    /// The number of the line, counted from 1.
    pub line: usize,
    /// The reason why the line cannot be used.
    pub error: LineError,
}

/// A reason why a line cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// The line is not UTF-8, or has control characters.
    #[error("it is not plain text; write it without control characters, in UTF-8")]
    NotText,
    /// The line is neither a comment nor KEY = VALUE.
    #[error("{0} has no '='; a line is KEY = VALUE, and a comment begins with #")]
    NoEquals(String),
    /// There is no such key.
    #[error(
        "there is no key {0}; the keys are gpu, gpu.DRIVER, gpu-failed, modules, unbind, guard, watchdog, jump, \
         offline-cpus, firmware-requests, handoff-failed, panic, acpi-rsdp, boot-loader, loader, thaw, preload and stage-on-update"
    )]
    UnknownKey(String),
    /// The key or the name occurs a second time.
    #[error("{0} stands there a second time; leave one out")]
    Twice(String),
    /// The key does not take this value.
    #[error("{key} = {value} cannot be; it takes {takes}")]
    BadValue {
        /// The key, as written.
        key: String,
        /// The value, as written.
        value: String,
        /// The values that the key takes, in words.
        takes: &'static str,
    },
    /// There are more names than a plan holds.
    #[error("{key} names more than {most}, and a plan holds no more; leave some out")]
    TooMany {
        /// The key with too many names.
        key: &'static str,
        /// The largest number of names.
        most: usize,
    },
    /// Unbinding an NVIDIA GPU hangs forever while anything has it open, with the lock of its device held.
    #[error(
        "{0} must not be unbound: the driver waits for ever while anything has an NVIDIA GPU open; \
         `gpu.nvidia = unload` is the default and fails cleanly instead"
    )]
    Nvidia(String),
}

const SECONDS: &str = "a number of seconds, 1 to 65535";

impl Conf {
    /// Reads the configuration. A missing file sets nothing.
    pub fn read(root: &Root) -> Result<Conf, Error> {
        let mut bytes = Vec::new();
        let read =
            File::open(root.path(PATH)).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > SIZE_MAX => Err(Error::TooLarge),
            Ok(_) => Ok(Conf::parse(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Conf::default()),
            Err(error) => Err(Error::Unreadable(error)),
        }
    }

    /// Parses a configuration. Any bytes are accepted: the result is a configuration, or the line that is
    /// wrong.
    pub fn parse(bytes: &[u8]) -> Result<Conf, InvalidLine> {
        let mut conf = Conf::default();
        let mut keys = Vec::new();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            conf.read_line(line, &mut keys).map_err(|error| InvalidLine { line: at + 1, error })?;
        }
        Ok(conf)
    }

    /// Reads one line. Adds its key to the keys so far.
    fn read_line(&mut self, bytes: &[u8], keys: &mut Vec<String>) -> Result<(), LineError> {
        let line = std::str::from_utf8(bytes).map_err(|_| LineError::NotText)?.trim_ascii();
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(LineError::NotText);
        }
        let (line, _comment) = line.split_once('#').unwrap_or((line, ""));
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| LineError::NoEquals(shown(line.trim_ascii())))?;
        let (key, value) = (key.trim_ascii(), value.trim_ascii());
        // The two spellings of a driver's name are one name.
        let known = if key.starts_with("gpu.") { as_module(key) } else { key.to_owned() };
        if keys.contains(&known) {
            return Err(LineError::Twice(shown(key)));
        }
        self.set(key, value)?;
        keys.push(known);
        Ok(())
    }

    /// Sets one key to its value.
    fn set(&mut self, key: &str, value: &str) -> Result<(), LineError> {
        let bad = |takes| LineError::BadValue { key: key.to_owned(), value: shown(value), takes };
        match key {
            "gpu" => self.gpu_policy(GpuPolicy::EVERY.to_owned(), key, value)?,
            "gpu-failed" => {
                self.gpu_failed = Some(GpuFailed::from_word(value).ok_or(bad("jump or firmware-reboot"))?);
            }
            "modules" => {
                for name in value.split_ascii_whitespace() {
                    let module = Some(as_module(name)).filter(|name| is_module(name));
                    let module = module.ok_or(bad("names of modules, as lsmod shows them"))?;
                    add(&mut self.modules, module, name, "modules", limits::MODULES_MAX)?;
                }
            }
            "unbind" => {
                for name in value.split_ascii_whitespace() {
                    let target = UnbindTarget::parse(name)
                        .ok_or(bad("PCI addresses as 0000:3b:00.0, and names in /sys/bus/pci/drivers"))?;
                    if matches!(&target, UnbindTarget::Driver(driver) if is_nvidia(&as_module(driver))) {
                        return Err(LineError::Nvidia(shown(name)));
                    }
                    add(&mut self.unbind, target, name, "unbind", limits::UNBIND_MAX)?;
                }
            }
            "guard" => {
                self.guard = Some(guard_seconds(value).ok_or(bad("a number of seconds, 5 to 65535"))?);
            }
            "watchdog" => {
                let takes = "off, or a number of seconds, 1 to 65535";
                self.watchdog = Some(Watchdog::from_word(value).ok_or(bad(takes))?);
            }
            "jump" => self.jump = Some(Jump::from_word(value).ok_or(bad("hook or init"))?),
            "boot-loader" => {
                let takes = "systemd-boot, grub, extlinux or none";
                self.boot_loader = Some(BootLoader::from_word(value).ok_or(bad(takes))?);
            }
            "acpi-rsdp" => self.acpi_rsdp = yes_or_no(value).ok_or(bad("yes or no"))?,
            "loader" => {
                self.loader = Some(SyscallChoice::from_word(value).ok_or(bad("auto, verified or direct"))?);
            }
            "offline-cpus" => self.offline_cpus = yes_or_no(value).ok_or(bad("yes or no"))?,
            "handoff-failed" => {
                let count = value.parse().ok().filter(|count| (1..=99).contains(count));
                self.handoff_failed = Some(count.ok_or(bad("a number of handoffs, 1 to 99"))?);
            }
            "firmware-requests" => {
                self.firmware_requests = match value {
                    "honour" => FirmwareRequests::Honour,
                    "ignore" => FirmwareRequests::Ignore,
                    _ => return Err(bad("honour or ignore")),
                };
            }
            "thaw" => self.thaw = yes_or_no(value).ok_or(bad("yes or no"))?,
            "preload" => self.preload = PreloadChoice::from_word(value).ok_or(bad("yes, no or only"))?,
            "stage-on-update" => {
                self.stage_on_update = OnUpdate::from_word(value).ok_or(bad("no, kexec or reboot"))?;
            }
            "panic" => self.panic = Some(panic_seconds(value).ok_or(bad(SECONDS))?),
            _ => {
                let driver = key.strip_prefix("gpu.").map(as_module).filter(|driver| is_module(driver));
                let driver = driver.ok_or_else(|| LineError::UnknownKey(shown(key)))?;
                self.gpu_policy(driver, key, value)?;
            }
        }
        Ok(())
    }

    /// Adds the policy of a driver.
    fn gpu_policy(&mut self, driver: String, key: &str, value: &str) -> Result<(), LineError> {
        let takes = "unload, unbind, leave or firmware-reboot";
        let policy = Policy::from_word(value);
        let policy =
            policy.ok_or_else(|| LineError::BadValue { key: key.to_owned(), value: shown(value), takes })?;
        if policy == Policy::Unbind && is_nvidia(&driver) {
            return Err(LineError::Nvidia(driver));
        }
        if self.gpu.len() == limits::GPU_POLICIES_MAX {
            return Err(LineError::TooMany { key: "gpu", most: limits::GPU_POLICIES_MAX });
        }
        self.gpu.push((driver, policy));
        Ok(())
    }
}

impl fmt::Display for UnbindTarget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (UnbindTarget::Address(name) | UnbindTarget::Driver(name)) = self;
        out.write_str(name)
    }
}

impl UnbindTarget {
    fn parse(name: &str) -> Option<UnbindTarget> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
        let fits = !name.starts_with('.') && name.len() <= limits::MODULE_NAME_MAX;
        match name.to_ascii_lowercase() {
            address if is_pci_address(&address) => Some(UnbindTarget::Address(address)),
            _ => (fits && name.bytes().all(plain)).then(|| UnbindTarget::Driver(name.to_owned())),
        }
    }
}

/// Reads `yes` or `no`.
#[must_use]
pub fn yes_or_no(word: &str) -> Option<bool> {
    match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Reads a number of seconds for `panic=`. 0 is refused because it would mean never to restart.
#[must_use]
pub fn panic_seconds(word: &str) -> Option<u16> {
    match Watchdog::from_word(word) {
        Some(Watchdog::Seconds(seconds)) => Some(seconds),
        _ => None,
    }
}

/// Returns a module's name as the kernel has it. modprobe(8) accepts '-' in place of '_', and people write
/// either.
#[must_use]
pub fn as_module(name: &str) -> String {
    name.replace('-', "_")
}

/// Adds an item to a list, unless it is there already or the list is full.
fn add<T: PartialEq>(
    to: &mut Vec<T>,
    item: T,
    name: &str,
    key: &'static str,
    most: usize,
) -> Result<(), LineError> {
    if to.contains(&item) {
        return Err(LineError::Twice(shown(name)));
    }
    if to.len() == most {
        return Err(LineError::TooMany { key, most });
    }
    to.push(item);
    Ok(())
}

fn shown(text: &str) -> String {
    quoted(text, SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::fs;

    fn invalid(text: &str) -> (usize, String) {
        let invalid = Conf::parse(text.as_bytes()).unwrap_err();
        (invalid.line, invalid.error.to_string())
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        let scratch = Scratch::new();
        assert_eq!(Conf::read(&scratch.root).unwrap(), Conf::default());
        fs::create_dir_all(scratch.root.path("/etc")).unwrap();
        fs::write(scratch.root.path(PATH), "guard = 4").unwrap();
        let error = Conf::read(&scratch.root).unwrap_err().to_string();
        assert!(
            error.starts_with("/etc/nextkernel.conf, line 1: guard = '4' cannot be; it takes"),
            "{error}"
        );
        fs::write(scratch.root.path(PATH), "#".repeat(64 * 1024 + 1)).unwrap();
        assert!(matches!(Conf::read(&scratch.root), Err(Error::TooLarge)));
    }

    #[test]
    fn every_key_is_read_and_comments_and_white_space_are_not() {
        let text = "\
# all of it
gpu = leave   # every driver without its own line
gpu.nvidia-drm=firmware-reboot
\tgpu.amdgpu\t=  unbind\r
gpu-failed = jump
modules = efi-pstore  mei_me

unbind = xhci_hcd 0000:3B:00.0
guard = 600
watchdog = off
jump = init
offline-cpus = yes
firmware-requests = ignore
handoff-failed = 2
boot-loader = grub
panic = 30
acpi-rsdp = yes
loader = direct
thaw = yes
preload = only
stage-on-update = reboot";
        let conf = Conf::parse(text.as_bytes()).unwrap();
        let gpu = |driver: &str, policy| (driver.to_owned(), policy);
        assert_eq!(
            conf,
            Conf {
                gpu: vec![
                    gpu("*", Policy::Leave),
                    gpu("nvidia_drm", Policy::FirmwareReboot),
                    gpu("amdgpu", Policy::Unbind)
                ],
                gpu_failed: Some(GpuFailed::Jump),
                modules: vec!["efi_pstore".to_owned(), "mei_me".to_owned()],
                unbind: vec![
                    UnbindTarget::Driver("xhci_hcd".to_owned()),
                    UnbindTarget::Address("0000:3b:00.0".to_owned())
                ],
                guard: Some(600),
                watchdog: Some(Watchdog::Off),
                jump: Some(Jump::Init),
                boot_loader: Some(BootLoader::Grub),
                panic: Some(30),
                acpi_rsdp: true,
                loader: Some(SyscallChoice::Direct),
                offline_cpus: true,
                firmware_requests: FirmwareRequests::Ignore,
                handoff_failed: Some(2),
                thaw: true,
                preload: PreloadChoice::Only,
                stage_on_update: OnUpdate::Reboot,
            }
        );
    }

    /// Returns key and value of each line that would set something without its '#'.
    fn examples() -> Vec<(&'static str, &'static str)> {
        let lines = include_str!("../../../../docs/nextkernel.conf").lines();
        lines
            .filter(|line| !line.starts_with("# "))
            .filter_map(|line| line.strip_prefix('#')?.split_once(" ="))
            .collect()
    }

    #[test]
    fn the_documented_file_says_nothing_and_shows_every_key() {
        let file = include_str!("../../../../docs/nextkernel.conf");
        assert_eq!(Conf::parse(file.as_bytes()), Ok(Conf::default()));
        let mut keys: Vec<_> =
            examples().iter().map(|(key, _)| key.split('.').next().unwrap_or(key)).collect();
        keys.dedup();
        assert_eq!(
            keys,
            [
                "gpu",
                "gpu-failed",
                "modules",
                "unbind",
                "guard",
                "watchdog",
                "jump",
                "offline-cpus",
                "firmware-requests",
                "handoff-failed",
                "panic",
                "acpi-rsdp",
                "boot-loader",
                "loader",
                "thaw",
                "preload",
                "stage-on-update"
            ]
        );
        for (key, value) in examples() {
            assert!(Conf::parse(format!("{key} ={value}").as_bytes()).is_ok(), "{key} ={value}");
        }
    }

    #[test]
    fn the_documented_policy_of_every_driver_is_the_one_that_holds() {
        for family in nextkernel_hook::scene::families::FAMILIES {
            for module in family.modules {
                let key = format!("gpu.{module}");
                let documented = examples().into_iter().find(|(example, _)| *example == key);
                let policy = documented.and_then(|(_, value)| Policy::from_word(value.trim()));
                assert_eq!(policy, Some(family.policy), "{key}");
            }
        }
        let guard = examples().into_iter().find(|(key, _)| *key == "guard");
        let seconds = guard.and_then(|(_, value)| guard_seconds(value.trim()));
        assert_eq!(seconds, Some(nextkernel_hook::sys::limits::GUARD));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_to_do() {
        for (text, line, says) in [
            ("\n\ngpus = leave", 3, "there is no key 'gpus'; the keys are gpu, gpu.DRIVER"),
            ("gpu. = leave", 1, "there is no key 'gpu.'"),
            ("gpu.a/b = leave", 1, "there is no key 'gpu.a/b'"),
            ("guard", 1, "'guard' has no '='"),
            ("= 1", 1, "there is no key ''"),
            ("panic=1\npanic=1", 2, "'panic' stands there a second time"),
            ("gpu.nvidia_drm=leave\ngpu.nvidia-drm=leave", 2, "'gpu.nvidia-drm' stands there a second time"),
            ("gpu = unlaod", 1, "gpu = 'unlaod' cannot be; it takes unload, unbind, leave"),
            ("gpu-failed = panic", 1, "it takes jump or firmware-reboot"),
            ("watchdog = on", 1, "it takes off, or a number of seconds"),
            ("panic = 0", 1, "it takes a number of seconds"),
            ("jump = kernel", 1, "it takes hook or init"),
            ("acpi-rsdp = 0x1", 1, "it takes yes or no"),
            ("loader = fast", 1, "it takes auto, verified or direct"),
            ("offline-cpus = 3", 1, "it takes yes or no"),
            ("handoff-failed = 0", 1, "it takes a number of handoffs, 1 to 99"),
            ("firmware-requests = no", 1, "it takes honour or ignore"),
            ("thaw = kernel", 1, "it takes yes or no"),
            ("preload = again", 1, "it takes yes, no or only"),
            ("stage-on-update = yes", 1, "it takes no, kexec or reboot"),
            ("modules = a/b", 1, "names of modules"),
            ("modules = a b a", 1, "'a' stands there a second time"),
            ("unbind = ../nvme", 1, "PCI addresses"),
            ("gpu.nvidia-drm = unbind", 1, "waits for ever"),
            ("unbind = nvidia", 1, "waits for ever"),
            ("guard = \u{1b}[2J", 1, "not plain text"),
            ("guard = \u{202e}", 1, "guard = '\\u{202e}' cannot be"),
        ] {
            let (at, why) = invalid(text);
            assert!(at == line && why.contains(says), "{text:?}: line {at}: {why}");
        }
        assert_eq!(Conf::parse(b"\n\xff").unwrap_err(), InvalidLine { line: 2, error: LineError::NotText });
        let seventeen = "a b c d e f g h i j k l m n o p q";
        assert!(invalid(&format!("modules = {seventeen}")).1.contains("more than 16"));
    }
}
