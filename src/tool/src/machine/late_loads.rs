//! Services that load a kernel while the system goes down, and so replace the preloaded image. These are
//! units such as `kexec-load@.service` of Arch's wiki and `kexec-load.service` of openSUSE, and services of
//! other inits such as Gentoo's `kexec`. Debian's `LOAD_KEXEC` is not among them, because it loads nothing if
//! an image is loaded already.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::root::Root;

/// The directories that hold units and the links that enable them (systemd.unit(5)).
const DIRECTORIES: [&str; 8] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator.early",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Units that start what they pull in while the system goes down.
const GOING_DOWN: [&str; 6] = [
    "kexec.target",
    "reboot.target",
    "shutdown.target",
    "umount.target",
    "final.target",
    "systemd-kexec.service",
];

/// The directories from which other inits run scripts then: runlevels of `OpenRC` and System V, and runit's
/// directory.
const SCRIPTS: [&str; 4] =
    ["/etc/runlevels/default", "/etc/runlevels/shutdown", "/etc/rc6.d", "/etc/runit/shutdown.d"];

/// The options of kexec(8) that load the next kernel, and those with which it does not.
const LOAD: [(char, &str); 1] = [('l', "--load")];
const LOAD_NOTHING: [(char, &str); 4] =
    [('p', "--load-panic"), ('e', "--exec"), ('u', "--unload"), ('S', "--status")];

/// The short option of kexec(8) whose argument may follow in the same word (`--type`).
const WITH_ARGUMENT: char = 't';

/// Returns the name of the first such unit or script.
#[must_use]
pub fn find(root: &Root) -> Option<String> {
    let unit =
        DIRECTORIES.iter().flat_map(|directory| entries(&root.path(directory))).find_map(|directory| {
            let name = directory.file_name()?.to_str()?;
            let by = name.strip_suffix(".wants").or_else(|| name.strip_suffix(".requires"))?;
            entries(&directory).into_iter().find(|unit| loads(&text_of(root, unit), GOING_DOWN.contains(&by)))
        });
    let script = || {
        SCRIPTS
            .iter()
            .flat_map(|directory| entries(&root.path(directory)))
            .find(|script| script_loads(&text(script)))
    };
    Some(unit.or_else(script)?.file_name()?.to_string_lossy().into_owned())
}

/// Returns the paths in a directory, sorted by name.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn text(path: &Path) -> String {
    fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
}

/// Returns the text of a unit's file and of its drop-ins (systemd.unit(5)).
fn text_of(root: &Root, unit: &Path) -> String {
    let name = unit.file_name().unwrap_or_default().to_string_lossy();
    let template = name.split_once('@').map(|(first, _)| format!("{first}@.service"));
    let directories = [Some(name.clone().into_owned()), template].into_iter().flatten();
    let added = directories
        .flat_map(|name| DIRECTORIES.map(|directory| root.path(directory).join(format!("{name}.d"))));
    let added = added.flat_map(|directory| entries(&directory));
    std::iter::once(unit.to_path_buf()).chain(added).map(|path| text(&path) + "\n").collect()
}

/// Whether a unit runs such a load when it stops, or when it starts if it is started while the system goes
/// down.
fn loads(unit: &str, starts_going_down: bool) -> bool {
    unit.replace("\\\n", " ").lines().any(|line| {
        line.split_once('=').is_some_and(|(key, command)| {
            let key = key.trim();
            let counts = key.starts_with("ExecStop") || (starts_going_down && key.starts_with("ExecStart"));
            counts && runs_a_load(command, |_| true)
        })
    })
}

/// Whether a script loads the next kernel even if an image is loaded.
fn script_loads(script: &str) -> bool {
    let lines = script.replace("\\\n", " ");
    let mut lines = lines.lines().filter(|line| !line.trim_start().starts_with('#'));
    !script.contains("kexec_loaded")
        && lines.any(|line| runs_a_load(line, |words| words.iter().any(|word| is_one_of(word, &LOAD))))
}

/// Whether a command in a line is kexec(8), or a program whose name begins with `kexec`, and loads the next
/// kernel.
fn runs_a_load(line: &str, loads: impl Fn(&[&str]) -> bool) -> bool {
    line.split([';', '&', '|']).any(|command| {
        let words = command.split(|c: char| c.is_whitespace() || "\"'()".contains(c));
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let program = |word: &&str| {
            let name = word.rsplit('/').next().unwrap_or_default();
            name.trim_start_matches(['-', '+', '!', '@', ':']).to_owned()
        };
        let is_systemctl = words.first().is_some_and(|word| program(word) == "systemctl");
        let at = words.iter().position(|word| program(word).starts_with("kexec")).filter(|_| !is_systemctl);
        let options = at.and_then(|at| words.get(at + 1..));
        options.is_some_and(|options| {
            loads(options) && !options.iter().any(|option| is_one_of(option, &LOAD_NOTHING))
        })
    })
}

/// Returns whether a word is one of these options. Several short ones may be in one word (getopt(3)).
fn is_one_of(word: &str, options: &[(char, &str)]) -> bool {
    let letters = word.strip_prefix('-').filter(|letters| !letters.starts_with('-')).unwrap_or_default();
    let mut letters = letters.chars().take_while(|letter| *letter != WITH_ARGUMENT);
    options.iter().any(|(_, long)| *long == word)
        || letters.any(|letter| options.iter().any(|(short, _)| *short == letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    const WIKI: &str = "[Service]\nExecStart=/usr/bin/kexec -l /boot/vmlinuz-%i --reuse-cmdline\n";

    #[test]
    fn a_unit_that_loads_as_the_system_goes_down_is_found_where_it_is_enabled() {
        let scratch = Scratch::new();
        scratch.put("/etc/systemd/system/kexec-load@.service", WIKI);
        assert_eq!(find(&scratch.root), None, "nobody starts it");
        scratch.link(
            "/etc/systemd/system/kexec.target.wants/kexec-load@linux.service",
            "/etc/systemd/system/kexec-load@.service",
        );
        assert_eq!(find(&scratch.root).as_deref(), Some("kexec-load@linux.service"));
    }

    #[test]
    fn what_loads_nothing_for_the_next_kernel_or_loads_by_day_is_none() {
        assert!(loads(WIKI, true) && !loads(WIKI, false));
        assert!(loads("ExecStop=/bin/sh -c '/sbin/kexec -l /vmlinuz; true'", false));
        assert!(loads("ExecStopPost=-/usr/sbin/kexec-bootloader", false));
        assert!(loads("ExecStop=/bin/sh -c 'kexec -u; kexec -s \\\n -l /vmlinuz'", false));
        for harmless in [
            "ExecStart=systemctl --force kexec",
            "ExecStart=/sbin/kexec -p /vmlinuz",
            "ExecStop=/sbin/kexec -p -u",
            "ExecStop=/sbin/kexec --unload",
            "#ExecStop=/sbin/kexec -l /vmlinuz",
            "ExecStart=/usr/sbin/kdump-config load",
            "Documentation=man:kexec(8)",
        ] {
            assert!(!loads(harmless, true), "{harmless}");
        }
    }

    #[test]
    fn what_is_added_to_a_unit_counts_and_so_do_scripts_of_other_inits() {
        let scratch = Scratch::new();
        scratch.put(
            "/etc/systemd/system/multi-user.target.wants/x@1.service",
            "[Service]\nExecStart=/bin/true\n",
        );
        assert_eq!(find(&scratch.root), None);
        scratch.put(
            "/etc/systemd/system/x@.service.d/load.conf",
            "[Service]\nExecStop=/sbin/kexec -l /vmlinuz\n",
        );
        assert_eq!(find(&scratch.root).as_deref(), Some("x@1.service"));

        let openrc = Scratch::new();
        openrc
            .put("/etc/runlevels/default/kexec", "stop() {\n\t/usr/sbin/kexec ${opts} -l \"${kernel}\"\n}\n");
        assert_eq!(find(&openrc.root).as_deref(), Some("kexec"));
        let debian = "test \"x`cat /sys/kernel/kexec_loaded`y\" = \"x1y\" && exit 0\n/sbin/kexec -l \"$KERNEL_IMAGE\"\n";
        openrc.put("/etc/runlevels/default/kexec", debian);
        assert_eq!(find(&openrc.root), None);
        assert!(!script_loads("# kexec -l\nneed kexec\nkexec -p -l /vmlinuz\n"));
        assert!(script_loads("kexec -sl /vmlinuz\n") && script_loads("kexec -ls /vmlinuz\n"));
        assert!(!script_loads("kexec -sp /vmlinuz\n") && !script_loads("kexec -telf-x86_64 /vmlinuz\n"));
    }
}
