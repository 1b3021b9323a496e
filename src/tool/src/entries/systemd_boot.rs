//! The entry that systemd-boot would boot next (systemd-boot(7), "EFI Variables"; loader.conf(5)).

use std::io;

use super::bls;
use super::partition::{self, Kind, Partition};
use crate::entries::default::ByDefault;
use crate::entries::entry::Error;
use crate::entries::found::Found;
use crate::entries::tries;
use crate::machine::attach::{self, Attached};
use crate::machine::efi;
use crate::machine::root::Root;
use crate::request::once::{Once, VARIABLE};
use crate::words::errno::InWords;

/// A bit of `LoaderFeatures`: systemd-boot knows `LoaderEntryPreferred` (Boot Loader Interface).
const PREFERRED: u64 = 1 << 19;

/// The first version that leaves the counters out of an entry's name (systemd's pull request 38897). The stable
/// versions have that change, too: 257.13 leaves them out.
const WITHOUT_COUNTERS: (u32, u32) = (257, 10);

/// The version that was current when that change came, so that its builds differ.
const UNSURE: (u32, u32) = (258, 0);

/// The first version in which the names of entries end in `.conf` or `.efi` (systemd's issue 15068).
const WITH_ENDINGS: (u32, u32) = (245, 0);

/// A word in the version of the systemd-boot of `Pop!_OS`, whose patterns also match a name without its ending
/// (pop-os/systemd, debian/patches/systemd-boot-id-compat.patch).
const POP: &str = "pop";

/// The first version that knows profiles of unified kernel images (systemd's NEWS).
const WITH_PROFILES: (u32, u32) = (257, 0);

/// systemd-boot, in charge of this machine, and its settings.
#[derive(Debug, Default)]
pub struct Loader {
    /// Its own name and version (`LoaderInfo`).
    pub info: String,
    /// Whether the names that it gives entries include the counters.
    pub with_counters: bool,
    /// Whether it shows the profiles of an image.
    pub with_profiles: bool,
    endings: Endings,
    /// Entries that it found itself at the last boot, which are not Linux.
    own: Vec<String>,
    knows_preferred: bool,
    /// The partition that it was started from.
    partition: Option<String>,
    one_shot: Option<String>,
    preferred: Option<String>,
    default: Option<String>,
    last_booted: Option<String>,
}

/// The treatment of endings when a pattern is compared with an entry's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Endings {
    /// A pattern has to match the ending, too.
    #[default]
    Count,
    /// A pattern may leave the ending out.
    MayBeLeftOut,
    /// Names have no endings.
    AreLeftOut,
}

/// The settings of loader.conf that choose the entry. If a key occurs twice, the last one counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conf {
    preferred: Option<String>,
    default: Option<String>,
}

impl Loader {
    /// Reads the firmware's variables. Returns `None` if another boot loader started this machine, or no known
    /// one.
    pub fn find(root: &Root) -> Result<Option<Loader>, efi::Error> {
        let Some(info) = efi::text(root, "LoaderInfo")?.filter(|info| info.starts_with("systemd-boot"))
        else {
            return Ok(None);
        };
        let version = version(&info);
        // Builds of this version do either, and the version may be one that cannot be read (0). The names that
        // it gave at the last boot show which.
        let stem = |name: &String| name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned());
        let names = efi::texts(root, "LoaderEntries")?;
        let counted = names.iter().any(|name| tries::Tries::parse(&stem(name)).1.is_some());
        let with_counters =
            if version == UNSURE || version.0 == 0 { counted } else { version < WITHOUT_COUNTERS };
        let text = |name: &str| Ok(efi::text(root, name)?.map(|text| text.to_ascii_lowercase()));
        Ok(Some(Loader {
            own: names
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .filter(|name| name.starts_with("auto-"))
                .collect(),
            with_counters,
            with_profiles: version >= WITH_PROFILES,
            endings: match version {
                _ if info.contains(POP) => Endings::MayBeLeftOut,
                // A version that cannot be read (0) is taken for a new one.
                (1.., _) if version < WITH_ENDINGS => Endings::AreLeftOut,
                _ => Endings::Count,
            },
            knows_preferred: efi::flags(root, "LoaderFeatures")? & PREFERRED != 0,
            partition: text("LoaderDevicePartUUID")?,
            one_shot: text(VARIABLE)?,
            preferred: text("LoaderEntryPreferred")?,
            default: text("LoaderEntryDefault")?,
            last_booted: text("LoaderEntryLastBooted")?,
            info,
        }))
    }

    /// Mounts the partition that systemd-boot was started from, and the extended one beside it, if they are not
    /// mounted. Without the extended one the next entry cannot be known, so failing to mount it is an error. A
    /// missing first one is noticed later anyway.
    pub fn attach(&self, root: &Root, attached: &mut Attached) -> Result<(), attach::Error> {
        let found = partition::find(root, &mut Vec::new());
        let is_mounted = |uuid: &String| found.iter().any(|partition| partition.uuid.as_ref() == Some(uuid));
        let Some(esp) = &self.partition else { return Ok(()) };
        if self.esp(&found).is_err() {
            let _ = attached.partition(esp).map_err(|error| attached.notes.push(error.to_string()));
        }
        match self.extended(root).filter(|extended| !is_mounted(extended)) {
            Some(extended) => attached.partition(&extended),
            None => Ok(()),
        }
    }

    /// Returns the extended partition on the disk that systemd-boot was started from. It looks at no other
    /// disk.
    fn extended(&self, root: &Root) -> Option<String> {
        attach::sibling(root, self.partition.as_ref()?, partition::XBOOTLDR)
    }

    /// Returns whether systemd-boot reads a partition's entries.
    #[must_use]
    pub fn reads(&self, root: &Root, partitions: &[Partition], partition: &Partition) -> bool {
        let Ok(esp) = self.esp(partitions) else { return true };
        let is_extended = match &partition.uuid {
            Some(uuid) => self.extended(root).as_ref() == Some(uuid),
            // If udev knows no identity, the only extended partition is taken.
            None => partition.kind == Kind::Xbootldr,
        };
        esp == partition || is_extended
    }

    /// Returns the partition that systemd-boot was started from, which holds its configuration.
    pub fn esp<'a>(&self, partitions: &'a [Partition]) -> Result<&'a Partition, Error> {
        let esps = || partitions.iter().filter(|partition| partition.kind == Kind::Esp);
        let is_it = |partition: &&Partition| self.partition.is_some() && partition.uuid == self.partition;
        let named = partitions.iter().find(is_it);
        // If udev knows no identity, or systemd-boot has named no partition, the only ESP is taken.
        let only = esps().next().filter(|esp| esp.uuid.is_none() || self.partition.is_none());
        let not_mounted = || Error::EspNotMounted(self.partition.clone().unwrap_or_default());
        named.or(only.filter(|_| esps().count() == 1)).ok_or_else(not_mounted)
    }

    /// Returns the entry that systemd-boot would boot if the machine rebooted now. `order` has the entries in
    /// its order. A setting that matches no entry is noted.
    pub fn choose(&self, conf: &Conf, order: &[Found], notes: &mut Vec<String>) -> Result<ByDefault, Error> {
        let saved = |told: &Option<String>| match told.as_deref() {
            Some("@saved") => self.last_booted.clone(),
            told => told.map(str::to_owned),
        };
        let preferred = |told: &Option<String>| saved(told).filter(|_| self.knows_preferred);
        // A preferred setting passes a bad entry over, a default does not (Boot Loader Interface).
        let told = [
            (VARIABLE, self.one_shot.clone(), false),
            ("LoaderEntryPreferred", preferred(&self.preferred), true),
            ("'preferred' in loader.conf", preferred(&conf.preferred), true),
            ("LoaderEntryDefault", saved(&self.default), false),
            ("'default' in loader.conf", saved(&conf.default), false),
        ];
        for (why, pattern, not_bad) in told {
            let Some(pattern) = pattern else { continue };
            if let Some(unsure) = order.iter().find(|found| found.unsure && self.fits(&pattern, found)) {
                return Err(unsure.entry.reason.clone().unwrap_or(Error::NoEntry));
            }
            let mut offered = order.iter().filter(|found| found.offered && !(not_bad && found.is_bad()));
            match offered.find(|found| self.fits(&pattern, found)) {
                Some(Found { entry, .. }) => {
                    let once = (why == VARIABLE).then(|| Once::Efi(pattern.clone()));
                    return Ok(ByDefault { entry: entry.clone(), why, once });
                }
                // Entries that systemd-boot finds itself come after all others, and are not Linux.
                None if self.own.iter().any(|own| fits(&pattern, own)) || pattern.starts_with("auto-") => {
                    return Err(Error::NoLinux { told: why, pattern });
                }
                None => {
                    notes.push(format!(
                        "{why} says {pattern:?}, which fits no entry: systemd-boot passes it over"
                    ));
                }
            }
        }
        // "For now, never select any non-default profile" (src/boot/boot.c).
        if let Some(unsure) = order.iter().find(|found| found.unsure) {
            return Err(unsure.entry.reason.clone().unwrap_or(Error::NoEntry));
        }
        let first = order.iter().find(|found| found.offered && found.number == 0).ok_or(Error::NoEntry)?;
        Ok(ByDefault::always(&first.entry, "the first in systemd-boot's order"))
    }
}

impl Loader {
    fn fits(&self, pattern: &str, found: &Found) -> bool {
        let id = found.id(self.with_counters);
        let stem = bls::stem(&id);
        match self.endings {
            Endings::Count => fits(pattern, &id),
            Endings::MayBeLeftOut => fits(pattern, &id) || fits(pattern, stem),
            Endings::AreLeftOut => fits(pattern, stem),
        }
    }
}

/// Parses the version in systemd-boot's own name, for example `systemd-boot 257.13-1~deb13u1`.
fn version(info: &str) -> (u32, u32) {
    let mut numbers = info.trim_start_matches(|c: char| !c.is_ascii_digit()).splitn(2, '.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Conf {
    /// Reads loader.conf on the ESP. Without that file nothing is set.
    pub fn read(root: &Root, esp: &Partition) -> Result<Conf, Error> {
        let path = esp.point.join("loader/loader.conf");
        match bls::text(root, &path) {
            Ok(text) => Ok(Conf::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Conf::default()),
            Err(error) => Err(Error::Unreadable { path, why: InWords(&error).to_string() }),
        }
    }

    /// Parses the text of loader.conf. Total: accepts any bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Conf {
        let mut conf = Conf::default();
        for (key, value) in bls::lines(&String::from_utf8_lossy(bytes)) {
            let value = value.to_ascii_lowercase();
            // Other values with an @ are reserved, and have no meaning yet.
            let means = !value.is_empty() && (!value.starts_with('@') || value == "@saved");
            match key {
                "preferred" if means => conf.preferred = Some(value),
                "default" if means => conf.default = Some(value),
                _ => {}
            }
        }
        conf
    }
}

/// Returns whether a pattern matches a name. A pattern has `?`, `*` and `[...]` with ranges; `\` comes before a
/// literal character (loader.conf(5), "default").
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    let (mut pattern, mut name) = (pattern.as_slice(), name.as_slice());
    // The pattern behind the last star, and the part of the name where it was tried. After a mismatch the star
    // takes one more character.
    let mut again: Option<(&[char], &[char])> = None;
    loop {
        if let ['*', behind @ ..] = pattern {
            (pattern, again) = (behind, Some((behind, name)));
            continue;
        }
        if pattern.is_empty() && name.is_empty() {
            return true;
        }
        let step = name.split_first().and_then(|(c, rest)| Some((behind_one(pattern, *c)?, rest)));
        if let Some(step) = step {
            (pattern, name) = step;
            continue;
        }
        let Some((behind, [_, left @ ..])) = again else { return false };
        (pattern, name, again) = (behind, left, Some((behind, left)));
    }
}

/// Returns the rest of a pattern whose beginning matches this one character.
fn behind_one(pattern: &[char], c: char) -> Option<&[char]> {
    match pattern {
        ['?', behind @ ..] => Some(behind),
        ['\\', rest @ ..] => rest.split_first().filter(|(meant, _)| **meant == c).map(|(_, behind)| behind),
        ['[', rest @ ..] => {
            // A ']' in the first place is a member.
            let end = 1 + rest.iter().skip(1).position(|c| *c == ']')?;
            let (mut members, behind) = (rest.get(..end)?, rest.get(end + 1..)?);
            while let Some((from, others)) = members.split_first() {
                let (to, others) = match others {
                    ['-', to, others @ ..] => (to, others),
                    others => (from, others),
                };
                if (*from..=*to).contains(&c) {
                    return Some(behind);
                }
                members = others;
            }
            None
        }
        [meant, behind @ ..] if *meant == c => Some(behind),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_the_manual_says() {
        for (pattern, name, expected) in [
            ("arch.conf", "arch.conf", true),
            ("arch", "arch.conf", false),
            ("arch*", "arch-fallback.conf", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**.conf", "a.conf", true),
            ("[a-c]?.conf", "b1.conf", true),
            ("[a-c]", "d", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[!a]", "b", false),
            ("[!a]", "!", true),
            ("[a", "a", false),
            ("[]", "]", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\[a]", "[a]", true),
            ("a\\", "a\\", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern:?} {name:?}");
        }
        assert!(!fits(&"*a".repeat(60), &"a".repeat(59)), "and does not take for ever");
    }

    #[test]
    fn a_version_is_the_first_number_and_the_one_behind_its_dot() {
        for (info, expected) in [
            ("systemd-boot 257.13-1~deb13u1", (257, 13)),
            ("systemd-boot 252.39-1~deb12u2", (252, 39)),
            ("systemd-boot 258", (258, 0)),
            ("systemd-boot 258-1.fc43", (258, 0)),
            ("systemd-boot 258~rc2", (258, 0)),
            ("systemd-boot", (0, 0)),
        ] {
            assert_eq!(version(info), expected, "{info}");
        }
    }

    #[test]
    fn of_loader_conf_the_last_word_counts() {
        let conf = Conf::parse(
            b"# default x\ndefault a\ndefault\ttwo*\ndefault @auto\ntimeout 3\r\npreferred '@SAVED'\n",
        );
        assert_eq!(conf, Conf { preferred: Some("@saved".to_owned()), default: Some("two*".to_owned()) });
        assert_eq!(Conf::parse(b"default\0\xff\n"), Conf::default());
    }
}
