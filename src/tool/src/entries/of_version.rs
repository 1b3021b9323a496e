//! A kernel that is named by its version. The boot loader may have an entry for that very file, with a command
//! line and initrds of its own. If it has none, or several that differ, the running command line is taken. A
//! warning then names the words in it that no other boot would have.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::entries::entry::{Entry, EntryKind};
use crate::entries::survey::Survey;
use crate::image::cmdline;
use crate::machine::root::Root;

/// Parameters that a person types at a boot menu for a single boot. The init reads them, and initramfs-tools,
/// dracut and systemd (kernel-command-line(7), dracut.cmdline(7), initramfs-tools(7)).
const FOR_ONCE: [&str; 11] =
    ["single", "recovery", "s", "S", "1", "emergency", "rescue", "-b", "rd.break", "rd.emergency", "break"];

/// Parameters that staging adds if the configuration says so.
const OWN: [&str; 2] = ["panic=", "acpi_rsdp="];

/// Returns the boot loader's entry that starts a kernel of the convention, or else that kernel; and remarks on
/// it.
pub fn meant(root: &Root, survey: &Survey, installed: Entry) -> (Entry, Vec<String>) {
    let version = installed.id.clone();
    let mut that_load: Vec<&Entry> = Vec::new();
    let all: Vec<&Entry> = loaders(survey).filter(|entry| loads(root, entry, &installed)).collect();
    for entry in all.iter().copied().filter(|entry| entry.reason.is_none()) {
        // Debian's menu has the same entry twice, the second time in its submenu.
        let is_same = |other: &&Entry| other.cmdline == entry.cmdline && other.initrds == entry.initrds;
        if !that_load.iter().any(is_same) {
            that_load.push(entry);
        }
    }
    let hindered = all.iter().find(|entry| entry.reason.is_some());
    // If the ordinary entry cannot be read, its recovery entry is the only one left.
    let is_ordinary =
        |entry: &&&Entry| !entry.cmdline.iter().flat_map(|line| cmdline::parameters(line)).any(is_for_once);
    let only = that_load.first().filter(|_| that_load.len() == 1 && hindered.is_none());
    if let Some(one) = only.filter(is_ordinary) {
        let said = format!("{version} is started as the boot loader's entry {} starts it", one.id);
        return ((*one).clone(), vec![said]);
    }
    let running = cmdline::reused(root).unwrap_or_default();
    let is_running =
        |entry: &&&Entry| entry.cmdline.as_deref().map(cmdline::without_added).as_deref() == Some(&running);
    if let Some(one) = that_load.iter().find(is_running) {
        let said = format!(
            "{version} is started as the boot loader's entry {} starts it, which has the running command line",
            one.id
        );
        return ((*one).clone(), vec![said]);
    }
    let mut said: Vec<_> = strays(root, survey).into_iter().collect();
    said.extend(match (that_load.as_slice(), hindered) {
        ([], None) if loaders(survey).next().is_none() => None,
        ([], None) => Some(format!("no entry of the boot loader starts {version}: it gets the running command line")),
        (_, Some(hindered)) => Some(format!(
            "the boot loader's entry {} starts {version}, and cannot be staged (`nextkernel entries` says why): it gets the \
             running command line",
            hindered.id
        )),
        ([one], None) => Some(format!(
            "the boot loader's only entry for {version}, {}, is for one boot: it gets the running command line; name that \
             entry if it is meant",
            one.id
        )),
        (several, None) => {
            let ids: Vec<_> = several.iter().map(|entry| entry.id.as_str()).collect();
            Some(format!(
                "several entries of the boot loader start {version} ({}), and differ: it gets the running command line; \
                 name one of them for its own",
                ids.join(", ")
            ))
        }
    });
    (installed, said)
}

/// Returns the boot loader's own entries that have a command line.
fn loaders(survey: &Survey) -> impl Iterator<Item = &Entry> {
    survey.entries.iter().filter(|entry| {
        matches!(entry.kind, EntryKind::Bls | EntryKind::Grub | EntryKind::Extlinux)
            && entry.cmdline.is_some()
    })
}

/// Returns whether an entry starts the very file of an installed kernel.
fn loads(root: &Root, entry: &Entry, installed: &Entry) -> bool {
    let file = |path: &Path| root.path(path).metadata().ok().map(|found| (found.dev(), found.ino()));
    entry.kernel.section.is_none()
        && file(&entry.kernel.path).is_some_and(|file_of| file(&installed.kernel.path) == Some(file_of))
}

/// Returns a warning about the words in the running command line that no other boot would have, for a choice
/// that takes that line: words that are in no entry of the boot loader, or without such entries those that are
/// typed for a single boot.
pub fn strays(root: &Root, survey: &Survey) -> Option<String> {
    let running = cmdline::reused(root).unwrap_or_default();
    let has_entries = loaders(survey).next().is_some();
    let known = |word: &&str| {
        // Parameters that nextkernel itself added for the running kernel.
        if *word == cmdline::NO_SYSFB || OWN.iter().any(|name| word.starts_with(name)) {
            return true;
        }
        let in_entry = |entry: &Entry| {
            entry.cmdline.as_deref().is_some_and(|line| cmdline::parameters(line).any(|known| known == *word))
        };
        if has_entries { loaders(survey).any(in_entry) } else { !is_for_once(word) }
    };
    let strays: Vec<_> = cmdline::parameters(&running).filter(|word| !known(word) && *word != "--").collect();
    let strays = (!strays.is_empty()).then(|| crate::words::quoted::quoted(&strays.join(" "), 200))?;
    let why = if has_entries { "stand in no boot entry" } else { "are for one boot" };
    Some(format!(
        "warning: these words of the running command line {why}: {strays}; `--remove NAME` leaves one out"
    ))
}

fn is_for_once(word: &str) -> bool {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    FOR_ONCE.contains(&name)
        || (name == "systemd.unit" && value != "default.target")
        || (name == "init" && value.ends_with("sh"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::entries::{Choice, choose};
    use crate::machine::scratch::Scratch;
    use crate::request::conf::Conf;

    /// Returns a machine with GRUB's menu of these entries, each a title and a command line. The kernel is 6.2
    /// if the title contains a 2, else 6.1.
    fn machine(running: &str, entries: &[(&str, &str)]) -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/self/mountinfo", "1 0 8:3 / / rw - ext4 /dev/sda3 rw\n");
        scratch.put("/run/udev/data/b8:3", "E:ID_PART_ENTRY_DISK=8:0\n");
        scratch.put("/sys/class/block/sda3/dev", "8:3");
        scratch.put("/dev/sda3", "");
        scratch.put("/proc/cmdline", running);
        for version in ["6.1", "6.2"] {
            for file in ["vmlinuz-", "initrd.img-"] {
                scratch.put(&format!("/boot/{file}{version}"), file);
            }
        }
        let entry = |(title, line): &(&str, &str)| {
            let version = if title.contains('2') { "6.2" } else { "6.1" };
            format!(
                "menuentry '{title}' {{\n linux /boot/vmlinuz-{version} {line}\n initrd /boot/ucode /boot/initrd.img-{version}\n}}\n"
            )
        };
        scratch.put("/boot/ucode", "x");
        if !entries.is_empty() {
            scratch.put("/boot/grub/grub.cfg", &entries.iter().map(entry).collect::<String>());
        }
        scratch
    }

    /// Returns the command line, the number of initrds, and the notes.
    fn chosen(scratch: &Scratch, name: &str) -> (Option<String>, usize, String) {
        let Choice { entry, notes, .. } = choose(&scratch.root, &Conf::default(), Some(name)).unwrap();
        (entry.cmdline, entry.initrds.len(), notes.join("\n"))
    }

    #[test]
    fn a_version_means_the_boot_loaders_entry_for_that_very_kernel() {
        let machine = machine(
            "root=x single",
            &[("one", "root=x quiet"), ("one again", "root=x quiet"), ("2", "root=y")],
        );
        let (line, initrds, notes) = chosen(&machine, "6.1");
        assert_eq!((line.as_deref(), initrds), (Some("root=x quiet"), 2));
        assert!(notes.contains("6.1 is started as the boot loader's entry"), "{notes}");
    }

    #[test]
    fn where_several_differ_or_none_starts_it_the_running_line_is_taken_and_that_is_told() {
        let two = [("one", "root=x quiet"), ("one, recovery", "root=x single")];
        let (line, initrds, notes) = chosen(&machine("BOOT_IMAGE=/k root=x quiet", &two), "6.1");
        assert_eq!((line.as_deref(), initrds), (Some("root=x quiet"), 2));
        assert!(notes.contains("entry one starts it, which has the running command line"), "{notes}");
        assert!(!notes.contains("warning"), "{notes}");
        let (_, _, notes) = chosen(&machine("root=x quiet rd.break x=y", &two), "6.1");
        assert!(
            notes.contains("several entries of the boot loader start 6.1 (one, one, recovery), and differ"),
            "{notes}"
        );
        assert!(notes.contains("stand in no boot entry: 'rd.break x=y'; `--remove NAME`"), "{notes}");
        let (_, _, notes) = chosen(&machine("root=x quiet", &two), "6.2");
        assert!(notes.contains("no entry of the boot loader starts 6.2"), "{notes}");
    }

    #[test]
    fn a_recovery_entry_is_not_meant_by_a_version_even_where_it_is_the_only_one() {
        let machine = machine("root=x quiet", &[("one, recovery", "root=x single")]);
        let (line, _, notes) = chosen(&machine, "6.1");
        assert_eq!(line, None);
        assert!(notes.contains("only entry for 6.1, one, recovery, is for one boot"), "{notes}");
    }

    #[test]
    fn without_a_boot_loader_what_is_typed_for_once_is_told() {
        let (_, _, notes) =
            chosen(&machine("root=x single systemd.unit=rescue.target init=/bin/sh quiet", &[]), "6.1");
        assert!(
            notes.contains("are for one boot: 'single systemd.unit=rescue.target init=/bin/sh'"),
            "{notes}"
        );
        let (_, _, notes) = chosen(&machine("root=x quiet init=/nix/store/x/init", &[]), "6.1");
        assert_eq!(notes, "");
    }
}
