//! Unified kernel images (UAPI.5): the kernel, initrds and command line of a profile, with its addons, joined
//! as by systemd-stub(7).
//!
//! Only headers and short texts are read. Where the specification leaves something open, this follows
//! systemd-stub (src/boot/stub.c, src/boot/pe.c of systemd).

pub mod found;

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::entries::tries::Tries;
use crate::image::piece::{Identity, Packed, Piece, Section};
use crate::machine::efi;
use crate::machine::root::Root;
use crate::words::errno::InWords;

/// Limit in bytes for a text in an image; no kernel takes a longer command line.
const TEXT_MAX: u64 = 16 << 10;

/// Limit for the profiles of an image (`UNIFIED_PROFILES_MAX`, src/fundamental/uki.h of systemd).
const PROFILES_MAX: usize = 256;

/// This machine's type in the header (PE format, "Machine Types").
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    0x8664
} else if cfg!(target_arch = "aarch64") {
    0xaa64
} else if cfg!(target_arch = "riscv64") {
    0x5064
} else {
    0
};

/// The reason why an image cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The file is not an EFI program.
    #[error("it is no EFI program ({0})")]
    NoPe(&'static str),
    /// It is an EFI program without a kernel.
    #[error("it is an EFI program without a kernel in it (.linux)")]
    NoKernel,
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// A text is too long.
    #[error("its section {0} is longer than {TEXT_MAX} bytes")]
    TooLong(&'static str),
    /// A text is not UTF-8.
    #[error("its section {0} is not UTF-8")]
    NotText(&'static str),
    /// There are too many profiles.
    #[error("it has more than {PROFILES_MAX} profiles")]
    TooManyProfiles,
    /// There is no such profile.
    #[error("it has {has} profiles, and no profile @{number}")]
    NoProfile {
        /// The number asked for.
        number: usize,
        /// The number of profiles.
        has: usize,
    },
    /// A section names a file by an invalid path, or one that does not exist.
    #[error("its section {section} names {path:?}, {why}")]
    Elsewhere {
        /// The section.
        section: &'static str,
        /// The path.
        path: String,
        /// The reason why it leads to no file.
        why: &'static str,
    },
    /// The image has a device tree.
    #[error("it has a device tree ({0}), and a kernel that is loaded with kexec gets the running one's")]
    DeviceTree(&'static str),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Unreadable(InWords(&error).to_string())
    }
}

/// A unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// The ways to boot it; never empty. The first is the default ("Multi-Profile UKIs").
    pub profiles: Vec<Profile>,
    /// The type of machine in its header.
    machine: u16,
    /// The file that it was read from.
    file: Option<Identity>,
}

/// One way to boot an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name, if there is one.
    pub id: Option<String>,
    /// The title in a boot menu, if there is one.
    pub title: Option<String>,
    /// The kernel.
    pub linux: Section,
    /// The initrd.
    pub initrd: Option<Section>,
    /// The microcode, which comes before every initrd.
    pub ucode: Option<Section>,
    /// The command line in the image.
    pub cmdline: Option<String>,
    /// The description of the system (os-release(5)), key by key.
    pub osrel: Vec<(String, String)>,
    /// The kernel's version.
    pub uname: Option<String>,
    /// The section with a device tree, if there is one: `.dtb` or `.dtbauto`.
    pub devicetree: Option<&'static str>,
    /// Whether there is firmware for the machine (`.efifw`).
    pub has_firmware: bool,
    /// The sections that systemd-stub passes on as files, and the names of those files.
    handed_on: Vec<(Section, &'static str)>,
    /// The kernel and the initrd, if the sections hold only their paths, as in the images that lanzaboote makes
    /// for NixOS.
    elsewhere: Option<(Elsewhere, Option<Elsewhere>)>,
}

/// A file on the image's own partition that replaces a section (rust/tool/shared/src/pe.rs of lanzaboote).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Elsewhere {
    section: &'static str,
    path: String,
    sha256: [u8; 32],
}

impl Elsewhere {
    /// Reads the path in one section, if another section has its checksum.
    fn read(
        file: &mut (impl Read + Seek),
        [names, sum]: [Option<Section>; 2],
    ) -> Result<Option<Elsewhere>, Error> {
        let (Some(names), Some(sum)) = (names, sum) else { return Ok(None) };
        let path = text(file, &names)?.replace('\\', "/");
        let mut sha256 = [0; 32];
        file.seek(SeekFrom::Start(sum.offset))?;
        file.take(sum.size).read_exact(&mut sha256)?;
        Ok(Some(Elsewhere { section: names.name, path, sha256 }))
    }

    /// Returns the file as it is seen if the partition is mounted at `point`.
    fn piece(&self, root: &Root, point: &Path) -> Result<Piece, Error> {
        let Elsewhere { section, path, .. } = self;
        let wrong = |why| Error::Elsewhere { section, path: path.clone(), why };
        let below = path.strip_prefix('/').filter(|path| !path.split('/').any(|part| part == ".."));
        let seen = point.join(below.ok_or_else(|| wrong("which is no path on its partition"))?);
        if !root.path(&seen).is_file() {
            return Err(wrong("and there is no such file on its partition"));
        }
        Ok(Piece { sha256: Some(Box::new(self.sha256)), ..seen.into() })
    }
}

impl Uki {
    /// Opens and reads an image. Its pieces are taken from this very file, or not at all.
    pub fn open(root: &Root, path: &Path) -> Result<Uki, Error> {
        let mut file = root.open(path)?;
        let identity = Identity::of(&file)?;
        Ok(Uki { file: Some(identity), ..Uki::read(&mut file)? })
    }

    /// Reads an image, from a file whose identity is not checked later.
    pub fn read(file: &mut (impl Read + Seek)) -> Result<Uki, Error> {
        let table = Table::read(file)?;
        let starts: Vec<_> =
            table.rows.iter().enumerate().filter(|(_, row)| row.is(".profile")).map(|(at, _)| at).collect();
        if starts.len() > PROFILES_MAX {
            return Err(Error::TooManyProfiles);
        }
        let ends = starts.iter().skip(1).copied().chain([table.rows.len()]);
        let base = table.rows.get(..starts.first().copied().unwrap_or(table.rows.len())).unwrap_or_default();
        let mut own: Vec<_> =
            starts.iter().zip(ends).filter_map(|(start, end)| table.rows.get(*start..end)).collect();
        if own.is_empty() {
            // Without profiles all sections belong to the only one.
            own.push(&[]);
        }
        let profiles = own.into_iter().map(|own| Profile::read(file, base, own)).collect::<Result<_, _>>()?;
        Ok(Uki { profiles, machine: table.machine, file: None })
    }

    /// Returns whether a file is an EFI program with a kernel in it.
    pub fn is_one(file: &mut (impl Read + Seek)) -> bool {
        Table::read(file).is_ok_and(|table| table.rows.iter().any(|row| row.is(".linux")))
    }

    /// Returns whether the image is for this machine's architecture.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.machine == MACHINE
    }
}

impl Profile {
    /// Reads a profile. Its own sections count before sections of the same name in the base.
    fn read(file: &mut (impl Read + Seek), base: &[Row], own: &[Row]) -> Result<Profile, Error> {
        let find = |name| find(own, name).or_else(|| find(base, name));
        let section = |name| find(name)?.section(name);
        let mut text = |name| section(name).map(|section| text(file, &section)).transpose();
        let cmdline = text(".cmdline")?.map(|line| cmdline(&line));
        let osrel = text(".osrel")?.map_or(Vec::new(), |text| environment(&text));
        let uname = text(".uname")?;
        let about = text(".profile")?.map_or(Vec::new(), |text| environment(&text));
        let said = |key: &str| about.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        // In systemd-stub's order (`INITRD_PCRSIG` and those that follow it).
        let handed_on = [
            (".pcrsig", "tpm2-pcr-signature.json"),
            (".pcrpkey", "tpm2-pcr-public-key.pem"),
            (".osrel", "os-release"),
            (".profile", "profile"),
        ];
        let mut elsewhere = |names, sum| Elsewhere::read(file, [section(names), section(sum)]);
        let elsewhere = match elsewhere(".linux", ".linuxh")? {
            Some(kernel) => Some((kernel, elsewhere(".initrd", ".initrdh")?)),
            None => None,
        };
        Ok(Profile {
            id: said("ID"),
            title: said("TITLE"),
            linux: section(".linux").ok_or(Error::NoKernel)?,
            initrd: section(".initrd"),
            ucode: section(".ucode"),
            cmdline,
            osrel,
            uname,
            devicetree: [".dtbauto", ".dtb"].into_iter().find(|name| section(name).is_some()),
            has_firmware: section(".efifw").is_some(),
            handed_on: handed_on.into_iter().filter_map(|(from, to)| Some((section(from)?, to))).collect(),
            elsewhere,
        })
    }
}

/// An addition to an image, from a file of its own ("PE Addons").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addon {
    /// The file.
    pub path: PathBuf,
    /// The addition to the command line.
    pub cmdline: Option<String>,
    /// The initrd, which comes after the image's.
    pub initrd: Option<Section>,
    /// The microcode, which comes before the image's.
    pub ucode: Option<Section>,
    /// The section with a device tree, if there is one.
    pub devicetree: Option<&'static str>,
    /// The file as it was read.
    file: Identity,
}

/// Returns the addons of an image: those for all images on its partition, then its own, each sorted by name.
/// Addons that systemd-stub passes over are noted, except those for other machines.
pub fn addons(
    root: &Root,
    uki: &Path,
    point: &Path,
    uname: Option<&str>,
    notes: &mut Vec<String>,
) -> Vec<Addon> {
    let mut addons = Vec::new();
    for folder in [point.join("loader/addons"), extra_folder(uki)] {
        for path in files(root, &folder, ".addon.efi", "") {
            match addon(root, &path, uname) {
                Ok(addon) => addons.extend(addon),
                Err(why) => notes.push(format!("{} is passed over: {why}", path.display())),
            }
        }
    }
    addons
}

/// Returns `None` if the addon is for another machine.
fn addon(root: &Root, path: &Path, uname: Option<&str>) -> Result<Option<Addon>, String> {
    let read = || -> Result<_, Error> {
        let mut file = root.open(path)?;
        let identity = Identity::of(&file)?;
        let table = Table::read(&mut file)?;
        if table.machine != MACHINE {
            return Ok(None);
        }
        let section = |name| find(&table.rows, name)?.section(name);
        let mut text = |name| section(name).map(|section| text(&mut file, &section)).transpose();
        let for_kernel = text(".uname")?;
        let addon = Addon {
            path: path.to_path_buf(),
            cmdline: text(".cmdline")?.map(|line| cmdline(&line)),
            initrd: section(".initrd"),
            ucode: section(".ucode"),
            devicetree: [".dtbauto", ".dtb"].into_iter().find(|name| section(name).is_some()),
            file: identity,
        };
        Ok(Some((addon, for_kernel, section(".linux").is_some())))
    };
    let Some((addon, for_kernel, has_kernel)) = read().map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    if has_kernel {
        return Err("it has a kernel in it, and an addon has none".to_owned());
    }
    // systemd-stub compares only as many characters as the addon's version has.
    match (uname, &for_kernel) {
        (Some(is), Some(wants)) if !is.starts_with(wants.as_str()) => {
            Err(format!("it is for the kernel {wants:?}, and the image's is {is:?}"))
        }
        _ => Ok(Some(addon)),
    }
}

/// The kernel, initrds and command line that a profile boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boots {
    /// The kernel.
    pub kernel: Piece,
    /// The initrds, in order.
    pub initrds: Vec<Piece>,
    /// The command line; `None` if nothing has one.
    pub cmdline: Option<String>,
    /// Remarks, for the user.
    pub notes: Vec<String>,
}

/// Collects the kernel, initrds and command line of an image's profile, with every addition that systemd-stub
/// would make. `given` is the command line that a boot loader passes, and `point` the mount point of the
/// image's partition.
pub fn boots(
    root: &Root,
    uki: &Uki,
    path: &Path,
    number: usize,
    given: Option<&str>,
    point: &Path,
) -> Result<Boots, Error> {
    let has = uki.profiles.len();
    let profile = uki.profiles.get(number).ok_or(Error::NoProfile { number, has })?;
    let mut notes = Vec::new();
    let addons = addons(root, path, point, profile.uname.as_deref(), &mut notes);
    let trees = addons.iter().map(|addon| (addon.path.as_path(), addon.devicetree));
    for (path, tree) in [(path, profile.devicetree)].into_iter().chain(trees) {
        let Some(tree) = tree else { continue };
        // An x86 machine describes itself by ACPI, and its kernel reads no device tree from the firmware.
        if !cfg!(target_arch = "x86_64") {
            return Err(Error::DeviceTree(tree));
        }
        notes.push(format!(
            "the device tree in {} ({tree}) is of no use on this machine, and left out",
            path.display()
        ));
    }
    if profile.has_firmware {
        notes.push(format!(
            "the firmware in {} (.efifw) is for a restart through firmware, and left out",
            path.display()
        ));
    }
    let secure = efi::secure_boot(root) == Some(true);
    if secure && !addons.is_empty() {
        notes.push(
            "warning: Secure Boot would look at the addons' signatures, and nextkernel does not".to_owned(),
        );
    }

    let piece = |path: &Path, found_in: Option<Identity>, section: &Section| Piece {
        section: Some(section.clone()),
        found_in: found_in.map(Box::new),
        ..path.into()
    };
    let of = |section: &Section| piece(path, uki.file, section);
    let added = |addon: &Addon, section: &Option<Section>| {
        section.as_ref().map(|section| piece(&addon.path, Some(addon.file), section))
    };
    let mut initrds: Vec<_> = addons.iter().rev().filter_map(|addon| added(addon, &addon.ucode)).collect();
    let (kernel, initrd) = match &profile.elsewhere {
        None => (of(&profile.linux), profile.initrd.as_ref().map(of)),
        Some((kernel, initrd)) => {
            let initrd = initrd.as_ref().map(|initrd| initrd.piece(root, point)).transpose()?;
            (kernel.piece(root, point)?, initrd)
        }
    };
    initrds.extend(profile.ucode.as_ref().map(of).into_iter().chain(initrd));
    initrds.extend(beside(root, path, point));
    let packed = |name| Packed { name: format!(".extra/{name}"), folder: 0o555, file: 0o444 };
    let handed_on = profile.handed_on.iter();
    initrds.extend(
        handed_on.map(|(section, name)| Piece { packed: Some(Box::new(packed(name))), ..of(section) }),
    );
    initrds.extend(addons.iter().filter_map(|addon| added(addon, &addon.initrd)));

    // With Secure Boot, a command line that was signed with the image cannot be replaced.
    let own = profile.cmdline.clone();
    let given = given.filter(|_| !secure || own.is_none()).map(cmdline).filter(|line| !line.is_empty());
    let machines = machines_cmdline(root);
    let added = addons.iter().filter_map(|addon| addon.cmdline.as_deref()).chain(machines.as_deref());
    let added = added.filter(|line| !line.is_empty());
    let line = given.or(own);
    let cmdline = added.fold(line, |line, more| match line.filter(|line| !line.is_empty()) {
        Some(line) => Some(format!("{line} {more}")),
        None => Some(more.to_owned()),
    });
    Ok(Boots { kernel, initrds, cmdline, notes })
}

/// Returns the machine's own addition to the command line, which the host of a virtual machine can set (SMBIOS,
/// OEM Strings; systemd-stub takes the first one).
fn machines_cmdline(root: &Root) -> Option<String> {
    const KEY: &str = "io.systemd.stub.kernel-cmdline-extra=";
    let entries = fs::read_dir(root.path("/sys/firmware/dmi/entries")).into_iter().flatten().flatten();
    let strings = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"11-"));
    let mut paths: Vec<_> = strings.map(|entry| entry.path().join("raw")).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let table = fs::read(path).ok()?;
        let mut texts = table.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
        // The bytes before the first string are numbers.
        texts.find_map(|text| Some(cmdline(text.split_once(KEY)?.1)))
    })
}

/// Returns the files beside an image that are for the initrd: credentials and extensions, its own and those for
/// all images (systemd-stub(7), "Companion Files").
fn beside(root: &Root, uki: &Path, point: &Path) -> Vec<Piece> {
    let (own, credentials) = (extra_folder(uki), point.join("loader/credentials"));
    let extensions = point.join("loader/extensions");
    let kinds = [
        (&own, ".cred", "", "credentials"),
        (&credentials, ".cred", "", "global_credentials"),
        (&own, ".raw", ".confext.raw", "sysext"),
        (&extensions, ".raw", ".confext.raw", "global_sysext"),
        (&own, ".confext.raw", "", "confext"),
        (&extensions, ".confext.raw", "", "global_confext"),
    ];
    let pieces = kinds.into_iter().flat_map(|(folder, ending, but, to)| {
        let files = files(root, folder, ending, but);
        files
            .into_iter()
            .map(move |path| Piece { packed: Packed::below(&path, to).map(Box::new), ..path.into() })
    });
    pieces.collect()
}

impl Packed {
    /// Returns the path where systemd's boot loader and stub put a credential or extension of one entry, by its
    /// name. Returns `None` if the file is neither (Boot Loader Specification, `extra`).
    #[must_use]
    pub fn extra(path: &Path) -> Option<Packed> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let kinds = [(".cred", "credentials"), (".confext.raw", "confext"), (".sysext.raw", "sysext")];
        let (_, to) = kinds.into_iter().find(|(ending, _)| name.ends_with(ending))?;
        Packed::below(path, to)
    }

    fn below(path: &Path, folder: &str) -> Option<Packed> {
        let name = path.file_name()?.to_str()?;
        let (of_folder, file) = if folder.ends_with("credentials") { (0o500, 0o400) } else { (0o555, 0o444) };
        Some(Packed { name: format!(".extra/{folder}/{name}"), folder: of_folder, file })
    }
}

/// Returns the directory `FILE.extra.d`. The boot counters are not part of its name.
fn extra_folder(uki: &Path) -> PathBuf {
    let name = uki.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, ending) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    let (stem, _) = Tries::parse(stem);
    uki.with_file_name(format!("{stem}{ending}.extra.d"))
}

/// Returns the files in a directory that have an ending, sorted by name, as the firmware finds them. A missing
/// directory has none.
fn files(root: &Root, folder: &Path, ending: &str, but: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(root.path(folder)).into_iter().flatten().flatten();
    let mut names: Vec<_> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| {
        let lower = name.to_ascii_lowercase();
        let other = !but.is_empty() && lower.ends_with(but);
        let is_name = name.is_ascii() && name.len() <= 255 && !name.starts_with('.');
        is_name && lower.ends_with(ending) && !other && root.path(folder.join(name)).is_file()
    });
    names.sort();
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// The headers of an EFI program, as far as they are needed (PE format, "Section Table").
struct Table {
    machine: u16,
    rows: Vec<Row>,
}

/// A row of the section table.
struct Row {
    name: [u8; 8],
    offset: u32,
    size: u32,
}

impl Table {
    fn read(file: &mut (impl Read + Seek)) -> Result<Table, Error> {
        let mut bytes = |at: u64, count: u64| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(at))?;
            file.take(count).read_to_end(&mut bytes)?;
            Ok::<_, Error>(bytes)
        };
        let dos = bytes(0, 64)?;
        let header = dos.get(60..).and_then(|rest| rest.first_chunk()).map(|at| u32::from_le_bytes(*at));
        let header = u64::from(header.filter(|_| dos.starts_with(b"MZ")).ok_or(Error::NoPe("no MZ header"))?);
        let coff = bytes(header, 24)?;
        let number =
            |at| word(&coff, at).filter(|_| coff.starts_with(b"PE\0\0")).ok_or(Error::NoPe("no PE header"));
        let (machine, rows, optional) = (number(4)?, number(6)?, number(20)?);
        let table = bytes(header + 24 + u64::from(optional), u64::from(rows) * 40)?;
        let rows: Vec<_> = table.chunks_exact(40).filter_map(Row::parse).collect();
        Ok(Table { machine, rows })
    }
}

impl Row {
    fn parse(row: &[u8]) -> Option<Row> {
        let number = |at: usize| Some(u32::from_le_bytes(*row.get(at..)?.first_chunk()?));
        // The file has padding behind the section, and in memory zeros may follow it. The section's real size
        // is the lesser one.
        Some(Row { name: *row.first_chunk()?, offset: number(20)?, size: number(8)?.min(number(16)?) })
    }

    /// Compares the name. A name of eight bytes has no NUL behind it.
    fn is(&self, name: &str) -> bool {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        self.name.get(..end) == Some(name.as_bytes())
    }

    /// Returns the section. An empty section counts as missing.
    fn section(&self, name: &'static str) -> Option<Section> {
        (self.size > 0).then(|| Section { name, offset: self.offset.into(), size: self.size.into() })
    }
}

/// Returns the row of that name; of several the first counts.
fn find<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.is(name))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a section's text, up to its first NUL.
fn text(file: &mut (impl Read + Seek), section: &Section) -> Result<String, Error> {
    if section.size > TEXT_MAX {
        return Err(Error::TooLong(section.name));
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(section.offset))?;
    file.take(section.size).read_to_end(&mut text)?;
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    String::from_utf8(text).map_err(|_| Error::NotText(section.name))
}

/// Converts a command line as systemd-stub does: control characters become spaces, and spaces at both ends are
/// removed (`mangle_stub_cmdline`, src/boot/util.c of systemd).
fn cmdline(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_control() { ' ' } else { c })
        .collect::<String>()
        .trim_matches(' ')
        .to_owned()
}

/// Parses lines of `KEY=VALUE` as in os-release(5): quotes are a shell's, and comments begin with `#`.
fn environment(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), unquoted(value)))
        .collect()
}

fn unquoted(value: &str) -> String {
    let (mut plain, mut quote, mut characters) = (String::new(), None, value.chars());
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            ('\\', None | Some('"')) => plain.extend(characters.next().filter(|next| !next.is_control())),
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use crate::staging::source::Source;
    use crate::staging::{copy, source};
    use std::io::Cursor;

    /// Returns an EFI program with these sections as a linker makes it, each padded to 512 bytes.
    pub(crate) fn efi(machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = [b"MZ", &[0; 58][..], &64u32.to_le_bytes(), b"PE\0\0"].concat();
        file.extend(machine.to_le_bytes());
        file.extend(u16::try_from(sections.len()).unwrap().to_le_bytes());
        file.extend([0; 12]);
        file.extend([240u16.to_le_bytes(), [0; 2]].concat());
        file.extend([0; 240]);
        let mut contents = Vec::new();
        let begin = (file.len() + sections.len() * 40).next_multiple_of(512);
        for (name, content) in sections {
            let mut padded = [0; 8];
            padded.get_mut(..name.len()).unwrap().copy_from_slice(name.as_bytes());
            file.extend(padded);
            let raw = content.len().next_multiple_of(512);
            for number in [content.len(), 0x1000, raw, begin + contents.len()] {
                file.extend(u32::try_from(number).unwrap().to_le_bytes());
            }
            file.extend([0; 16]);
            contents.extend_from_slice(content);
            contents.resize(contents.len().next_multiple_of(512), 0xff);
        }
        file.resize(begin, 0);
        file.extend(contents);
        file
    }

    fn put(scratch: &Scratch, path: &str, sections: &[(&str, &[u8])]) {
        scratch.put(path, "");
        fs::write(scratch.root.path(path), efi(MACHINE, sections)).unwrap();
    }

    fn read(sections: &[(&str, &[u8])]) -> Result<Uki, Error> {
        Uki::read(&mut Cursor::new(efi(MACHINE, sections)))
    }

    /// Returns the initrds as `FILE SECTION` or `FILE SECTION> NAME`, the command line, and the number of
    /// notes.
    fn booted(scratch: &Scratch, number: usize, given: Option<&str>) -> (Vec<String>, Option<String>, usize) {
        let path = Path::new("/efi/EFI/Linux/a+3-1.efi");
        let uki = Uki::open(&scratch.root, path).unwrap();
        let boots = boots(&scratch.root, &uki, path, number, given, Path::new("/efi")).unwrap();
        let shown = |piece: &Piece| {
            let file = piece.path.file_name().unwrap().to_str().unwrap();
            let section = piece.section.as_ref().map_or("", |section| section.name);
            match &piece.packed {
                Some(packed) => format!("{file} {section}> {}", packed.name),
                None => format!("{file} {section}"),
            }
        };
        assert_eq!(shown(&boots.kernel), "a+3-1.efi .linux");
        (boots.initrds.iter().map(shown).collect(), boots.cmdline, boots.notes.len())
    }

    #[test]
    fn a_section_is_read_to_its_own_length_and_an_empty_one_is_none() {
        let uki =
            read(&[(".text", b"stub"), (".linux", b"kernel"), (".initrd", b""), (".cmdline", b" a\tb\n\0")]);
        let uki = uki.unwrap();
        let [profile] = uki.profiles.as_slice() else { return assert_eq!(uki.profiles.len(), 1) };
        assert_eq!((profile.linux.size, profile.initrd.is_none()), (6, true));
        assert_eq!(profile.linux.offset % 512, 0);
        assert_eq!(profile.cmdline.as_deref(), Some("a b"));
        assert!(uki.is_native());
        // A section may be larger in memory than in the file; the rest is zeros, which nothing needs.
        let mut file = efi(1, &[(".linux", b"kernel")]);
        let size = 64 + 24 + 240 + 8;
        file.get_mut(size..size + 4).unwrap().copy_from_slice(&u32::MAX.to_le_bytes());
        let uki = Uki::read(&mut Cursor::new(file)).unwrap();
        assert_eq!(uki.profiles.first().map(|profile| profile.linux.size), Some(512));
        assert!(!uki.is_native());
    }

    #[test]
    fn where_the_sections_hold_paths_those_files_are_booted_if_they_are_the_ones_that_are_meant() {
        let scratch = Scratch::new();
        let (kernel, initrd) = (b"a kernel", crate::image::archive::tests::entry("a", b"b", None));
        let sums = [&kernel[..], &initrd].map(|bytes| crate::image::digest::sha256(bytes).unwrap());
        let image = |path: &[u8], sums: [[u8; 32]; 2]| {
            let sections: [(&str, &[u8]); 5] = [
                (".linux", path),
                (".initrd", b"\\EFI\\nixos\\i.efi"),
                (".cmdline", b"init=/nix/store/x/init"),
                (".linuxh", &sums[0]),
                (".initrdh", &sums[1]),
            ];
            put(&scratch, "/boot/EFI/Linux/nixos.efi", &sections);
            let path = Path::new("/boot/EFI/Linux/nixos.efi");
            let uki = Uki::open(&scratch.root, path).unwrap();
            boots(&scratch.root, &uki, path, 0, None, Path::new("/boot"))
        };
        let named = b"\\EFI\\nixos\\k.efi";
        scratch.put("/boot/EFI/nixos/k.efi", std::str::from_utf8(kernel).unwrap());
        assert_eq!(
            image(named, sums).unwrap_err().to_string(),
            "its section .initrd names \"/EFI/nixos/i.efi\", and there is no such file on its partition"
        );
        fs::write(scratch.root.path("/boot/EFI/nixos/i.efi"), &initrd).unwrap();
        let whole = |sums| {
            let boots = image(named, sums).unwrap();
            assert_eq!(boots.kernel.path, Path::new("/boot/EFI/nixos/k.efi"));
            let open = |what, piece: &Piece| Source::open(&scratch.root, what, piece).unwrap();
            let folder = crate::staging::directory::Folder::open(&scratch.root).unwrap();
            let set = folder.new_set(nextkernel_plan::HandoffId(1)).unwrap();
            let extra = crate::staging::extra::Extra::find(&scratch.root, &[] as &[&str]).unwrap();
            let initrds: Vec<_> = boots.initrds.iter().map(|initrd| open("initrd", initrd)).collect();
            let copied = copy::kernel(&set, &open("kernel", &boots.kernel), u64::MAX);
            let joined = copied.and_then(|_| copy::initrd(&scratch.root, &set, &initrds, &extra).map(drop));
            joined.map_err(|error| error.to_string())
        };
        assert_eq!(whole(sums), Ok(()));
        let [kernel, initrd] = sums;
        let wrong = whole([[1; 32], initrd]).unwrap_err();
        assert!(wrong.starts_with("the kernel /boot/EFI/nixos/k.efi is not the one"), "{wrong}");
        let wrong = whole([kernel, [1; 32]]).unwrap_err();
        assert!(wrong.starts_with("the initrd /boot/EFI/nixos/i.efi is not the one"), "{wrong}");
        for path in [&b"EFI\\k.efi"[..], b"\\..\\etc\\shadow"] {
            assert!(image(path, sums).unwrap_err().to_string().contains("which is no path on its partition"));
        }
    }

    #[test]
    fn a_profiles_sections_count_over_the_bases() {
        let uki = read(&[
            (".linux", b"k"),
            (".cmdline", b"base"),
            (".osrel", b"# c\nID=debian\nPRETTY_NAME=\"Debian \\\"13\\\"\" \nX='a\"b'c\\ d\n"),
            (".uname", b"6.12"),
            (".profile", b"ID=regular\nTITLE=\"Regular boot\"\n"),
            (".profile", b"ID=reset"),
            (".cmdline", b"reset"),
            (".initrd", b"other"),
            (".profile", b""),
            (".cmdline", b""),
        ]);
        let profiles = uki.unwrap().profiles;
        let seen = profiles.iter().map(|p| (p.id.as_deref(), p.cmdline.as_deref(), p.initrd.is_some()));
        let seen: Vec<_> = seen.collect();
        assert_eq!(
            seen,
            [
                (Some("regular"), Some("base"), false),
                (Some("reset"), Some("reset"), true),
                // As in systemd-stub, an empty section hides the base's.
                (None, None, false)
            ]
        );
        let first = profiles.first().unwrap();
        assert_eq!(first.title.as_deref(), Some("Regular boot"));
        assert_eq!(first.uname.as_deref(), Some("6.12"));
        let osrel: Vec<_> = first.osrel.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(osrel, ["ID=debian", "PRETTY_NAME=Debian \"13\"", "X=a\"bc d"]);
    }

    #[test]
    fn what_is_no_image_is_told_apart() {
        let error = |bytes: &[u8]| Uki::read(&mut Cursor::new(bytes)).unwrap_err();
        assert!(matches!(error(b""), Error::NoPe(_)));
        assert!(matches!(error(&[b"MZ", &[0; 100][..]].concat()), Error::NoPe(_)));
        assert_eq!(error(&efi(MACHINE, &[(".text", b"x")])), Error::NoKernel);
        assert_eq!(read(&[(".linux", b"k"), (".cmdline", b"\xff")]).unwrap_err(), Error::NotText(".cmdline"));
        let long = vec![b'a'; 20_000];
        assert_eq!(read(&[(".linux", b"k"), (".osrel", &long)]).unwrap_err(), Error::TooLong(".osrel"));
        let many = vec![(".profile", &b"x"[..]); 257];
        assert_eq!(read(&many).unwrap_err(), Error::TooManyProfiles);
        let is_one = |bytes: &[u8]| Uki::is_one(&mut Cursor::new(bytes));
        assert!(is_one(&efi(MACHINE, &[(".linux", b"k")])));
        assert!(!is_one(&efi(MACHINE, &[(".linuxx", b"k")])) && !is_one(b"MZ"));
    }

    #[test]
    fn initrds_stand_in_the_order_in_which_systemd_stub_joins_them() {
        let scratch = Scratch::new();
        let all = [
            (".linux", &b"k"[..]),
            (".initrd", b"i"),
            (".ucode", b"u"),
            (".osrel", b"ID=a"),
            (".pcrsig", b"{}"),
        ];
        put(&scratch, "/efi/EFI/Linux/a+3-1.efi", &all);
        let addon = [(".initrd", &b"i"[..]), (".ucode", b"u")];
        for path in ["/efi/loader/addons/z.addon.efi", "/efi/EFI/Linux/a.efi.extra.d/b.ADDON.efi"] {
            put(&scratch, path, &addon);
        }
        for path in [
            "/efi/EFI/Linux/a.efi.extra.d/own.cred",
            "/efi/EFI/Linux/a.efi.extra.d/c.confext.raw",
            "/efi/EFI/Linux/a.efi.extra.d/s.sysext.raw",
            "/efi/EFI/Linux/a.efi.extra.d/.hidden.cred",
            "/efi/EFI/Linux/a.efi.extra.d/n\u{e4}me.cred",
            "/efi/loader/credentials/all.cred",
            "/efi/loader/extensions/x.raw",
            "/efi/loader/extensions/x.confext.raw",
        ] {
            scratch.put(path, "x");
        }
        scratch.folder("/efi/loader/credentials/folder.cred");
        let (initrds, cmdline, notes) = booted(&scratch, 0, None);
        assert_eq!(
            initrds,
            [
                "b.ADDON.efi .ucode",
                "z.addon.efi .ucode",
                "a+3-1.efi .ucode",
                "a+3-1.efi .initrd",
                "own.cred > .extra/credentials/own.cred",
                "all.cred > .extra/global_credentials/all.cred",
                "s.sysext.raw > .extra/sysext/s.sysext.raw",
                "x.raw > .extra/global_sysext/x.raw",
                "c.confext.raw > .extra/confext/c.confext.raw",
                "x.confext.raw > .extra/global_confext/x.confext.raw",
                "a+3-1.efi .pcrsig> .extra/tpm2-pcr-signature.json",
                "a+3-1.efi .osrel> .extra/os-release",
                "z.addon.efi .initrd",
                "b.ADDON.efi .initrd",
            ]
        );
        assert_eq!((cmdline, notes), (None, 0));
    }

    #[test]
    fn addons_append_to_the_command_line_those_for_all_images_first() {
        let scratch = Scratch::new();
        put(
            &scratch,
            "/efi/EFI/Linux/a+3-1.efi",
            &[(".linux", b"k"), (".cmdline", b"own "), (".uname", b"6.12-arch")],
        );
        put(&scratch, "/efi/EFI/Linux/a.efi.extra.d/a.addon.efi", &[(".cmdline", b" third\n")]);
        put(&scratch, "/efi/loader/addons/b.addon.efi", &[(".cmdline", b"second"), (".uname", b"6.12")]);
        put(&scratch, "/efi/loader/addons/a.addon.efi", &[(".cmdline", b"first\nline")]);
        put(&scratch, "/efi/loader/addons/blank.addon.efi", &[(".cmdline", b" ")]);
        let line = |given| booted(&scratch, 0, given).1;
        assert_eq!(line(None).as_deref(), Some("own first line second third"));
        assert_eq!(line(Some("given")).as_deref(), Some("given first line second third"));
        assert_eq!(line(Some(" ")).as_deref(), Some("own first line second third"));
        let secure = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        scratch.put(secure, "\u{6}\0\0\0\u{1}");
        assert_eq!(line(Some("given")).as_deref(), Some("own first line second third"));
        assert_eq!(booted(&scratch, 0, None).2, 1);
        scratch.put(
            "/sys/firmware/dmi/entries/11-0/raw",
            "\u{b}\u{5}\u{1}\0\u{2}other=x\0io.systemd.stub.kernel-cmdline-extra=last\0\0",
        );
        assert_eq!(line(None).as_deref(), Some("own first line second third last"));
    }

    #[test]
    fn an_addon_that_is_not_for_this_image_is_noted_and_one_for_another_machine_is_not() {
        let scratch = Scratch::new();
        put(&scratch, "/efi/EFI/Linux/a+3-1.efi", &[(".linux", b"k"), (".uname", b"6.12")]);
        put(&scratch, "/efi/loader/addons/kernel.addon.efi", &[(".linux", b"k"), (".cmdline", b"no")]);
        put(&scratch, "/efi/loader/addons/other.addon.efi", &[(".uname", b"6.1"), (".cmdline", b"yes")]);
        put(&scratch, "/efi/loader/addons/other2.addon.efi", &[(".uname", b"6.13"), (".cmdline", b"no")]);
        scratch.put("/efi/loader/addons/text.addon.efi", "no");
        scratch.put("/efi/loader/addons/foreign.addon.efi", "");
        let foreign = efi(0x1234, &[(".cmdline", b"no")]);
        fs::write(scratch.root.path("/efi/loader/addons/foreign.addon.efi"), foreign).unwrap();
        let (_, cmdline, notes) = booted(&scratch, 0, None);
        assert_eq!((cmdline.as_deref(), notes), (Some("yes"), 3));
    }

    #[test]
    fn every_section_is_taken_from_the_file_that_it_was_found_in() {
        let scratch = Scratch::new();
        let path = Path::new("/efi/EFI/Linux/a+3-1.efi");
        put(
            &scratch,
            "/efi/EFI/Linux/a+3-1.efi",
            &[(".linux", b"k"), (".initrd", b"i"), (".osrel", b"ID=a")],
        );
        let addon = "/efi/loader/addons/a.addon.efi";
        put(&scratch, addon, &[(".initrd", b"i"), (".ucode", b"u")]);
        let uki = Uki::open(&scratch.root, path).unwrap();
        let boots = boots(&scratch.root, &uki, path, 0, None, Path::new("/efi")).unwrap();
        let pieces: Vec<_> = [&boots.kernel].into_iter().chain(&boots.initrds).collect();
        let of = |path: &str| pieces.iter().filter(|piece| piece.path == Path::new(path)).count();
        assert_eq!((pieces.len(), of(addon)), (5, 2));
        let refused = || {
            let opened = pieces.iter().map(|piece| Source::open(&scratch.root, "initrd", piece));
            opened.filter(|opened| matches!(opened, Err(source::Error::Changed { .. }))).count()
        };
        assert_eq!(refused(), 0);
        for (path, with) in [(addon, 2), ("/efi/EFI/Linux/a+3-1.efi", 5)] {
            put(&scratch, "/new.efi", &[(".text", b"longer"), (".linux", b"k"), (".initrd", b"i")]);
            fs::rename(scratch.root.path("/new.efi"), scratch.root.path(path)).unwrap();
            assert_eq!(refused(), with);
        }
    }

    #[test]
    fn what_a_profile_has_that_is_left_out_is_said() {
        let scratch = Scratch::new();
        put(&scratch, "/efi/EFI/Linux/a+3-1.efi", &[(".linux", b"k"), (".dtb", b"t"), (".efifw", b"f")]);
        let path = Path::new("/efi/EFI/Linux/a+3-1.efi");
        let uki = Uki::open(&scratch.root, path).unwrap();
        let boots = |number| boots(&scratch.root, &uki, path, number, None, Path::new("/efi"));
        assert_eq!(boots(1).unwrap_err(), Error::NoProfile { number: 1, has: 1 });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(boots(0).unwrap().notes.len(), 2);
        } else {
            assert_eq!(boots(0).unwrap_err(), Error::DeviceTree(".dtb"));
        }
    }

    #[test]
    fn a_credential_or_an_extension_of_an_entry_has_its_place() {
        let place = |path: &str| Packed::extra(Path::new(path)).map(|packed| (packed.name, packed.file));
        assert_eq!(place("/efi/a.CRED"), Some((".extra/credentials/a.CRED".to_owned(), 0o400)));
        assert_eq!(place("/efi/a.sysext.raw"), Some((".extra/sysext/a.sysext.raw".to_owned(), 0o444)));
        assert_eq!(place("/efi/a.confext.raw"), Some((".extra/confext/a.confext.raw".to_owned(), 0o444)));
        assert_eq!(place("/efi/a.raw"), None);
    }
}
