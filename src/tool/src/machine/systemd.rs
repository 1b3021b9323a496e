//! The running systemd: its version and how that version treats a loaded image, its progress at boot and at
//! shutdown, and its escaped unit names.

use std::process::Command;

/// The first version in which `systemctl reboot` becomes kexec if an image is loaded (255 NEWS). The commands
/// `reboot` and `shutdown -r` have always done so (`kexec_loaded`, src/systemctl).
const REBOOT_BECOMES_KEXEC: u32 = 255;

/// The first version that itself loads the boot loader's default entry if no image is loaded (261 NEWS).
const LOADS_BY_ITSELF: u32 = 261;

/// Whether `systemctl kexec` may load a kernel itself.
#[must_use]
pub fn loads_by_itself(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= LOADS_BY_ITSELF)
}

/// The first version that hands file descriptors on to the next kernel (261 NEWS).
const HANDS_DESCRIPTORS_ON: u32 = 261;

/// Whether the file descriptors that systemd keeps for services survive a kexec that systemd itself carries
/// out.
#[must_use]
pub fn hands_descriptors_on(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= HANDS_DESCRIPTORS_ON)
}

/// Returns the version of the running systemd; `None` if there is no `systemctl`.
#[must_use]
pub fn version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Whether a plain `reboot` becomes kexec if an image is loaded.
#[must_use]
pub fn reboot_becomes_kexec(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= REBOOT_BECOMES_KEXEC)
}

/// Decodes an entry's name from a unit's instance name, in which `\xNN` is the byte with that number
/// (systemd-escape(1)). `systemctl enable` escapes the `+` of Debian's versions that way. A `-` is kept,
/// because no entry's name contains the `/` that `-` would stand for.
pub fn unescape(instance: &str) -> String {
    let mut parts = instance.split("\\x");
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(u8::is_ascii_graphic) {
            name.push(char::from(byte));
            name.push_str(part.get(2..).unwrap_or_default());
        } else {
            name.push_str("\\x");
            name.push_str(part);
        }
    }
    name
}

/// The times at which the running system reached a stage, in milliseconds since the kernel started; `None` if
/// unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// systemd started in the initrd, if it is the initrd's init.
    pub initrd: Option<u64>,
    /// systemd started on the root file system.
    pub userspace: Option<u64>,
    /// The default target was reached.
    pub target: Option<u64>,
}

/// Asks systemd for these times (org.freedesktop.systemd1(5)).
#[must_use]
pub fn reached() -> Reached {
    let manager = show(&["--property=InitRDTimestampMonotonic,UserspaceTimestampMonotonic"]);
    let target = show(&["--property=ActiveEnterTimestampMonotonic", "default.target"]);
    Reached::parse(&manager, &target)
}

impl Reached {
    /// Parses the output of `systemctl show`: microseconds, and 0 for never.
    fn parse(manager: &str, target: &str) -> Reached {
        let of = |text: &str, key| {
            let microseconds = value(text, key)?.parse::<u64>().ok().filter(|it| *it > 0)?;
            Some(microseconds / 1000)
        };
        Reached {
            initrd: of(manager, "InitRDTimestampMonotonic"),
            userspace: of(manager, "UserspaceTimestampMonotonic"),
            target: of(target, "ActiveEnterTimestampMonotonic"),
        }
    }
}

/// The targets that end the running system.
const WAYS_DOWN: [&str; 4] = ["kexec.target", "reboot.target", "poweroff.target", "halt.target"];

/// Returns the target that the system is going down to; `None` if it is not going down.
#[must_use]
pub fn going_down_to() -> Option<&'static str> {
    let mut words = vec!["--property=Id,Job"];
    words.extend(WAYS_DOWN);
    going_down(&show(&words))
}

/// Finds the target that has a job, which means that it is to be started.
fn going_down(shown: &str) -> Option<&'static str> {
    let busy = |unit: &&str| value(unit, "Job").is_some_and(|job| !job.is_empty() && job != "0");
    let target = shown.split("\n\n").find(busy).and_then(|unit| value(unit, "Id"))?;
    WAYS_DOWN.into_iter().find(|way| *way == target)
}

/// Returns the output of `systemctl show`; empty if it cannot be run.
fn show(words: &[&str]) -> String {
    let output = Command::new("systemctl").arg("show").args(words).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

fn parse(output: &str) -> Option<u32> {
    let number = output.strip_prefix("systemd ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_the_distributions_write_it() {
        assert_eq!(parse("systemd 257 (257.8-1~deb13u2)\n+PAM"), Some(257));
        assert_eq!(parse("systemd 252 (252.39-1~deb12u1)"), Some(252));
        assert_eq!(parse("systemd 262~devel (262)"), Some(262));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_was_never_reached_is_not_there() {
        let manager = "InitRDTimestampMonotonic=0\nUserspaceTimestampMonotonic=3456789\n";
        let reached = Reached::parse(manager, "ActiveEnterTimestampMonotonic=0\n");
        assert_eq!(reached, Reached { userspace: Some(3456), ..Reached::default() });
        assert_eq!(Reached::parse("", "ActiveEnterTimestampMonotonic=-5"), Reached::default());
    }

    #[test]
    fn the_way_down_is_the_target_that_has_a_job() {
        let idle = "Id=kexec.target\n\nId=reboot.target\n\nId=poweroff.target\nJob=0\n";
        assert_eq!(going_down(idle), None);
        assert_eq!(
            going_down(&idle.replace("reboot.target\n", "reboot.target\nJob=812\n")),
            Some("reboot.target")
        );
        assert_eq!(going_down("Id=other.target\nJob=1\n"), None);
        assert_eq!(going_down(""), None);
    }

    #[test]
    fn an_instance_names_the_entry_it_was_made_from() {
        assert_eq!(unescape("6.12.57\\x2bdeb13-amd64"), "6.12.57+deb13-amd64");
        assert_eq!(unescape("6.12\\x2damd64"), "6.12-amd64");
        for plain in ["linux-lts", "", "a\\x", "a\\xz1", "a\\x00", "\\x2"] {
            assert_eq!(unescape(plain), plain);
        }
    }
}
