use core::fmt;

use crate::image::number;
use crate::limits;

/// The treatment of a GPU driver before the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The module is unloaded: the driver quiets the device as thoroughly as it can.
    Unload,
    /// The devices are unbound from the driver; for drivers that are built in, or are pinned.
    Unbind,
    /// The driver is left to the kernel's own device shutdown.
    Leave,
    /// There is no jump while the driver is loaded: the machine does a full reboot.
    FirmwareReboot,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 4] = [Policy::Unload, Policy::Unbind, Policy::Leave, Policy::FirmwareReboot];

    /// Returns the word for the policy in the plan and in nextkernel.conf.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Policy::Unload => "unload",
            Policy::Unbind => "unbind",
            Policy::Leave => "leave",
            Policy::FirmwareReboot => "firmware-reboot",
        }
    }

    /// Returns the policy for a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// An administrator's policy for one driver: `DRIVER POLICY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuPolicy<'a> {
    /// The driver's module, as /proc/modules names it: with '_'. [`GpuPolicy::EVERY`] means every driver
    /// without a line of its own.
    pub driver: &'a str,
    /// The policy for this driver.
    pub policy: Policy,
}

impl<'a> GpuPolicy<'a> {
    /// Means every driver without a line of its own.
    pub const EVERY: &'static str = "*";

    pub(crate) fn parse(text: &'a str) -> Option<GpuPolicy<'a>> {
        let (driver, policy) = text.split_once(' ')?;
        let driver = Some(driver).filter(|driver| *driver == Self::EVERY || is_module(driver))?;
        let policy = Policy::from_word(policy)?;
        // A busy NVIDIA GPU hangs for ever when it is unbound, with the lock of its device held.
        (policy != Policy::Unbind || !is_nvidia(driver)).then_some(GpuPolicy { driver, policy })
    }
}

impl fmt::Display for GpuPolicy<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.driver, self.policy)
    }
}

/// The action if the driver of a GPU could not be unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuFailed {
    /// The hook jumps all the same.
    Jump,
    /// The machine does a full reboot instead.
    FirmwareReboot,
}

impl GpuFailed {
    /// Returns the word for the action in the plan and in nextkernel.conf.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            GpuFailed::Jump => "jump",
            GpuFailed::FirmwareReboot => "firmware-reboot",
        }
    }

    /// Returns the action for a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<GpuFailed> {
        [GpuFailed::Jump, GpuFailed::FirmwareReboot].into_iter().find(|failed| failed.word() == word)
    }
}

impl fmt::Display for GpuFailed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// The setting of the hardware watchdog before the jump, if an administrator has made one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// It is stopped, even if the init has armed it.
    Off,
    /// It is armed, and resets the machine after this many seconds if nothing serves it.
    Seconds(u16),
}

impl Watchdog {
    /// Reads `off` or a number of seconds from 1 to 65535. Most devices cannot count that far.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Watchdog> {
        match word {
            "off" => Some(Watchdog::Off),
            _ => seconds(word).filter(|seconds| *seconds > 0).map(Watchdog::Seconds),
        }
    }
}

impl fmt::Display for Watchdog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Watchdog::Off => out.write_str("off"),
            Watchdog::Seconds(seconds) => write!(out, "{seconds}"),
        }
    }
}

/// Reads the guard's deadline: at least [`limits::GUARD_MIN`] seconds, so that a mistyped number does not
/// reset the machine in mid-jump, and at most 65535.
#[must_use]
pub fn guard_seconds(word: &str) -> Option<u16> {
    seconds(word).filter(|seconds| *seconds >= limits::GUARD_MIN)
}

/// Whether this can be the name of a module as the kernel knows it (`MODULE_NAME_LEN`,
/// include/linux/module.h): never with a '-', because `delete_module(2)` does not find such a name.
#[must_use]
pub fn is_module(name: &str) -> bool {
    (1..=limits::MODULE_NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether this can be the address of a PCI device as sysfs writes it: `0000:3b:00.0`. A domain may have more
/// than four digits (VMD's have five).
#[must_use]
pub fn is_pci_address(name: &str) -> bool {
    let hex = |digits: &str, count: core::ops::RangeInclusive<usize>| {
        count.contains(&digits.len()) && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = name.split([':', '.']);
    let fits =
        [4..=8, 2..=2, 2..=2, 1..=1].into_iter().all(|count| parts.next().is_some_and(|p| hex(p, count)));
    let separators = name.bytes().filter(|byte| !byte.is_ascii_hexdigit());
    fits && parts.next().is_none() && separators.eq(*b"::.")
}

/// Whether a module, or a driver as its bus names it (`nvidia-nvswitch`), is NVIDIA's own, open or
/// proprietary.
#[must_use]
pub fn is_nvidia(name: &str) -> bool {
    name == "nvidia" || name.starts_with("nvidia_") || name.starts_with("nvidia-")
}

fn seconds(word: &str) -> Option<u16> {
    number(word).and_then(|seconds| u16::try_from(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nvidia_gpu_is_never_unbound() {
        for driver in ["nvidia", "nvidia_drm"] {
            for policy in Policy::ALL {
                let line = format!("{driver} {policy}");
                assert_eq!(GpuPolicy::parse(&line).is_some(), policy != Policy::Unbind, "{line}");
            }
        }
        assert!(is_nvidia("nvidia-nvswitch") && !is_nvidia("i2c_nvidia_gpu"));
        assert!(GpuPolicy::parse("nvidiafb unbind").is_some());
        assert!(GpuPolicy::parse("* unbind").is_some());
    }

    #[test]
    fn a_module_is_named_as_the_kernel_names_it() {
        assert!(is_module("nvidia_drm") && is_module("8021q") && is_module(&"m".repeat(55)));
        for bad in ["", "nvidia-drm", "a b", "a/b", "é", &"m".repeat(56)] {
            assert!(!is_module(bad), "{bad}");
        }
    }

    #[test]
    fn a_pci_address_is_written_as_sysfs_writes_it() {
        assert!(is_pci_address("0000:3b:00.0") && is_pci_address("10000:e1:00.0"));
        for bad in
            ["", "3b:00.0", "0000:3B:00.0", "0000:3b:00", "0000.3b.00:0", "0000:3b:00.0/", "0000:3b:00.00"]
        {
            assert!(!is_pci_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_deadline_is_a_number_of_seconds_within_its_limits() {
        assert_eq!(guard_seconds("300"), Some(300));
        assert_eq!(guard_seconds("4"), None);
        assert_eq!(Watchdog::from_word("off"), Some(Watchdog::Off));
        assert_eq!(Watchdog::from_word("60"), Some(Watchdog::Seconds(60)));
        for bad in ["", "0", "-1", "65536", "1m", "on", "07"] {
            assert_eq!(Watchdog::from_word(bad), None, "{bad}");
            assert_eq!(guard_seconds(bad), None, "{bad}");
        }
    }
}
