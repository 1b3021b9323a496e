//! What the running systemd makes of a loaded image, and how it writes names.

use std::process::Command;

/// The first version in which `systemctl reboot` becomes kexec while an image is loaded (255 NEWS). The
/// commands `reboot` and `shutdown -r` have always done so (`kexec_loaded`, src/systemctl).
const REBOOT_BECOMES_KEXEC: u32 = 255;

/// The first version that loads the boot loader's default entry itself where nothing is loaded (261 NEWS).
const LOADS_BY_ITSELF: u32 = 261;

/// Whether `systemctl kexec` may load something itself.
#[must_use]
pub fn loads_by_itself(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= LOADS_BY_ITSELF)
}

/// The first version that hands file descriptors on to the next kernel (261 NEWS).
const HANDS_DESCRIPTORS_ON: u32 = 261;

/// Whether what it keeps for services outlives a kexec that it makes itself.
#[must_use]
pub fn hands_descriptors_on(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= HANDS_DESCRIPTORS_ON)
}

/// The version of the running systemd; `None` where there is no `systemctl`.
#[must_use]
pub fn version() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Whether a plain `reboot` becomes kexec while an image is loaded.
#[must_use]
pub fn reboot_becomes_kexec(version: Option<u32>) -> bool {
    version.is_some_and(|version| version >= REBOOT_BECOMES_KEXEC)
}

/// An entry's name out of a unit's instance name: `\xNN` is the byte with that number (systemd-escape(1));
/// `systemctl enable` writes `+` so, which Debian's versions have. A `-` stays: no entry holds a `/`.
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
    fn an_instance_names_the_entry_it_was_made_from() {
        assert_eq!(unescape("6.12.57\\x2bdeb13-amd64"), "6.12.57+deb13-amd64");
        assert_eq!(unescape("6.12\\x2damd64"), "6.12-amd64");
        for plain in ["linux-lts", "", "a\\x", "a\\xz1", "a\\x00", "\\x2"] {
            assert_eq!(unescape(plain), plain);
        }
    }
}
