//! Tests of reading a menu, and of choosing a label.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::entries::extlinux::choice::{Because, Undecided};
use crate::entries::extlinux::menu::{Config, Fdt, LineError, Linux, Wrong, path};

/// A file as in an image for a board.
const BOARD: &str = "\
# made by u-boot-update
DEFAULT l0
MENU TITLE U-Boot menu
PROMPT 0
TIMEOUT 50

label l0
	menu label Debian 13 6.12
	linux /boot/vmlinuz-6.12
	initrd /boot/initrd.img-6.12
	fdtdir /usr/lib/linux-image-6.12/
	append root=UUID=1 ro quiet

label l0r
	menu label Debian 13 6.12 (rescue target)
	linux /boot/vmlinuz-6.12
	initrd /boot/initrd.img-6.12
	fdt /boot/board.dtb
	append root=UUID=1 ro single
";

fn linux(text: &str) -> Result<Linux, Wrong> {
    Config::parse(format!("label x\n{text}").as_bytes()).unwrap().labels.remove(0).boots
}

fn next(text: &str) -> Result<(usize, Because), Undecided> {
    let labels = "label a\nlinux /a\nlabel b\nlinux /b\nlabel c\nlinux /c\n";
    Config::parse(text.replace("LABELS\n", labels).as_bytes()).unwrap().next()
}

#[test]
fn a_boards_menu_is_read_whole() {
    let config = Config::parse(BOARD.as_bytes()).unwrap();
    let titles: Vec<_> = config.labels.iter().map(|label| (label.line, label.title.as_str())).collect();
    assert_eq!(titles, [(7, "Debian 13 6.12"), (14, "Debian 13 6.12 (rescue target)")]);
    assert_eq!(
        config.labels[0].boots,
        Ok(Linux {
            kernel: "/boot/vmlinuz-6.12".into(),
            initrds: vec!["/boot/initrd.img-6.12".into()],
            options: "root=UUID=1 ro quiet".into(),
            fdt: Some(Fdt::Directory("/usr/lib/linux-image-6.12/".into())),
            overlays: vec![],
        })
    );
    assert_eq!(config.labels[1].boots.as_ref().unwrap().fdt, Some(Fdt::File("/boot/board.dtb".into())));
    assert_eq!(config.next(), Ok((0, Because::Default)));
    assert_eq!(config.timeout, Some(50));
}

#[test]
fn keywords_are_known_in_any_case_and_values_keep_theirs() {
    let boots =
        linux("  LINUX\t/A b \r\nInitrd /U,../I\nDEVICETREE-OVERLAY /1  /2\nAPPEND Root=X  # y").unwrap();
    assert_eq!(
        (boots.kernel.as_str(), boots.initrds.as_slice()),
        ("/A b", &["/U".to_owned(), "../I".to_owned()][..])
    );
    assert_eq!((boots.options.as_str(), boots.overlays.len()), ("Root=X  # y", 2));
    assert_eq!(linux("linux /a").unwrap_err().why, LineError::NoAppend);
    assert_eq!(linux("linux /a\nappend -").unwrap().options, "");
}

#[test]
fn an_initrd_may_be_named_in_append() {
    let boots = linux("kernel /a\nappend initrd=/u.img,/i.img root=x").unwrap();
    assert_eq!(boots.initrds, ["/u.img", "/i.img"]);
    assert_eq!(linux("linux /a\nappend xinitrd=1 noinitrd").unwrap().initrds, [""; 0]);
    let two = linux("linux /a\ninitrd /i\nappend initrd=/j").unwrap_err();
    assert_eq!(two.why, LineError::TwoInitrds);
}

#[test]
fn the_default_is_told_in_every_way_that_both_understand() {
    for (text, number, because) in [
        ("LABELS\n", 0, Because::First),
        ("default b\nLABELS\n", 1, Because::Default),
        ("LABELS\ndefault b\n", 1, Because::Default),
        ("ontimeout c\nLABELS\n", 2, Because::OnTimeout),
        ("LABELS\nmenu default\n", 2, Because::MenuDefault),
        ("default a\nLABELS\nmenu default\n", 0, Because::Default),
        ("ui menu.c32\nLABELS\nmenu default\n", 2, Because::MenuDefault),
        ("ui menu.c32\ndefault a\nLABELS\nmenu default\n", 0, Because::Default),
        ("default menu.c32\nLABELS\nmenu default\n", 2, Because::MenuDefault),
        ("default vesamenu.c32\nLABELS\n", 0, Because::First),
        ("ui menu.c32\ndefault b\nLABELS\n", 1, Because::Default),
        ("default b\nontimeout b\nLABELS\n", 1, Because::OnTimeout),
    ] {
        assert_eq!(next(text), Ok((number, because)), "{text:?}");
    }
}

#[test]
fn a_default_that_the_two_take_differently_is_refused() {
    for (text, says) in [
        ("", "there is no label"),
        ("default d\nLABELS\n", "'d', and no label"),
        ("default b quiet\nLABELS\n", "'b quiet', and no label"),
        ("default a\nLABELS\nlabel a\nlinux /z\n", "several labels"),
        ("default a\nontimeout b\nLABELS\n", "'b' or 'a'"),
        ("ui menu.c32\nmenu save\ndefault a\nLABELS\n", "line 2: by MENU SAVE"),
        (
            "default a\nLABELS\nmenu save\n",
            "by MENU SAVE syslinux begins with the label that was chosen last",
        ),
        ("LABELS\nmenu default\nlabel d\nmenu default\n", "'c' or 'd'"),
    ] {
        let undecided = next(text).unwrap_err().to_string();
        assert!(undecided.contains(says), "{text:?}: {undecided}");
    }
}

#[test]
fn a_label_that_starts_something_else_is_refused_and_the_others_stay() {
    for (text, line, says) in [
        ("localboot 0", 2, "LOCALBOOT"),
        ("com32 reboot.c32", 2, "COM32"),
        ("\nkernel memdisk.bin", 3, "'memdisk.bin'"),
        ("menu label x", 1, "no kernel"),
        ("linux /fit.itb#conf-1", 2, "FIT"),
        ("linux /a\nipappend 2", 3, "network"),
        ("linux /a\nappend x=${y}", 3, "'$'"),
        ("linux /a\nappend x='y'", 3, "'\\''"),
        ("linux /a\ninitrd /b\ninitrd /c", 4, "INITRD"),
        ("linux /a\nsay hello\nappend x", 4, "ends the label at line 3"),
    ] {
        let wrong = linux(text).unwrap_err();
        let why = wrong.to_string();
        assert!(wrong.line == line && why.contains(says), "{text:?}: {why}");
    }
    let common = Config::parse(b"append x\nlabel a\nlinux /a\nlabel b\nlinux /b\nappend y").unwrap();
    assert_eq!(common.labels[0].boots.as_ref().unwrap_err().why, LineError::Common);
    assert!(common.labels[1].boots.is_ok());
    let common = Config::parse(b"ui menu.c32\nappend x\nlabel a\nlinux /a\nsay b\ninitrd /i").unwrap();
    assert_eq!(common.labels[0].boots.as_ref().unwrap().options, "x");
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    for (text, line, says) in [
        ("\ninclude more.conf", 2, "'more.conf'"),
        ("menu include more.conf", 1, "'more.conf'"),
        ("frobnicate", 1, "'frobnicate' is no keyword"),
        ("f+5 help.txt", 1, "'f+5' is no keyword"),
        ("menu begin x", 1, "'MENU BEGIN'"),
        ("label", 1, "LABEL says nothing"),
        ("default", 1, "DEFAULT says nothing"),
        ("label a\nlinux", 2, "KERNEL says nothing"),
        ("text help\nlabel a\n", 3, "ENDTEXT"),
        ("label \u{1b}[2J", 1, "not plain text"),
    ] {
        let wrong = Config::parse(text.as_bytes()).unwrap_err();
        assert!(wrong.line == line && wrong.to_string().contains(says), "{text:?}: {wrong}");
    }
    assert_eq!(Config::parse(b"\n\xff").unwrap_err(), Wrong { line: 2, why: LineError::NotText });
    let text = b"label a\ntext help\nlabel b\nendtext\nf1 help.txt\nF12 x\n";
    assert_eq!(Config::parse(text).unwrap().labels.len(), 1);
}

#[test]
fn a_path_begins_at_the_top_or_at_the_directory() {
    assert_eq!(path("/boot/extlinux", "/vmlinuz"), "/vmlinuz");
    assert_eq!(path("/boot/extlinux/", "../vmlinuz"), "/boot/extlinux/../vmlinuz");
    assert_eq!(path("/", "vmlinuz"), "/vmlinuz");
}
