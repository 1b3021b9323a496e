//! Boot Loader Specification Type #1 entries ("Type #1 Boot Loader Specification Entries").
//!
//! Where the specification leaves something open, this follows systemd-boot(7).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::partition::Partition;
use super::uki::found;
use crate::entries::entry::{Entry, EntryKind, Error, devicetree};
use crate::entries::found::{Found, names};
use crate::entries::tries::id;
use crate::image::cmdline;
use crate::image::piece::{Packed, Piece};
use crate::machine::root::Root;
use crate::words::errno::InWords;

/// Limit in bytes for an entry's file or a configuration file; real ones have a few lines.
const FILE_MAX: u64 = 64 << 10;

/// This machine's architecture, as UEFI names it in `BOOT<NAME>.EFI` (UEFI specification, 3.5.1.1).
const ARCHITECTURE: &str = if cfg!(target_arch = "x86_64") {
    "x64"
} else if cfg!(target_arch = "aarch64") {
    "aa64"
} else {
    std::env::consts::ARCH
};

/// The keys of an entry's file ("Type #1 Boot Loader Entry Keys"). If a key that is not joined occurs more than
/// once, the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The title, for people.
    pub title: Option<String>,
    /// The version, mostly the kernel's.
    pub version: Option<String>,
    /// The machine id of the installation.
    pub machine_id: Option<String>,
    /// The key by which entries are sorted first.
    pub sort_key: Option<String>,
    /// The architecture that the entry is for.
    pub architecture: Option<String>,
    /// The key of the program to start (`linux`, `efi`, `uki` or `uki-url`), and its path.
    pub starts: Option<(&'static str, String)>,
    /// Whether keys of different kinds name a program to start, so that it is ambiguous.
    pub starts_several: bool,
    /// The number of the profile to start, if the program is an image.
    pub profile: usize,
    /// The initrds, in order.
    pub initrds: Vec<String>,
    /// The command line, joined from all `options`.
    pub options: String,
    /// The device tree and its overlays.
    pub devicetrees: Vec<String>,
    /// Further files for the initrd.
    pub extras: Vec<String>,
}

impl Keys {
    /// Reads the keys. Total: accepts any bytes. Unknown keys are ignored, as the specification requires.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Keys {
        let mut keys = Keys::default();
        for (key, value) in lines(&String::from_utf8_lossy(bytes)) {
            let text = || Some(value.to_owned());
            match key {
                "title" => keys.title = text(),
                "version" => keys.version = text(),
                "machine-id" => keys.machine_id = text(),
                "sort-key" => keys.sort_key = text(),
                "architecture" => keys.architecture = text(),
                "linux" => keys.start("linux", value),
                "efi" => keys.start("efi", value),
                "uki" => keys.start("uki", value),
                "uki-url" => keys.start("uki-url", value),
                "profile" => keys.profile = value.parse().unwrap_or(keys.profile),
                "initrd" => keys.initrds.push(value.to_owned()),
                "options" if keys.options.is_empty() => value.clone_into(&mut keys.options),
                "options" => keys.options = format!("{} {value}", keys.options),
                "devicetree" | "devicetree-overlay" => keys.devicetrees.push(value.to_owned()),
                "extra" => keys.extras.push(value.to_owned()),
                _ => {}
            }
        }
        keys
    }

    fn start(&mut self, key: &'static str, path: &str) {
        self.starts_several |= self.starts.as_ref().is_some_and(|(other, _)| *other != key);
        self.starts = Some((key, path.to_owned()));
    }
}

/// Returns the keys and values of an entry's file, or of loader.conf(5). Comments begin with `#`, a value ends
/// with its line, and quotes around the whole value are removed. As in systemd-boot, a line may end in CR.
pub fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let blank = [' ', '\t'];
    // systemd-boot treats the file as one C string.
    let text = text.split('\0').next().unwrap_or_default();
    let lines = text.split(['\n', '\r']).map(move |line| line.trim_matches(blank));
    lines.filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let (key, value) = line.split_once(blank)?;
        Some((key, unquoted(value.trim_start_matches(blank))))
    })
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

/// Returns the Type #1 entries on a partition ("Locating Boot Entries"). Files that are not entries are noted.
pub fn read(
    root: &Root,
    partition: &Partition,
    by_systemd_boot: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, Error> {
    let directory = partition.point.join("loader/entries");
    let marker = partition.point.join("loader/entries.srel");
    // "Standard-conformance Marker File": any other word in it means that the files are something else.
    // systemd-boot does not look at it.
    let says = fs::read_to_string(root.path(&marker)).ok().filter(|_| !by_systemd_boot);
    if let Some(other) = says.filter(|says| says.trim_end() != "type1") {
        let other = other.lines().next().unwrap_or_default();
        notes.push(format!("{} says {other:?}, so what lies beside it is passed over", marker.display()));
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in names(root, &directory, ".conf", notes)? {
        let file = directory.join(&name);
        match text(root, &file) {
            Ok(text) => {
                let keys = Keys::parse(&text);
                let mut on = |path: &str| on(partition, path);
                found.extend(one(root, &mut on, &file, &name, keys).map_err(|why| {
                    notes.push(format!("{} {why}, so it is passed over", file.display()));
                }));
            }
            Err(error) => return Err(Error::unreadable(&file, &error)),
        }
    }
    Ok(found)
}

/// Reads a configuration file. Fails if it is too large.
pub fn text(root: &Root, file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(root.path(file))?.take(FILE_MAX + 1).read_to_end(&mut text)?;
    let too_large = text.len() as u64 > FILE_MAX;
    if too_large { Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes"))) } else { Ok(text) }
}

/// Returns the name of an entry without its file's ending.
#[must_use]
pub fn stem(name: &str) -> &str {
    [".conf", ".efi"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

/// Returns the entry that a file describes, or the reason why it describes none. `on` maps a path of the entry
/// to the path where the file is seen; it returns `None` if there is no such place.
pub fn one(
    root: &Root,
    on: &mut dyn FnMut(&str) -> Option<PathBuf>,
    file: &Path,
    name: &str,
    keys: Keys,
) -> Result<Found, &'static str> {
    let Some((key, path)) = &keys.starts else { return Err("names no kernel") };
    if keys.starts_several {
        return Err("names several things to start");
    }
    let (id, tries) = id(name, ".conf");
    let mut outside = None;
    let mut on = |path: &String| {
        let seen = on(path);
        if seen.is_none() {
            outside = Some(Error::Outside { from: file.to_path_buf(), path: path.clone() });
        }
        seen
    };
    let kernel = on(path).unwrap_or_default();
    let mut initrds: Vec<_> = keys.initrds.iter().filter_map(&mut on).map(Piece::from).collect();
    let extras: Vec<_> = keys.extras.iter().filter_map(&mut on).collect();
    let strange = extras.iter().find(|path| Packed::extra(path).is_none()).cloned();
    initrds.extend(
        extras.into_iter().map(|path| Piece { packed: Packed::extra(&path).map(Box::new), ..path.into() }),
    );
    let is_outside = outside.is_some();
    let foreign = keys.architecture.as_ref().filter(|wants| !wants.eq_ignore_ascii_case(ARCHITECTURE));
    let is_there = *key == "uki-url" || (outside.is_none() && root.path(&kernel).is_file());

    let devices = keys.devicetrees.iter().map(|tree| devicetree(root, file, tree));
    let (notes, no_tree) = match devices.collect::<Result<Vec<_>, _>>() {
        Ok(notes) => (notes, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let unsupported = |what: String| Error::Unsupported { from: file.to_path_buf(), what };
    let reason = if let Some(wants) = foreign {
        Some(Error::Foreign { from: file.to_path_buf(), wants: wants.clone(), is: ARCHITECTURE })
    } else if outside.is_some() {
        outside
    } else if !is_there {
        Some(Error::NoKernel { from: file.to_path_buf(), kernel: kernel.clone() })
    } else {
        let strange = strange.map(|path| {
            format!("has a further file that is neither credential nor extension (extra {})", path.display())
        });
        not_yet(key, &keys).or(strange).map(unsupported).or(no_tree)
    };
    let starts_image = matches!(*key, "uki" | "efi") && reason.is_none();
    let foreign = foreign.is_some();
    let entry = Entry {
        title: keys.title,
        version: keys.version,
        initrds,
        cmdline: Some(keys.options),
        from: Some(file.to_path_buf()),
        tries,
        notes,
        reason,
        ..Entry::new(EntryKind::Bls, id, kernel.as_path())
    };
    let point = || found::point(root, &kernel);
    let entry = if starts_image { found::named(root, &kernel, keys.profile, &point(), entry) } else { entry };
    Ok(Found {
        // systemd-boot opens every path that the firmware opens. A path that leaves the partition is refused,
        // not passed over.
        offered: !foreign && (is_there || is_outside),
        foreign,
        file: name.to_owned(),
        base: None,
        number: if matches!(*key, "uki" | "efi") { keys.profile } else { 0 },
        unsure: false,
        sort_key: keys.sort_key,
        machine_id: keys.machine_id,
        entry,
    })
}

/// Returns the feature of an entry that cannot be staged yet and would be lost silently.
fn not_yet(key: &str, keys: &Keys) -> Option<String> {
    let variable = || cmdline::parameters(&keys.options).find(|parameter| parameter.starts_with('$'));
    match key {
        "uki" | "efi" if !keys.options.is_empty() => {
            Some("has options for what it starts, which only the firmware can hand over (options)".to_owned())
        }
        "uki" | "efi" => None,
        "uki-url" => Some("starts a unified kernel image from a network (uki-url)".to_owned()),
        // The kernel's own EFI stub would load that initrd, but kexec does not run the stub.
        _ if cmdline::value(&keys.options, "initrd").is_some() => {
            Some("has an initrd among its options (initrd=)".to_owned())
        }
        _ if keys.options.contains(char::REPLACEMENT_CHARACTER) => {
            Some("has options that are not UTF-8".to_owned())
        }
        _ => variable().map(|name| format!("has a variable of GRUB's among its options ({name})")),
    }
}

/// Maps a path of an entry to a path below its partition's mount point, with or without a leading `/`. EFI
/// writes `\`, and systemd-boot accepts both. Returns `None` if the path leaves the partition or is empty.
fn on(partition: &Partition, path: &str) -> Option<PathBuf> {
    let parts = path.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<_> = parts.collect();
    let inside = !parts.is_empty() && !parts.contains(&"..");
    inside.then(|| parts.iter().fold(partition.point.clone(), |path, part| path.join(part)))
}

impl Error {
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
        Error::Unreadable { path: path.to_path_buf(), why: InWords(error).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::tries::Tries;

    #[test]
    fn keys_are_read_as_the_specification_writes_them() {
        let text = b"\xef\xbf\xbd odd\r\n# title no\n  #title no\ntitle\t Fedora  19 (Rawhide) \r\ntitle \nunknown x\n\
            sort-key 'fedora'\nversion \"6.1\nlinux /a/b\nlinux\t/c\ninitrd /2\ninitrd /1\noptions a=\"b  c\" d\n\
            options \" e\"\noptions\nTITLE no\nmachine-id\x0bno\narchitecture x64\0\ntitle no\n";
        let keys = Keys::parse(text);
        assert_eq!(
            keys,
            Keys {
                title: Some("Fedora  19 (Rawhide)".to_owned()),
                sort_key: Some("fedora".to_owned()),
                version: Some("\"6.1".to_owned()),
                architecture: Some("x64".to_owned()),
                starts: Some(("linux", "/c".to_owned())),
                initrds: vec!["/2".to_owned(), "/1".to_owned()],
                options: "a=\"b  c\" d  e".to_owned(),
                ..Keys::default()
            }
        );
        assert_eq!(Keys::parse(b""), Keys::default());
        assert!(Keys::parse(b"linux /a\nuki /b").starts_several);
    }

    #[test]
    fn counters_stand_last_and_are_whole_numbers() {
        let tries = |left, done| Some(Tries { left, done });
        for (stem, name, expected) in [
            ("foo+3", "foo", tries(3, 0)),
            ("foo+2-1", "foo", tries(2, 1)),
            ("foo+0-3", "foo", tries(0, 3)),
            ("a+1+2", "a+1", tries(2, 0)),
            ("+1", "", tries(1, 0)),
            ("foo", "foo", None),
            ("foo+", "foo+", None),
            ("foo+3-", "foo+3-", None),
            ("foo+-1", "foo+-1", None),
            ("foo+3-1-1", "foo+3-1-1", None),
            ("foo+3 ", "foo+3 ", None),
            ("foo++3x", "foo++3x", None),
            ("6.12.57+deb13-amd64", "6.12.57+deb13-amd64", None),
            ("foo+2147483648", "foo+2147483648", None),
            ("foo+99999999999999999999", "foo+99999999999999999999", None),
        ] {
            assert_eq!(Tries::parse(stem), (name, expected), "{stem}");
        }
    }
}
