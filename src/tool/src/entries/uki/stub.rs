//! Joins the kernel, initrds and command line of a profile with its addons and companion files, as by
//! systemd-stub(7).

use std::fs;
use std::path::Path;

use crate::entries::uki::addon::{Addon, addons};
use crate::entries::uki::companions::beside;
use crate::entries::uki::error::Error;
use crate::entries::uki::image::Uki;
use crate::entries::uki::pe::cmdline;
use crate::image::piece::{Identity, Packed, Piece, Section};
use crate::machine::efi;
use crate::machine::root::Root;

/// The kernel, initrds and command line that a profile boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boots {
    /// The kernel.
    pub(super) kernel: Piece,
    /// The initrds, in order.
    pub(super) initrds: Vec<Piece>,
    /// The command line; `None` if nothing has one.
    pub(super) cmdline: Option<String>,
    /// Remarks, for the user.
    pub(super) notes: Vec<String>,
}

/// Collects the kernel, initrds and command line of an image's profile, with every addition that systemd-stub
/// would make. `given` is the command line that a boot loader passes, and `point` the mount point of the
/// image's partition.
pub(super) fn boots(
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
    let packed = |name| Packed { name: format!(".extra/{name}"), directory: 0o555, file: 0o444 };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entries::uki::pe::MACHINE;
    use crate::entries::uki::tests::efi;
    use crate::machine::scratch::Scratch;
    use crate::staging::source::Source;
    use crate::staging::{copy, source};

    fn put(scratch: &Scratch, path: &str, sections: &[(&str, &[u8])]) {
        scratch.put(path, "");
        fs::write(scratch.root.path(path), efi(MACHINE, sections)).unwrap();
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
            let directory = crate::staging::directory::Directory::open(&scratch.root).unwrap();
            let set = directory.new_set(nextkernel_plan::HandoffId(1)).unwrap();
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
        scratch.directory("/efi/loader/credentials/folder.cred");
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
}
