//! A unified kernel image: its profiles, and the sections of each.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::entries::uki::error::{Error, PROFILES_MAX};
use crate::entries::uki::pe::{MACHINE, Row, Table, cmdline, environment, find, text};
use crate::image::piece::{Identity, Piece, Section};
use crate::machine::root::Root;

/// A unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// The ways to boot it; never empty. The first is the default ("Multi-Profile UKIs").
    pub profiles: Vec<Profile>,
    /// The type of machine in its header.
    machine: u16,
    /// The file that it was read from.
    pub(super) file: Option<Identity>,
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
    pub(super) handed_on: Vec<(Section, &'static str)>,
    /// The kernel and the initrd, if the sections hold only their paths, as in the images that lanzaboote makes
    /// for NixOS.
    pub(super) elsewhere: Option<(Elsewhere, Option<Elsewhere>)>,
}

/// A file on the image's own partition that replaces a section (rust/tool/shared/src/pe.rs of lanzaboote).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elsewhere {
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
    pub(super) fn piece(&self, root: &Root, point: &Path) -> Result<Piece, Error> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entries::uki::tests::efi;
    use std::io::Cursor;

    fn read(sections: &[(&str, &[u8])]) -> Result<Uki, Error> {
        Uki::read(&mut Cursor::new(efi(MACHINE, sections)))
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
}
