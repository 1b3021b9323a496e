//! Whole machines with boot loader entries: the entries found on them, and the one chosen.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::machine::efi::tests::{put, set};
use crate::machine::scratch::Scratch;
use crate::request::conf::Conf;

const ESP: &str = "/efi";
const XBOOTLDR: &str = "/boot";

/// Returns a machine that systemd-boot 258 started, with an ESP, an XBOOTLDR partition, and kernels on both.
pub(crate) fn machine() -> Scratch {
    let scratch = Scratch::new();
    scratch.put(
        "/proc/self/mountinfo",
        "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n\
         2 1 8:1 / /efi rw - vfat /dev/sda1 rw\n\
         3 1 8:2 / /boot rw - ext4 /dev/sda2 rw\n",
    );
    for (device, kind, uuid) in [
        ("8:1", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "11111111-aaaa"),
        ("8:2", "bc13c2ff-59e6-4262-a352-b275fd6f7172", "22222222-aaaa"),
    ] {
        scratch.put(
            &format!("/run/udev/data/b{device}"),
            &format!("E:ID_PART_ENTRY_TYPE={kind}\nE:ID_PART_ENTRY_UUID={uuid}\nE:ID_PART_ENTRY_DISK=8:0\n"),
        );
    }
    for point in [ESP, XBOOTLDR] {
        scratch.directory(&format!("{point}/EFI"));
        for file in ["k1", "k2", "i1", "i2"] {
            scratch.put(&format!("{point}/{file}"), "x");
        }
    }
    set(&scratch, "LoaderInfo", &["systemd-boot 258.1-1"]);
    set(&scratch, "LoaderDevicePartUUID", &["11111111-AAAA"]);
    put(&scratch, "LoaderFeatures", &(1_u64 << 19).to_le_bytes());
    scratch
}

/// Returns an entry with two initrds and two lines of options.
pub(crate) fn entry(more: &str, kernel: &str) -> String {
    format!("# one\n{more}\nlinux {kernel}\ninitrd /i1\ninitrd i2\noptions root=a\noptions quiet\n")
}

/// Puts entries on a partition, each for its kernel `/k1`.
fn entries(scratch: &Scratch, point: &str, names: &[&str]) {
    for name in names {
        scratch.put(&format!("{point}/loader/entries/{name}"), &entry("", "/k1"));
    }
}

fn ids(scratch: &Scratch) -> Vec<String> {
    Survey::of(&scratch.root, &Conf::default()).entries.into_iter().map(|entry| entry.id).collect()
}

fn chosen(scratch: &Scratch) -> String {
    Survey::of(&scratch.root, &Conf::default()).default.map_or_else(
        |error| error.to_string(),
        |default| default.entry.from.unwrap_or_default().display().to_string(),
    )
}

fn refused(scratch: &Scratch, name: Option<&str>) -> String {
    choose(&scratch.root, &Conf::default(), name).unwrap_err().to_string()
}

#[test]
fn an_entry_is_staged_with_its_own_files_and_line() {
    let machine = machine();
    machine.put("/boot/loader/entries/x.conf", &entry("version 6.1", "k2"));
    machine.put("/proc/cmdline", "root=running");
    let Choice { entry, notes, .. } = choose(&machine.root, &Conf::default(), None).unwrap();
    assert_eq!(entry.kernel, Path::new("/boot/k2").into());
    assert_eq!(entry.initrds, ["/boot/i1", "/boot/i2"].map(|path| Path::new(path).into()));
    assert_eq!(entry.cmdline.as_deref(), Some("root=a quiet"));
    assert!(notes.iter().any(|note| note.contains("systemd-boot 258.1-1 would boot")), "{notes:?}");
}

#[test]
fn the_order_is_the_specifications() {
    let machine = machine();
    for (name, keys) in [
        ("bad+0-3.conf", "sort-key a\nversion 9"),
        ("b-old.conf", "sort-key b\nmachine-id 1\nversion 6.9"),
        ("b-new.conf", "sort-key b\nmachine-id 1\nversion 6.10"),
        ("b-none.conf", "sort-key b\nversion 5"),
        ("a.conf", "sort-key a"),
        ("arch.conf", ""),
        ("arch-fallback.conf", ""),
        ("z-6.1~rc1.conf", ""),
        ("z-6.1.conf", ""),
        ("z-6.2+1-2.conf", ""),
    ] {
        machine.put(&format!("/boot/loader/entries/{name}"), &entry(keys, "/k1"));
    }
    let expected = [
        "a.conf",
        "b-none.conf",
        "b-new.conf",
        "b-old.conf",
        "z-6.2.conf",
        "z-6.1.conf",
        "z-6.1~rc1.conf",
        "arch.conf",
        "arch-fallback.conf",
        "bad.conf",
    ];
    assert_eq!(ids(&machine), expected);
}

#[test]
fn what_systemd_boot_was_told_decides_in_its_order() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf", "B.conf", "c.conf", "d.conf", "e.conf", "f.conf", "g+0-1.conf"]);
    machine
        .put("/efi/loader/loader.conf", "timeout 3\ndefault\t\"b*\"  \r\npreferred none\ndefault @other\n");
    let at = |name: &str| format!("/efi/loader/entries/{name}");
    assert_eq!(chosen(&machine), at("B.conf"));
    set(&machine, "LoaderEntryDefault", &["C.CONF"]);
    assert_eq!(chosen(&machine), at("c.conf"));
    set(&machine, "LoaderEntryLastBooted", &["d.conf"]);
    set(&machine, "LoaderEntryDefault", &["@saved"]);
    assert_eq!(chosen(&machine), at("d.conf"));
    machine.put("/efi/loader/loader.conf", "preferred e.conf\n");
    assert_eq!(chosen(&machine), at("e.conf"));
    set(&machine, "LoaderEntryPreferred", &["[a-f].conf"]);
    assert_eq!(chosen(&machine), at("f.conf"), "the first that fits, in order");
    set(&machine, "LoaderEntryPreferred", &["g.conf"]);
    assert_eq!(chosen(&machine), at("e.conf"), "a bad one is not preferred");
    set(&machine, "LoaderEntryOneShot", &["g.conf"]);
    assert_eq!(chosen(&machine), at("g+0-1.conf"), "a bad one is booted when it is asked for");
    let Choice { notes, once, .. } = choose(&machine.root, &Conf::default(), None).unwrap();
    assert_eq!(once, Some(Once::Efi("g.conf".to_owned())));
    assert!(notes.iter().any(|note| note.contains("counts once")), "{notes:?}");
    let by_name = |name| choose(&machine.root, &Conf::default(), Some(name)).unwrap().once;
    assert_eq!(by_name("g+0-1.conf"), Some(Once::Efi("g.conf".to_owned())), "named, it is used up, too");
    assert_eq!(by_name("c.conf"), None);
    put(&machine, "LoaderFeatures", &[0; 8]);
    set(&machine, "LoaderEntryOneShot", &["gone.conf"]);
    let survey = Survey::of(&machine.root, &Conf::default());
    assert_eq!(survey.default.unwrap().entry.id, "d.conf", "what it does not know does not count");
    assert!(survey.notes.iter().any(|note| note.contains("gone.conf")), "{:?}", survey.notes);
}

#[test]
fn an_older_systemd_boot_takes_counters_for_a_part_of_the_name() {
    let machine = machine();
    entries(&machine, ESP, &["a+3.conf", "b.conf"]);
    machine.put("/efi/loader/loader.conf", "default a.conf\n");
    assert_eq!(chosen(&machine), "/efi/loader/entries/a+3.conf");
    // Builds of that very version do either.
    set(&machine, "LoaderInfo", &["systemd-boot 258"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a+3.conf");
    set(&machine, "LoaderEntries", &["a+3.conf", "b.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/b.conf");
    set(&machine, "LoaderInfo", &["systemd-boot 257.13-1~deb13u1"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a+3.conf");
    set(&machine, "LoaderInfo", &["systemd-boot 252.39-1~deb12u1"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/b.conf");
    // Of a version that cannot be read the names of the last boot show it.
    set(&machine, "LoaderInfo", &["systemd-boot next"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/b.conf");
    set(&machine, "LoaderEntries", &["a.conf", "b.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a+3.conf");
    set(&machine, "LoaderInfo", &["systemd-boot 252.39-1~deb12u1"]);
    machine.put("/efi/loader/loader.conf", "default a+*\n");
    assert_eq!(chosen(&machine), "/efi/loader/entries/a+3.conf");
}

#[test]
fn what_is_not_for_this_machine_or_has_no_kernel_is_not_offered() {
    let machine = machine();
    machine.put("/efi/loader/entries/9.conf", &entry("", "/gone"));
    machine.put("/efi/loader/entries/8.conf", &entry("architecture IA64", "/k1"));
    machine.put("/efi/loader/entries/7.conf", "title nothing\noptions x\n");
    machine.put("/efi/loader/entries/6.conf", "linux /k1\nefi /shell.efi\n");
    machine.put("/efi/loader/entries/5.conf", &entry(&format!("architecture {}", bls_architecture()), "/k1"));
    assert_eq!(chosen(&machine), "/efi/loader/entries/5.conf");
    assert_eq!(ids(&machine), ["9.conf", "5.conf"]);
    let sentence = refused(&machine, Some("9"));
    assert!(sentence.contains("/efi/loader/entries/9.conf names the kernel /efi/gone"), "{sentence}");
    assert!(refused(&machine, Some("8.conf")).contains("is for IA64"));
    let notes = Survey::of(&machine.root, &Conf::default()).notes.join("\n");
    assert!(notes.contains("7.conf names no kernel") && notes.contains("6.conf names several"), "{notes}");
}

fn bls_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "X64" } else { "AA64" }
}

#[test]
fn what_would_be_lost_is_refused_by_name() {
    let machine = machine();
    for (name, text, why) in [
        ("uki-line", "uki /k1\noptions quiet\n", "has options for what it starts"),
        ("url", "uki-url http://x/y\n", "from a network"),
        ("dtb", "linux /k1\ndevicetree /x.dtb\n", "device tree"),
        ("extra", "linux /k1\nextra /x.txt\n", "neither credential nor extension"),
        ("stub", "linux /k1\noptions quiet initrd=\\i1\n", "initrd="),
        ("grub", "linux /k1\noptions root=x $kernelopts\n", "($kernelopts)"),
        ("up", "linux /../k1\n", "\"/../k1\""),
        ("initrd", "linux /k1\ninitrd /x/../../i1\n", "its own partition"),
    ] {
        machine.put(&format!("/efi/loader/entries/{name}.conf"), text);
        let sentence = refused(&machine, Some(name));
        assert!(sentence.contains(why) && sentence.contains(&format!("{name}.conf")), "{sentence}");
    }
}

#[test]
fn a_name_means_one_entry_or_is_refused_with_all_it_fits() {
    let machine = machine();
    entries(&machine, ESP, &["same.conf", "c+3-1.conf", "c.conf", "d+2.conf"]);
    entries(&machine, XBOOTLDR, &["same.conf"]);
    machine.put("/boot/vmlinuz-6.1", "x");
    machine.put("/boot/initrd.img-6.1", "x");
    let from = |name: &str| {
        choose(&machine.root, &Conf::default(), Some(name))
            .map(|choice| choice.entry.from.unwrap_or(choice.entry.kernel.path))
    };
    let both = refused(&machine, Some("same"));
    assert!(both.contains("/efi/loader/entries/same.conf, /boot/loader/entries/same.conf"), "{both}");
    assert_eq!(from("/boot/loader/entries/same.conf"), Ok("/boot/loader/entries/same.conf".into()));
    for name in ["c", "c.conf", "C.CONF"] {
        assert_eq!(from(name), Ok("/efi/loader/entries/c.conf".into()), "{name}");
    }
    for name in ["c+3-1", "c+3-1.conf"] {
        assert_eq!(from(name), Ok("/efi/loader/entries/c+3-1.conf".into()), "{name}");
    }
    for name in ["d", "d.conf", "d+2", "d+5", "d+1-1.conf"] {
        assert_eq!(from(name), Ok("/efi/loader/entries/d+2.conf".into()), "{name}");
    }
    assert_eq!(from("6.1"), Ok("/boot/vmlinuz-6.1".into()));
    let unknown = refused(&machine, Some("x"));
    assert!(unknown.contains("same.conf, same.conf, d.conf") && !unknown.contains("--kernel"), "{unknown}");
    assert!(
        refused(&machine, Some("/boot/vmlinuz-6.1")).ends_with("; `nextkernel stage --kernel` takes a file")
    );
}

#[test]
fn two_files_of_one_entry_that_differ_in_counters_are_two() {
    let machine = machine();
    entries(&machine, ESP, &["c+3.conf", "c+2-1.conf"]);
    assert!(refused(&machine, Some("c")).contains("fits several"));
    assert_eq!(chosen(&machine), "/efi/loader/entries/c+3.conf", "the one with more tries left is first");
    entries(&machine, ESP, &["c.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/c.conf", "the one that is not counted is good");
}

#[test]
fn on_both_partitions_the_esps_counts_and_other_partitions_do_not() {
    let machine = machine();
    entries(&machine, XBOOTLDR, &["same.conf"]);
    entries(&machine, ESP, &["same.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/same.conf");
    machine.put("/run/udev/data/b8:2", "E:ID_PART_ENTRY_TYPE=0fc63daf\n");
    entries(&machine, XBOOTLDR, &["zz.conf"]);
    assert_eq!(ids(&machine), ["same.conf"]);
}

fn put_image(machine: &Scratch, path: &str, sections: &[(&str, &str)]) {
    let native: u16 = if cfg!(target_arch = "x86_64") { 0x8664 } else { 0xaa64 };
    let sections: Vec<_> = sections.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    machine.put(path, "");
    std::fs::write(machine.root.path(path), crate::entries::uki::tests::efi(native, &sections)).unwrap();
}

const OSREL: &str = "ID=debian\nPRETTY_NAME=\"Debian 13\"\nVERSION_ID=13\n";

#[test]
fn each_profile_of_an_image_is_an_entry_and_only_the_first_is_chosen_unasked() {
    let machine = machine();
    let sections = [
        (".linux", "kernel"),
        (".osrel", OSREL),
        (".cmdline", "root=base quiet"),
        (".initrd", "initrd"),
        (".profile", "ID=main\n"),
        (".profile", "ID=rescue\nTITLE=Rescue\n"),
        (".cmdline", "root=base single"),
    ];
    put_image(&machine, "/efi/EFI/Linux/deb+3.efi", &sections);
    machine.put("/efi/EFI/Linux/none.efi", "no image");
    entries(&machine, ESP, &["zz.conf"]);
    assert_eq!(ids(&machine), ["deb.efi", "deb.efi@rescue", "zz.conf"], "what has a sort key is first");
    let first = choose(&machine.root, &Conf::default(), None).unwrap().entry;
    assert_eq!((first.id.as_str(), first.cmdline.as_deref()), ("deb.efi", Some("root=base quiet")));
    assert_eq!(first.title.as_deref(), Some("Debian 13"));
    for name in ["deb.efi@rescue", "deb.efi@1"] {
        let entry = choose(&machine.root, &Conf::default(), Some(name)).unwrap().entry;
        assert_eq!(
            (entry.title.as_deref(), entry.cmdline.as_deref()),
            (Some("Debian 13 (Rescue)"), Some("root=base single"))
        );
        assert_eq!(entry.kernel.to_string(), "/efi/EFI/Linux/deb+3.efi (.linux)");
    }
    set(&machine, "LoaderEntryDefault", &["deb.efi@*"]);
    assert_eq!(choose(&machine.root, &Conf::default(), None).unwrap().entry.id, "deb.efi@rescue");
    set(&machine, "LoaderEntryDefault", &["auto-windows"]);
    assert!(refused(&machine, None).contains("no Linux"));
    let notes = Survey::of(&machine.root, &Conf::default()).notes.join("\n");
    assert!(notes.contains("/efi/EFI/Linux/none.efi is passed over: it is no EFI program"), "{notes}");
}

#[test]
fn an_image_that_an_entry_of_type_1_names_is_opened() {
    let machine = machine();
    put_image(&machine, "/efi/one.efi", &[(".linux", "kernel"), (".cmdline", "root=own")]);
    machine.put("/efi/loader/entries/u.conf", "title One\nuki /one.efi\n");
    machine.put("/efi/loader/entries/p.conf", "uki /one.efi\nprofile 1\n");
    machine.put("/efi/loader/entries/e.conf", "efi /k1\n");
    let entry = choose(&machine.root, &Conf::default(), Some("u")).unwrap().entry;
    assert_eq!((entry.title.as_deref(), entry.cmdline.as_deref()), (Some("One"), Some("root=own")));
    assert_eq!(entry.kernel.to_string(), "/efi/one.efi (.linux)");
    let profile = refused(&machine, Some("p"));
    assert!(profile.contains("/efi/one.efi: it has 1 profiles, and no profile @1"), "{profile}");
    assert!(refused(&machine, Some("e")).contains("/efi/k1: it is no EFI program"));
}

#[test]
fn only_the_partition_it_was_started_from_tells_what_it_would_boot() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf"]);
    set(&machine, "LoaderDevicePartUUID", &["33333333-AAAA"]);
    let sentence = refused(&machine, None);
    assert!(sentence.contains("33333333-aaaa is not mounted at /efi, /boot, /boot/efi"), "{sentence}");
    assert!(choose(&machine.root, &Conf::default(), Some("a")).is_ok(), "a name needs no default");
    machine.put("/run/udev/data/b8:1", "");
    assert_eq!(
        chosen(&machine),
        "/efi/loader/entries/a.conf",
        "where udev tells nothing, the only ESP is it"
    );
}

#[test]
fn without_a_boot_loader_the_convention_decides_and_a_name_still_finds_an_entry() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf"]);
    machine.put("/boot/vmlinuz-6.1", "x");
    machine.put("/boot/initrd.img-6.1", "x");
    set(&machine, "LoaderInfo", &["systemd-stub 257"]);
    assert!(refused(&machine, None).contains("\"systemd-stub 257\" started this machine"));
    set(&machine, "LoaderInfo", &[]);
    let unread = refused(&machine, None);
    assert!(unread.contains("/efi/loader/entries/a.conf is a boot entry, and no boot loader"), "{unread}");
    let none = Conf { boot_loader: Some(crate::request::choices::BootLoader::None), ..Conf::default() };
    let Choice { entry, notes, .. } = choose(&machine.root, &none, None).unwrap();
    assert_eq!((entry.id.as_str(), entry.cmdline), ("6.1", None));
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(choose(&machine.root, &Conf::default(), Some("a")).unwrap().entry.id, "a.conf");
}

/// Returns a machine that GRUB starts, with a separate /boot and two kernels in a submenu.
fn with_grub(default: &str, grubenv: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.put(
        "/proc/self/mountinfo",
        "1 0 254:3 / / rw - ext4 /dev/vda3 rw\n2 1 254:2 / /boot rw - ext4 /dev/vda2 rw\n",
    );
    scratch.put("/dev/vda2", "");
    scratch.put("/sys/class/block/vda2/dev", "254:2\n");
    scratch.link("/dev/disk/by-uuid/b00t", "/dev/vda2");
    let linux = |version: &str| {
        scratch.put(&format!("/boot/vmlinuz-{version}"), "x");
        scratch.put(&format!("/boot/initrd.img-{version}"), "x");
        format!(
            "search --no-floppy --fs-uuid --set=root b00t\nlinux /vmlinuz-{version} root=UUID=7 ro quiet\n\
             initrd /early.img /initrd.img-{version}\n"
        )
    };
    let config = format!(
        "if [ -s $prefix/grubenv ]; then\nload_env\nfi\n\
         if [ \"${{next_entry}}\" ] ; then\nset default=\"${{next_entry}}\"\nset next_entry=\nsave_env next_entry\n\
         else\nset default=\"{default}\"\nfi\n\
         menuentry 'Debian' --id 'simple' {{\n{}}}\n\
         submenu 'Advanced' --id 'advanced' {{\nmenuentry 'Debian 6.12' --id 'adv-6.12' {{\n{}}}\n\
         menuentry 'Debian 6.1' --id 'adv-6.1' {{\n{}}}\n}}\n\
         menuentry 'Firmware' --id 'uefi' {{\nfwsetup\n}}\n",
        linux("6.12"),
        linux("6.12"),
        linux("6.1")
    );
    scratch.put("/boot/grub/grub.cfg", &config);
    scratch.put("/boot/grub/grubenv", &format!("{:#<1024}", format!("# GRUB Environment Block\n{grubenv}")));
    scratch
}

#[test]
fn what_grub_boots_next_is_staged_whole() {
    let machine = with_grub("${saved_entry}", "saved_entry=advanced>adv-6.1\n");
    let Choice { entry, once, notes } = choose(&machine.root, &Conf::default(), None).unwrap();
    assert_eq!((entry.id.as_str(), once), ("advanced>adv-6.1", None));
    assert_eq!(entry.kernel, Path::new("/boot/vmlinuz-6.1").into());
    let initrds = ["/boot/early.img", "/boot/initrd.img-6.1"].map(|path| Path::new(path).into());
    assert_eq!(entry.initrds, initrds);
    assert_eq!(entry.cmdline.as_deref(), Some("root=UUID=7 ro quiet"));
    let why = "is what GRUB, with /boot/grub/grub.cfg would boot: saved_entry in grubenv";
    assert!(notes.iter().any(|note| note.contains(why)), "{notes:?}");
}

#[test]
fn grubs_one_shot_counts_before_the_default_and_is_kept_for_the_next_kernel() {
    let machine = with_grub("0", "next_entry=1>1\n");
    let Choice { entry, once, .. } = choose(&machine.root, &Conf::default(), None).unwrap();
    assert_eq!((entry.id.as_str(), once), ("advanced>adv-6.1", Some(Once::Grub("1>1".to_owned()))));
}

#[test]
fn an_entry_of_grubs_is_named_by_id_title_or_number() {
    let machine = with_grub("0", "");
    for name in ["advanced>adv-6.1", "adv-6.1", "1>1", "Advanced>Debian 6.1", "Debian 6.1"] {
        assert_eq!(
            choose(&machine.root, &Conf::default(), Some(name)).unwrap().entry.id,
            "advanced>adv-6.1",
            "{name}"
        );
    }
    // The name by convention is a version, and means GRUB's entry for that kernel.
    let by_version = choose(&machine.root, &Conf::default(), Some("6.1")).unwrap().entry;
    assert_eq!(
        (by_version.kind, by_version.cmdline.as_deref()),
        (EntryKind::Grub, Some("root=UUID=7 ro quiet"))
    );
    assert!(refused(&machine, Some("uefi")).contains("starts no Linux kernel, but 'fwsetup'"));
}

#[test]
fn what_grub_would_boot_and_cannot_be_staged_is_refused_by_file_and_reason() {
    let sentence = |default: &str, spoil: &dyn Fn(&Scratch)| {
        let machine = with_grub(default, "");
        spoil(&machine);
        refused(&machine, None)
    };
    let gone =
        |path: &'static str| move |machine: &Scratch| std::fs::remove_file(machine.root.path(path)).unwrap();
    let kernel = sentence("0", &gone("/boot/vmlinuz-6.12"));
    assert!(kernel.contains("/boot/grub/grub.cfg names the kernel /boot/vmlinuz-6.12"), "{kernel}");
    let disk = sentence("0", &gone("/dev/disk/by-uuid/b00t"));
    assert!(disk.contains("names /vmlinuz-6.12: no file system here is UUID=b00t"), "{disk}");
    let firmware = sentence("uefi", &|_| {});
    assert!(firmware.contains("grub.cfg, line ") && firmware.contains("fwsetup"), "{firmware}");
    let strange = sentence("0", &|machine: &Scratch| machine.put("/boot/grub/grub.cfg", "frobnicate\n"));
    assert!(strange.contains("/boot/grub/grub.cfg: grub.cfg, line 1: the command 'frobnicate'"), "{strange}");
}

#[test]
fn fedoras_entries_come_through_grub_with_its_variables() {
    let machine = with_grub("${saved_entry}", "saved_entry=m-6.11.4-301.fc41\nkernelopts=root=UUID=7 ro\n");
    let config =
        "load_env\nset default=\"${saved_entry}\"\nsearch --fs-uuid --set=root b00t\ninsmod blscfg\nblscfg\n";
    machine.put("/boot/grub/grub.cfg", config);
    for (version, initrd) in [("6.9.1-200.fc40", ""), ("6.11.4-301.fc41", " $tuned_initrd")] {
        let name = format!("/boot/loader/entries/m-{version}.conf");
        let text = format!(
            "title Fedora {version}\nversion {version}\nlinux /vmlinuz-6.1\ninitrd /initrd.img-6.1{initrd}\n\
             options $kernelopts quiet\n"
        );
        machine.put(&name, &text);
    }
    let entry = choose(&machine.root, &Conf::default(), None).unwrap().entry;
    assert_eq!(entry.from.as_deref(), Some(Path::new("/boot/loader/entries/m-6.11.4-301.fc41.conf")));
    assert_eq!(entry.cmdline.as_deref(), Some("root=UUID=7 ro quiet"));
    assert_eq!(entry.initrds, [Path::new("/boot/initrd.img-6.1").into()]);
    let survey = Survey::of(&machine.root, &Conf::default());
    let ids: Vec<_> = survey.entries.iter().map(|entry| (entry.kind, entry.id.as_str())).collect();
    let installed = [(EntryKind::Convention, "6.1"), (EntryKind::Convention, "6.12")];
    let listed = [(EntryKind::Bls, "m-6.11.4-301.fc41"), (EntryKind::Bls, "m-6.9.1-200.fc40")];
    assert_eq!(ids, [listed, installed].concat());
}

/// Returns a board whose U-Boot reads extlinux.conf from a partition at /boot.
fn board() -> Scratch {
    let scratch = Scratch::new();
    scratch.put(
        "/proc/self/mountinfo",
        "1 0 254:3 / / rw - ext4 /dev/vda3 rw\n2 1 254:2 / /boot rw - ext4 /dev/vda2 rw\n",
    );
    for file in ["/boot/Image", "/boot/initrd.img", "/boot/extlinux/near"] {
        scratch.put(file, "x");
    }
    scratch.put(
        "/boot/extlinux/extlinux.conf",
        "default l1\nlabel l0\nlinux /Image\nappend root=/dev/vda3 single\n\
         label l1\nmenu label One\nlinux ../Image\ninitrd /initrd.img\nfdtdir /dtbs\nappend root=/dev/vda3\n",
    );
    scratch
}

#[test]
fn what_a_board_boots_is_staged_and_the_running_device_tree_goes_along() {
    let board = board();
    let no_tree = refused(&board, None);
    assert!(no_tree.contains("has a device tree (/dtbs)"), "{no_tree}");
    board.directory("/sys/firmware/devicetree/base");
    let Choice { entry, notes, .. } = choose(&board.root, &Conf::default(), None).unwrap();
    assert_eq!((entry.id.as_str(), entry.title.as_deref()), ("l1", Some("One")));
    assert_eq!(entry.kernel, Path::new("/boot/Image").into());
    assert_eq!(entry.cmdline.as_deref(), Some("root=/dev/vda3"));
    assert!(notes.iter().any(|note| note.contains("gets the running one's instead")), "{notes:?}");
    assert_eq!(choose(&board.root, &Conf::default(), Some("l0")).unwrap().entry.id, "l0");
}

#[test]
fn files_that_are_not_the_specifications_are_passed_over_with_a_word() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf", ".hidden.conf", "auto-x.conf", "b.conf~", "c+x.conf", "d+1-.conf"]);
    entries(&machine, XBOOTLDR, &["z.conf"]);
    machine.put("/boot/loader/entries.srel", "other\n");
    assert_eq!(
        ids(&machine),
        ["z.conf", "d+1-.conf", "c+x.conf", "a.conf"],
        "systemd-boot does not look at it"
    );
    set(&machine, "LoaderInfo", &[]);
    assert_eq!(ids(&machine), ["d+1-.conf", "c+x.conf", "a.conf"]);
    let notes = Survey::of(&machine.root, &Conf::default()).notes.join("\n");
    assert!(notes.contains("/boot/loader/entries.srel says \"other\""), "{notes}");
    machine.put("/boot/loader/entries.srel", "type1\n");
    assert!(ids(&machine).contains(&"z.conf".to_owned()));
}

#[test]
fn an_entry_that_cannot_be_read_is_no_entry_less() {
    let machine = machine();
    machine.put("/efi/loader/entries", "a file");
    let sentence = refused(&machine, None);
    assert!(sentence.contains("/efi/loader/entries cannot be read: Not a directory"), "{sentence}");
}

#[test]
fn what_is_not_understood_of_an_image_is_never_passed_over_in_silence() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf"]);
    let long = "x".repeat(20_000);
    put_image(&machine, "/efi/EFI/Linux/odd.efi", &[(".linux", "k"), (".osrel", OSREL), (".cmdline", &long)]);
    let sentence = refused(&machine, None);
    assert!(sentence.contains("/efi/EFI/Linux/odd.efi: its section .cmdline is longer"), "{sentence}");
    set(&machine, "LoaderEntryDefault", &["a.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a.conf");
    set(&machine, "LoaderEntryDefault", &["odd*"]);
    assert!(refused(&machine, None).contains("odd.efi"));
}

#[test]
fn a_files_name_means_the_first_profile_of_an_image() {
    let machine = machine();
    let sections = [(".linux", "k"), (".osrel", OSREL), (".profile", "ID=a\n"), (".profile", "ID=b\n")];
    put_image(&machine, "/efi/EFI/Linux/x.efi", &sections);
    for name in ["x", "x.efi", "/efi/EFI/Linux/x.efi"] {
        assert_eq!(choose(&machine.root, &Conf::default(), Some(name)).unwrap().entry.id, "x.efi", "{name}");
    }
    assert_eq!(choose(&machine.root, &Conf::default(), Some("x.efi@b")).unwrap().entry.id, "x.efi@b");
}

#[test]
fn a_profile_that_an_entry_of_type_1_names_is_not_chosen_unasked() {
    let machine = machine();
    put_image(&machine, "/efi/x.efi", &[(".linux", "k"), (".profile", "ID=a\n"), (".profile", "ID=b\n")]);
    machine.put("/efi/loader/entries/a.conf", "uki /x.efi\n");
    machine.put("/efi/loader/entries/b.conf", "uki /x.efi\nprofile 1\n");
    assert_eq!(ids(&machine), ["b.conf", "a.conf"]);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a.conf");
}

#[test]
fn an_entry_that_leaves_its_partition_is_refused_and_no_other_takes_its_place() {
    let machine = machine();
    machine.put("/efi/loader/entries/b.conf", "linux /k1\ninitrd /x/../i1\n");
    entries(&machine, ESP, &["a.conf"]);
    assert!(refused(&machine, None).contains("/efi/loader/entries/b.conf names \"/x/../i1\""));
}

#[test]
fn what_lies_on_another_disk_than_systemd_boot_is_not_its() {
    let machine = machine();
    entries(&machine, ESP, &["a.conf"]);
    entries(&machine, XBOOTLDR, &["z.conf"]);
    assert_eq!(chosen(&machine), "/boot/loader/entries/z.conf");
    let kind = "bc13c2ff-59e6-4262-a352-b275fd6f7172";
    let other = format!("E:ID_PART_ENTRY_TYPE={kind}\nE:ID_PART_ENTRY_UUID=2-2\nE:ID_PART_ENTRY_DISK=8:16\n");
    machine.put("/run/udev/data/b8:2", &other);
    assert_eq!(chosen(&machine), "/efi/loader/entries/a.conf");
}

#[test]
fn what_lies_below_a_boot_that_is_not_mounted_is_nothing_to_choose_from() {
    let machine = Scratch::new();
    machine.put("/proc/self/mountinfo", "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n");
    machine.put("/boot/vmlinuz-6.1", "x");
    machine.put("/boot/initrd.img-6.1", "x");
    machine.put("/etc/fstab", "UUID=gone /boot ext4 noauto\n");
    for name in [None, Some("6.1")] {
        let sentence = refused(&machine, name);
        assert!(sentence.contains("no file system here is UUID=gone; mount it"), "{sentence}");
    }
    machine.put("/etc/fstab", "");
    assert_eq!(choose(&machine.root, &Conf::default(), None).unwrap().entry.id, "6.1");
}

#[test]
fn a_link_that_leads_to_another_file_system_is_refused() {
    let machine = with_grub("0", "");
    std::fs::remove_file(machine.root.path("/boot/vmlinuz-6.12")).unwrap();
    machine.put("/usr/vmlinuz", "x");
    machine.link("/boot/vmlinuz-6.12", "/usr/vmlinuz");
    let sentence = refused(&machine, None);
    assert!(sentence.contains("/boot/vmlinuz-6.12 is a link to another file system"), "{sentence}");
}

#[test]
fn of_fedoras_entries_the_first_word_counts_and_an_empty_line_ends_them() {
    let machine = with_grub("0", "kernelopts=root=UUID=7\n");
    machine.put("/boot/grub/grub.cfg", "load_env\nsearch --fs-uuid --set=root b00t\nblscfg\n");
    assert!(refused(&machine, None).contains("none is there"));
    let text =
        "title One\noptions $kernelopts quiet\noptions b\nlinux /vmlinuz-6.1\n\ninitrd /initrd.img-6.1\n";
    machine.put("/boot/boot/loader/entries/m-6-1.conf", text);
    let entry = choose(&machine.root, &Conf::default(), None).unwrap().entry;
    assert_eq!((entry.cmdline.as_deref(), entry.initrds.len()), (Some("root=UUID=7 quiet"), 0));
}

/// Returns the command line of the entry that would be booted, or the reason why it is unknown.
fn line(scratch: &Scratch) -> String {
    let default = Survey::of(&scratch.root, &Conf::default()).default;
    default.map_or_else(|error| error.to_string(), |default| default.entry.cmdline.unwrap_or_default())
}

#[test]
fn patterns_fit_names_without_an_ending_where_the_boot_loader_has_it_so() {
    let machine = machine();
    for name in ["Pop_OS-current", "Pop_OS-oldkern"] {
        machine.put(&format!("/efi/loader/entries/{name}.conf"), &format!("linux /k1\noptions {name}\n"));
    }
    for (info, default, booted) in [
        ("systemd-boot 255.4-1ubuntu8.4pop0~1744", "Pop_OS-current", "Pop_OS-current"),
        ("systemd-boot 255.4-1ubuntu8.4pop0~1744", "Pop_OS-current.conf", "Pop_OS-current"),
        ("systemd-boot 255.4-1ubuntu8.4", "Pop_OS-current", "Pop_OS-oldkern"),
        ("systemd-boot 244.3", "pop_os-current", "Pop_OS-current"),
        ("systemd-boot 244.3", "pop_os-current.conf", "Pop_OS-oldkern"),
    ] {
        set(&machine, "LoaderInfo", &[info]);
        machine.put("/efi/loader/loader.conf", &format!("default {default}\n"));
        assert_eq!(line(&machine), booted, "{info}, {default}");
    }
}

/// Returns a machine without systemd-boot, with an ESP at /boot/efi.
fn without_systemd_boot() -> Scratch {
    let scratch = Scratch::new();
    scratch.put(
        "/proc/self/mountinfo",
        "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n2 1 8:1 / /boot/efi rw - vfat /dev/sda1 rw\n",
    );
    for (device, name) in [("8:1", "sda1"), ("8:3", "sda3")] {
        scratch.put(&format!("/run/udev/data/b{device}"), "E:ID_PART_ENTRY_DISK=8:0\n");
        scratch.put(&format!("/sys/class/block/{name}/dev"), device);
        scratch.put(&format!("/dev/{name}"), "");
    }
    for file in ["vmlinuz-1", "initramfs-1.img"] {
        scratch.put(&format!("/boot/{file}"), "x");
    }
    scratch
}

#[test]
fn extlinux_finds_its_menu_at_the_top_too() {
    for path in ["/boot/extlinux.conf", "/extlinux.conf"] {
        let machine = without_systemd_boot();
        let menu = "ui menu.c32\ndefault a\nlabel a\nlinux /boot/vmlinuz-1\nappend NEW\n";
        machine.put(path, menu);
        assert_eq!(line(&machine), "NEW", "{path}");
    }
}

#[test]
fn grubs_menu_is_the_one_on_the_esp_where_there_is_no_other_and_it_calls_none() {
    let menu = |line: &str| format!("menuentry 'A' --id a {{\n linux /boot/vmlinuz-1 {line}\n}}\n");
    let machine = without_systemd_boot();
    machine.put("/boot/efi/EFI/openEuler/grub.cfg", &menu("ESP"));
    machine.directory("/sys/firmware/efi");
    assert_eq!(line(&machine), "ESP");
    // The menu on the ESP may belong to another system, while this one's GRUB has its own directory built in.
    machine.put("/boot/grub2/grub.cfg", &menu("BOOT"));
    let several = line(&machine);
    assert!(
        several.contains("EFI/openEuler/grub.cfg") && several.contains("/boot/grub2/grub.cfg"),
        "{several}"
    );
    // A BIOS starts a boot loader from elsewhere, not from the ESP.
    std::fs::remove_dir_all(machine.root.path("/sys/firmware/efi")).unwrap();
    assert_eq!(line(&machine), "BOOT");
    machine.directory("/sys/firmware/efi");
    // The files of Debian and Fedora, of openSUSE, and the older one of SUSE.
    for calls in [
        "search --label boot --set prefix\nconfigfile $prefix/grub.cfg\n",
        "search --fs-uuid --set=root x\nset prefix=(${root})/boot/grub2\nsource \"${prefix}/grub.cfg\"\n",
        "set prefix=(${root})/boot/grub2\nnormal\n",
    ] {
        machine.put("/boot/efi/EFI/openEuler/grub.cfg", calls);
        assert_eq!(line(&machine), "BOOT", "{calls}");
    }
}

#[test]
fn where_the_convention_decides_beside_a_boot_loader_that_is_not_read_that_is_told() {
    let machine = without_systemd_boot();
    let notes = || choose(&machine.root, &Conf::default(), None).unwrap().notes;
    assert!(notes().iter().all(|note| !note.contains("not read from it")));
    // On a BIOS machine nothing reads the last one.
    let others = [
        "/boot/limine.conf",
        "/boot/refind_linux.conf",
        "/boot/firmware/config.txt",
        "/boot/efi/EFI/x/grub.cfg",
    ];
    for other in others {
        machine.put(other, "default a\n");
    }
    for other in others {
        let told = |note: &String| note.starts_with(&format!("warning: {other} is a boot loader's"));
        assert!(notes().iter().any(told), "{other}: {:?}", notes());
    }
}

#[test]
fn a_menu_as_large_as_a_disk_is_refused_and_not_read() {
    for path in ["/boot/grub/grub.cfg", "/boot/extlinux/extlinux.conf"] {
        let machine = without_systemd_boot();
        machine.put(path, "");
        let file = std::fs::File::options().write(true).open(machine.root.path(path)).unwrap();
        file.set_len(20 << 30).unwrap();
        assert!(line(&machine).contains("the file is larger than"), "{path}: {}", line(&machine));
    }
}
