//! Tests that nextkernel, systemd-boot itself and systemd's own `bootctl list` have the same entries in the same
//! order, and the same default.
//!
//! Left out are the differences between those two: bootctl lists entries whose kernel is missing or is for
//! another machine, and does not recognize some names ([`ODD`]).

use bed::disk::uki;
use bed::guest::whole::Guest;
use bed::harness::Test;
use serde_json::Value;
use std::collections::BTreeMap;

use super::esp::{Esp, set, variable};
use super::loader::{entries, rows, text};

/// Contents of an EFI system partition.
struct Case {
    /// Subject of the case.
    what: &'static str,
    /// Text of loader.conf.
    conf: &'static str,
    /// Boot Loader Specification Type #1 entries: file name, and the lines besides `linux`.
    entries: &'static [(&'static str, &'static str)],
    /// Type #2 entries: file name, and the image to copy.
    images: &'static [(&'static str, &'static str)],
    /// EFI variables that a person sets.
    told: &'static [(&'static str, &'static str)],
}

/// An empty case, for the fields that a case leaves out.
const NOTHING: Case = Case { what: "", conf: "", entries: &[], images: &[], told: &[] };

const ONE_SHOT: &str = "LoaderEntryOneShot";
const DEFAULT: &str = "LoaderEntryDefault";
const LAST_BOOTED: &str = "LoaderEntryLastBooted";

/// The images of [`uki::directory`] that are only listed, never booted.
const IMAGES: [&str; 3] = ["tiny.efi", "named.efi", "three.efi"];

const PLAIN: &[(&str, &str)] = &[("a.conf", ""), ("b.conf", ""), ("c.conf", "")];

/// Entries that are sorted by their versions.
const VERSIONS: &[(&str, &str)] = &[
    ("a.conf", "sort-key bed\nversion 6.9"),
    ("b.conf", "sort-key bed\nversion 6.10"),
    ("c.conf", "sort-key bed\nversion 6.10~rc1"),
    ("d.conf", "sort-key bed\nversion 6.10-rc1"),
    ("e.conf", "sort-key bed\nversion 6.10^p1"),
    ("f.conf", "sort-key bed\nversion 6.10.1"),
    ("g.conf", "sort-key bed\nversion 006.10"),
    ("h.conf", "sort-key bed"),
    ("i.conf", "sort-key bed\nversion 6.10+deb13-amd64"),
    ("j.conf", "sort-key bed\nversion 6.10_1"),
    ("k.conf", "sort-key bed\nversion v6"),
];

const CASES: &[Case] = &[
    Case {
        what: "versions stand in the names of the files",
        entries: &[
            ("bed-6.9.conf", ""),
            ("bed-6.10.conf", ""),
            ("bed-6.10-rc1.conf", ""),
            ("bed-6.10.1.conf", ""),
            ("bed.conf", ""),
            ("bed-.conf", ""),
            ("bed_6.conf", ""),
        ],
        ..NOTHING
    },
    Case { what: "versions are said", entries: VERSIONS, ..NOTHING },
    Case {
        what: "some have a sort-key, some have none, one has it twice, one has it empty",
        entries: &[
            ("z.conf", ""),
            ("a.conf", "version 99"),
            ("m.conf", "sort-key b\nversion 1"),
            ("n.conf", "sort-key a\nversion 1"),
            ("o.conf", "sort-key B\nversion 1"),
            ("p.conf", "sort-key a\nsort-key c\nversion 2"),
            ("q.conf", "sort-key\nversion 100"),
        ],
        ..NOTHING
    },
    Case {
        what: "machines are told apart before versions",
        entries: &[
            ("a.conf", "sort-key bed\nmachine-id 22222222222222222222222222222222\nversion 9"),
            ("b.conf", "sort-key bed\nmachine-id 11111111111111111111111111111111\nversion 1"),
            ("c.conf", "sort-key bed\nmachine-id 11111111111111111111111111111111\nversion 2"),
            ("d.conf", "sort-key bed\nversion 5"),
        ],
        ..NOTHING
    },
    Case {
        what: "tries are counted, and what is bad comes last",
        entries: &[
            ("d+0-3.conf", "sort-key a\nversion 9"),
            ("c+3.conf", "sort-key a\nversion 1"),
            ("b+1-2.conf", "sort-key a\nversion 3"),
            ("a.conf", "sort-key a\nversion 2"),
            ("e+0.conf", ""),
            ("f+0-1.conf", ""),
        ],
        ..NOTHING
    },
    Case {
        what: "what is bad is the default nevertheless",
        conf: "default bad*\n",
        entries: &[("a.conf", ""), ("bad+0-3.conf", "")],
        ..NOTHING
    },
    Case {
        what: "a plus makes no counter",
        entries: &[
            ("a+3x.conf", ""),
            ("b+1-.conf", ""),
            ("c++.conf", ""),
            ("bed-6.12.57+deb13-amd64.conf", ""),
            ("bed-6.12.58+deb13-amd64+2.conf", ""),
            ("d+.conf", ""),
            ("e+3+2.conf", ""),
        ],
        ..NOTHING
    },
    Case {
        what: "case does not matter to the default",
        conf: "default BETA.CONF\n",
        entries: &[("alpha.conf", ""), ("beta.conf", ""), ("gamma.conf", "")],
        ..NOTHING
    },
    Case {
        what: "the default is a pattern that fits several",
        conf: "default bed-?.[0-9]*.conf\n",
        entries: &[
            ("bed-6.x.conf", ""),
            ("bed-6.9.conf", ""),
            ("bed-6.10.conf", ""),
            ("bed-10.1.conf", ""),
            ("zed.conf", ""),
        ],
        ..NOTHING
    },
    Case { what: "the default is not there", conf: "default gone.conf\n", entries: PLAIN, ..NOTHING },
    Case {
        what: "lines end like those of DOS, comments and tabs stand between, and the last word counts",
        conf: "# default a.conf\r\ntimeout 3\r\n\r\ndefault a.conf\r\n\tdefault\tb.conf\r\n#default c.conf\r\n",
        entries: &[
            ("a.conf", "# title x\r\nsort-key\tb\r\n  version   1\r\n\r\n"),
            ("b.conf", "sort-key b\r\nversion 2\r\n"),
            ("c.conf", "sort-key a # no comment\r\n"),
        ],
        ..NOTHING
    },
    Case {
        what: "it counts once",
        conf: "default a.conf\n",
        entries: PLAIN,
        told: &[(DEFAULT, "b.conf"), (ONE_SHOT, "c.conf")],
        ..NOTHING
    },
    Case {
        what: "what counts once is not there, and a person's default comes before loader.conf's",
        conf: "default a.conf\n",
        entries: PLAIN,
        told: &[(DEFAULT, "B*"), (ONE_SHOT, "gone.conf")],
        ..NOTHING
    },
    Case {
        // bootctl takes the running entry for the one booted last.
        what: "the default is what was booted last",
        conf: "default @saved\n",
        entries: &[("a.conf", ""), (BOOTS.0, ""), ("z.conf", "")],
        told: &[(LAST_BOOTED, BOOTS.0)],
        ..NOTHING
    },
    Case {
        what: "titles are the same, and 'preferred' is no word of this version's",
        conf: "preferred a.conf\n",
        entries: &[
            ("a.conf", "title Bed\nversion 1\nsort-key x"),
            ("b.conf", "title Bed\nversion 2\nsort-key x"),
            ("c.conf", "title Bed\nversion 2\nsort-key x\nmachine-id 11111111111111111111111111111111"),
        ],
        ..NOTHING
    },
    Case {
        what: "unified kernel images stand beside them, one with three profiles",
        entries: &[
            ("a.conf", ""),
            ("b.conf", "sort-key bed\nversion 8"),
            ("c.conf", "sort-key bed\nversion 10"),
        ],
        images: &[
            ("tiny.efi", "tiny.efi"),
            ("named-2.efi", "named.efi"),
            ("three.efi", "three.efi"),
            ("twin.efi", "tiny.efi"),
        ],
        ..NOTHING
    },
    Case {
        what: "a profile of a counted image is the default",
        conf: "default three*@rescue\n",
        entries: &[("a.conf", "sort-key a")],
        images: &[("three+2-1.efi", "three.efi"), ("tiny+0-3.efi", "tiny.efi"), ("named.efi", "named.efi")],
        ..NOTHING
    },
];

/// Names that bootctl does not recognize, or sorts differently from systemd-boot: it sorts capital letters apart,
/// and orders equal versions in its own way.
const ODD: &[(&str, &str)] = &[
    ("bed-6.10~rc1.conf", ""),
    ("bed-6.10^p1.conf", ""),
    ("bed-06.10.conf", ""),
    ("Zeta.conf", ""),
    ("Delta.conf", "sort-key BED\nversion 6.10"),
];

/// The entry that the machine boots. No pattern of another case matches it.
const BOOTS: (&str, &str) =
    ("start.conf", "sort-key start\ninitrd /bed/initrd.img\noptions root=LABEL=root rw console=ttyS0");

pub fn entries_and_their_order_are_those_of_systemd_boot_and_of_bootctl(test: &Test) -> Result<(), String> {
    let (esp, made, image) = (Esp::new(test)?, uki::directory(test.image)?, test.image.files()?);
    esp.copy("bed/linux", &image.kernel())?;
    esp.copy("bed/initrd.img", &image.initrd())?;
    for image in IMAGES {
        esp.copy(&format!("bed/{image}"), &made.join(image))?;
        esp.copy(&format!("EFI/Linux/start-{image}"), &made.join(image))?;
    }
    // systemd-boot itself sorts only once, with the entries of all cases; of entries with the same name it gets
    // the first.
    let mut all = BTreeMap::from([BOOTS]);
    for (name, lines) in CASES.iter().flat_map(|case| case.entries).chain(ODD) {
        if !all.keys().any(|known| known.eq_ignore_ascii_case(name)) {
            all.insert(name, lines);
        }
    }
    for (name, lines) in all {
        esp.put(&format!("loader/entries/{name}"), entry(lines))?;
    }
    esp.put("loader/loader.conf", "default start.conf\n")?;
    let mut guest = esp.boot(test)?;
    let reported = format!(
        "cat {} | tail -c +5 | iconv -f UTF-16LE -t UTF-8 | tr '\\0' '\\n'",
        variable("LoaderEntries")
    );
    let reported = guest.ok(&reported)?;
    let reported: Vec<_> = reported.lines().filter(|id| !id.starts_with("auto-")).collect();
    let list = entries(&mut guest)?;
    let ours: Vec<_> = of_the_loader(&list).map(|row| id(row).to_lowercase()).collect();
    if ours != reported {
        return Err(guest.tell(&format!("systemd-boot has {reported:#?}\nnextkernel has {ours:#?}")));
    }
    let failures: Vec<_> = CASES.iter().filter_map(|case| prove(&mut guest, case).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(guest.tell(&failures.join("\n"))) }
}

/// Returns the text of an entry's file.
fn entry(lines: &str) -> String {
    format!("linux /bed/linux\n{lines}\n")
}

/// Returns the listed entries that the boot loader has, too.
fn of_the_loader(list: &Value) -> impl Iterator<Item = &Value> {
    rows(list).filter(|row| matches!(text(row, "source"), Some("bls" | "uki")))
}

/// Proves that bootctl lists the same entries, with the same default.
fn prove(guest: &mut Guest, case: &Case) -> Result<(), String> {
    guest.ok(&script(case))?;
    let json = guest.ok("bootctl list --json=short 2>/dev/null")?;
    let theirs: Value = serde_json::from_str(&json).map_err(|e| format!("{e}: {json}"))?;
    let all: Vec<_> = theirs.as_array().into_iter().flatten().collect();
    // The other entries are those that systemd-boot had when it started this machine.
    let is_there = |row: &&Value| matches!(text(row, "type"), Some("type1" | "type2"));
    let theirs: Vec<_> = all.iter().copied().filter(is_there).collect();
    let list = entries(guest)?;
    let ours: Vec<_> = of_the_loader(&list).collect();
    let ids = |rows: &[&Value]| rows.iter().map(|row| id(row)).collect::<Vec<_>>();
    let default = |rows: &[&Value], key| {
        rows.iter().filter(|row| row.get(key) == Some(&true.into())).map(|row| id(row)).collect::<Vec<_>>()
    };
    let (theirs, default_of_theirs) = (ids(&theirs), default(&all, "isDefault"));
    let (ours, default_of_ours) = (ids(&ours), default(&ours, "default"));
    if ours == theirs && default_of_ours == default_of_theirs && default_of_ours.len() == 1 {
        return Ok(());
    }
    Err(format!(
        "{}: bootctl has {theirs:?} and boots {default_of_theirs:?}, nextkernel {ours:?} and {default_of_ours:?}",
        case.what
    ))
}

/// Returns a row's id. bootctl appends the id of the first profile to an image's name; systemd-boot does not.
fn id(row: &Value) -> String {
    let id = text(row, "id").unwrap_or_default();
    id.strip_suffix("@base").unwrap_or(id).to_owned()
}

/// Returns shell lines that put a case on the partition.
fn script(case: &Case) -> String {
    let put = |path: &str, text: &str| format!("cat >'{path}' <<'END'\n{text}\nEND");
    let conf = put("loader/loader.conf", case.conf);
    let entries =
        case.entries.iter().map(|(name, lines)| put(&format!("loader/entries/{name}"), &entry(lines)));
    let images = case.images.iter().map(|(name, image)| format!("cp 'bed/{image}' 'EFI/Linux/{name}'"));
    let names = [ONE_SHOT, DEFAULT, LAST_BOOTED].map(variable).into_iter();
    let gone = names.map(|name| format!("[ ! -e {name} ] || {{ chattr -i {name}; rm {name}; }}"));
    let told = case.told.iter().map(|(name, value)| set(name, value));
    let empty = "set -e; cd /efi; rm -rf loader EFI/Linux; mkdir -p loader/entries EFI/Linux";
    let lines = [empty.to_owned(), conf].into_iter().chain(entries).chain(images).chain(gone).chain(told);
    lines.collect::<Vec<_>>().join("\n")
}
