//! The hardware watchdogs of this machine, and how far each covers a kexec.

use std::fs;

use crate::machine::root::Root;

const CLASS: &str = "/sys/class/watchdog";

/// Identities of drivers that ask the kernel to stop them at every restart (`watchdog_stop_on_reboot` in
/// i6300esb, `iTCO_wdt`, `sp5100_tco` and `wdat_wdt`, drivers/watchdog). sysfs does not show this, and not
/// all of these drivers name their device there.
const STOPPED_AT_RESTARTS: [&str; 4] = ["i6300ESB timer", "iTCO_wdt", "SP5100 TCO timer", "wdat_wdt"];

/// The identity of the software watchdog (drivers/watchdog/softdog.c).
const SOFTWARE: &str = "Software Watchdog";

/// A watchdog (Documentation/ABI/testing/sysfs-class-watchdog).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// The name of its device node in /dev.
    pub name: String,
    /// The name that its driver gives it.
    pub identity: String,
    /// Whether it is armed; `None` if the kernel does not report it (`CONFIG_WATCHDOG_SYSFS`).
    pub active: Option<bool>,
    /// Seconds until it resets the machine.
    pub timeout: Option<u32>,
    /// The longest timeout that it accepts, in seconds; `None` if it is unknown, or if the kernel makes
    /// longer ones possible.
    pub max_timeout: Option<u32>,
    /// Whether it cannot be stopped once it is armed.
    pub nowayout: bool,
}

/// How the running kernel treats watchdogs at a restart (`stop_on_reboot`,
/// `drivers/watchdog/watchdog_core.c`; since Linux 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtRestart {
    /// They keep counting.
    GoOn,
    /// They are stopped.
    Stopped,
    /// Each driver decides.
    AsTheDriverAsks,
}

/// Returns all watchdogs, sorted by name.
#[must_use]
pub fn find(root: &Root) -> Vec<Watchdog> {
    let entries = fs::read_dir(root.path(CLASS)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().map(|name| Watchdog::of(root, name)).collect()
}

/// Returns how the running kernel was set to treat watchdogs at a restart.
#[must_use]
pub fn at_restart(root: &Root) -> AtRestart {
    match root.fact("/sys/module/watchdog/parameters/stop_on_reboot").as_deref() {
        Some("0") => AtRestart::GoOn,
        None | Some("-1") => AtRestart::AsTheDriverAsks,
        Some(_) => AtRestart::Stopped,
    }
}

impl Watchdog {
    fn of(root: &Root, name: String) -> Watchdog {
        let fact = |file: &str| root.fact(&format!("{CLASS}/{name}/{file}"));
        Watchdog {
            identity: fact("identity").unwrap_or_default(),
            active: fact("state").map(|state| state == "active"),
            timeout: fact("timeout").and_then(|seconds| seconds.parse().ok()),
            max_timeout: fact("max_timeout")
                .and_then(|seconds| seconds.parse().ok())
                .filter(|most| *most > 0),
            nowayout: fact("nowayout").as_deref() == Some("1"),
            name,
        }
    }

    /// Describes the watchdog and its state for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        let state = match self.active {
            Some(true) => "armed",
            Some(false) => "not armed",
            None => "armed or not",
        };
        let timeout = self.timeout.map_or(String::new(), |seconds| format!(", {seconds} s"));
        let nowayout = if self.nowayout { ", cannot be stopped once armed (nowayout)" } else { "" };
        format!("{}, {state}{timeout}{nowayout}", self.identity)
    }

    /// Whether it keeps counting across a kexec, as far as this can be known.
    #[must_use]
    pub fn outlives_a_kexec(&self, at_restart: AtRestart) -> bool {
        at_restart == AtRestart::GoOn && self.identity != SOFTWARE
    }

    /// Describes for a person how far it covers a kexec.
    #[must_use]
    pub fn cover(&self, at_restart: AtRestart) -> String {
        let known = STOPPED_AT_RESTARTS.contains(&self.identity.as_str());
        let reaches = "it covers from the jump until the next kernel's probe of the driver, which disarms it or takes it over";
        match at_restart {
            _ if self.identity == SOFTWARE => {
                "it is a timer of this kernel, ends with it, and covers nothing behind the jump".to_owned()
            }
            AtRestart::GoOn => {
                format!("the running kernel was started with watchdog.stop_on_reboot=0: armed, {reaches}")
            }
            AtRestart::AsTheDriverAsks if !known => format!(
                "a driver may ask to be stopped at every restart, kexec included, and many do: only where the running \
                 kernel was started with watchdog.stop_on_reboot=0 is it sure that, armed, {reaches}"
            ),
            AtRestart::AsTheDriverAsks | AtRestart::Stopped => format!(
                "it is stopped at every restart, kexec included, and covers nothing behind the jump; where the \
                 running kernel was started with watchdog.stop_on_reboot=0, {reaches}"
            ),
        }
    }
}
