//! What systemd-boot would boot next (systemd-boot(7), "EFI Variables"; loader.conf(5)).

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

/// In `LoaderFeatures`: it knows `LoaderEntryPreferred` (Boot Loader Interface).
const PREFERRED: u64 = 1 << 19;

/// The first version that leaves the counters out of an entry's name (systemd's pull request 38897, which its
/// stable versions have, too: 257.13 leaves them out).
const WITHOUT_COUNTERS: (u32, u32) = (257, 10);

/// The version of the days when that came.
const UNSURE: (u32, u32) = (258, 0);

/// The first version whose names for entries end in `.conf` or `.efi` (systemd's issue 15068).
const WITH_ENDINGS: (u32, u32) = (245, 0);

/// What the version has in it of the systemd-boot of `Pop!_OS`, whose patterns fit a name without its ending, too
/// (pop-os/systemd, debian/patches/systemd-boot-id-compat.patch).
const POP: &str = "pop";

/// The first version that knows profiles of unified kernel images (systemd's NEWS).
const WITH_PROFILES: (u32, u32) = (257, 0);

/// systemd-boot, in charge of this machine, and what it was told.
#[derive(Debug, Default)]
pub struct Loader {
    /// How it calls itself.
    pub info: String,
    /// Whether counters belong to the names it gives entries.
    pub with_counters: bool,
    /// Whether it shows the profiles of an image.
    pub with_profiles: bool,
    endings: Endings,
    /// What it found itself the last time, and is no Linux.
    own: Vec<String>,
    knows_preferred: bool,
    /// The partition it was started from.
    partition: Option<String>,
    one_shot: Option<String>,
    preferred: Option<String>,
    default: Option<String>,
    last_booted: Option<String>,
}

/// The endings of the names that it gives entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Endings {
    /// A pattern has to fit them, too.
    #[default]
    Count,
    /// A pattern may leave them out.
    MayBeLeftOut,
    /// There are none.
    AreLeftOut,
}

/// What loader.conf says of the entry to boot. Of a key that is there twice the last counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conf {
    preferred: Option<String>,
    default: Option<String>,
}

impl Loader {
    /// Asks the firmware's variables. None where another boot loader started this machine, or none is known.
    pub fn find(root: &Root) -> Result<Option<Loader>, efi::Error> {
        let Some(info) = efi::text(root, "LoaderInfo")?.filter(|info| info.starts_with("systemd-boot"))
        else {
            return Ok(None);
        };
        let version = version(&info);
        // It may have it one way or the other; the names it gave last time show it.
        let stem = |name: &String| name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned());
        let names = efi::texts(root, "LoaderEntries")?;
        let counted = names.iter().any(|name| tries::Tries::parse(&stem(name)).1.is_some());
        let with_counters = if version == UNSURE { counted } else { version < WITHOUT_COUNTERS };
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
                // A version that cannot be read is a new one's.
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

    /// Mounts the partition it was started from, and the extended one beside it, where nobody has. Without that one
    /// nobody can tell what it would boot; the first is missed anyway.
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

    /// The extended partition on the disk it was started from: it looks at no other.
    fn extended(&self, root: &Root) -> Option<String> {
        attach::sibling(root, self.partition.as_ref()?, partition::XBOOTLDR)
    }

    /// Whether it reads a partition's entries.
    #[must_use]
    pub fn reads(&self, root: &Root, partitions: &[Partition], partition: &Partition) -> bool {
        let Ok(esp) = self.esp(partitions) else { return true };
        let is_extended = match &partition.uuid {
            Some(uuid) => self.extended(root).as_ref() == Some(uuid),
            // Where udev tells nothing, the only one is it.
            None => partition.kind == Kind::Xbootldr,
        };
        esp == partition || is_extended
    }

    /// The partition it was started from: its configuration lies there.
    pub fn esp<'a>(&self, partitions: &'a [Partition]) -> Result<&'a Partition, Error> {
        let esps = || partitions.iter().filter(|partition| partition.kind == Kind::Esp);
        let is_it = |partition: &&Partition| self.partition.is_some() && partition.uuid == self.partition;
        let named = partitions.iter().find(is_it);
        // Where udev told nothing, the only one is it.
        let only = esps().next().filter(|esp| esp.uuid.is_none() || self.partition.is_none());
        let not_mounted = || Error::EspNotMounted(self.partition.clone().unwrap_or_default());
        named.or(only.filter(|_| esps().count() == 1)).ok_or_else(not_mounted)
    }

    /// The entry it would boot if the machine restarted now, of those in its order. What it was told and what
    /// fits nothing is noted.
    pub fn choose(&self, conf: &Conf, order: &[Found], notes: &mut Vec<String>) -> Result<ByDefault, Error> {
        let saved = |told: &Option<String>| match told.as_deref() {
            Some("@saved") => self.last_booted.clone(),
            told => told.map(str::to_owned),
        };
        let preferred = |told: &Option<String>| saved(told).filter(|_| self.knows_preferred);
        // What is preferred passes a bad entry over, what is the default does not (Boot Loader Interface).
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
                return Err(unsure.entry.hindrance.clone().unwrap_or(Error::NoEntry));
            }
            let mut offered = order.iter().filter(|found| found.offered && !(not_bad && found.is_bad()));
            match offered.find(|found| self.fits(&pattern, found)) {
                Some(Found { entry, .. }) => {
                    let once = (why == VARIABLE).then(|| Once::Efi(pattern.clone()));
                    return Ok(ByDefault { entry: entry.clone(), why, once });
                }
                // What systemd-boot finds itself comes behind all entries, and is no Linux.
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
            return Err(unsure.entry.hindrance.clone().unwrap_or(Error::NoEntry));
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

/// The version in the name that it gives itself, as `systemd-boot 257.13-1~deb13u1`.
fn version(info: &str) -> (u32, u32) {
    let mut numbers = info.trim_start_matches(|c: char| !c.is_ascii_digit()).splitn(2, '.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    });
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

impl Conf {
    /// Reads loader.conf on the ESP; nothing where there is none.
    pub fn read(root: &Root, esp: &Partition) -> Result<Conf, Error> {
        let path = esp.point.join("loader/loader.conf");
        match bls::text(root, &path) {
            Ok(text) => Ok(Conf::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Conf::default()),
            Err(error) => Err(Error::Unreadable { path, why: InWords(&error).to_string() }),
        }
    }

    /// Reads its text; any bytes say something, or nothing.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Conf {
        let mut conf = Conf::default();
        for (key, value) in bls::lines(&String::from_utf8_lossy(bytes)) {
            let value = value.to_ascii_lowercase();
            // Other names with an @ are kept for later, and mean nothing yet.
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

/// Whether a pattern fits a name: `?`, `*` and `[...]` with ranges, `\` before what is meant as it is
/// (loader.conf(5), "default").
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (pattern.chars().collect(), name.chars().collect());
    let (mut pattern, mut name) = (pattern.as_slice(), name.as_slice());
    // Behind the last star, and what is left of the name if the star takes one more.
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

/// What follows in a pattern, where its beginning stands for this one character.
fn behind_one(pattern: &[char], c: char) -> Option<&[char]> {
    match pattern {
        ['?', behind @ ..] => Some(behind),
        ['\\', rest @ ..] => rest.split_first().filter(|(meant, _)| **meant == c).map(|(_, behind)| behind),
        ['[', rest @ ..] => {
            // A ']' that comes first is a member.
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
