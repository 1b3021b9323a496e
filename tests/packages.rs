//! What `make deb` and `make rpm` have made, as files, and what rpm does with its own; tests/handoff has apt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::machine::Scratch;
use bed::{host, host_bytes};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The packages there are, all of one kind.
fn packages(suffix: &str) -> Vec<PathBuf> {
    let made = fs::read_dir(repository().join("target/package")).unwrap();
    let mut made: Vec<_> = made.map(|entry| entry.unwrap().path()).collect();
    made.retain(|path| path.to_string_lossy().ends_with(suffix));
    assert!(!made.is_empty(), "no {suffix}: `make deb rpm` makes them");
    made
}

fn sh(script: &str, arguments: &[PathBuf]) -> String {
    host(Command::new("sh").args(["-ec", script, "sh"]).args(arguments)).unwrap()
}

/// The names that come from `make install`, as every package should have them: manuals compressed.
fn installed() -> BTreeSet<String> {
    let script = "cd $1 && find usr etc ! -type d -printf '/%p\\n' 2>/dev/null || true";
    let names = sh(script, &[bed::vm_folder().join("installed")]);
    names
        .lines()
        .map(|name| if name.contains("/share/man/") { format!("{name}.gz") } else { name.into() })
        .collect()
}

#[test]
#[ignore = "`make deb` and `make rpm` make them first"]
fn two_builds_of_a_package_are_the_same_to_the_byte() {
    let again = Scratch::new().unwrap();
    for script in ["packaging/debian/build", "packaging/rpm/build"] {
        let mut build = Command::new(repository().join(script));
        host(build.env("OUT", again.path("")).env("TZ", "Asia/Tokyo").env("LC_ALL", "C.UTF-8")).unwrap();
    }
    for package in [packages(".deb"), packages(".rpm")].concat() {
        let other = fs::read(again.path(&package.file_name().unwrap().to_string_lossy())).unwrap();
        assert!(fs::read(&package).unwrap() == other, "{} differs", package.display());
    }
}

#[test]
#[ignore = "`make deb` makes them first"]
fn lintian_finds_nothing_but_what_is_overridden_with_a_reason() {
    let script = "lintian --allow-root --no-tag-display-limit --fail-on error,warning \"$@\"";
    let said = Command::new("sh").args(["-ec", script, "sh"]).args(packages(".deb")).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
#[ignore = "`make rpm` makes them first"]
fn an_rpm_brings_what_make_install_installs_and_its_scripts_run() {
    let rpms = packages(".x86_64.rpm");
    let rpm = rpms.first().unwrap();
    let listed = host(Command::new("rpm").arg("-qlp").arg(rpm)).unwrap();
    let unpacked = Scratch::new().unwrap();
    let cpio = host_bytes(Command::new("rpm2cpio").arg(rpm)).unwrap();
    fs::write(unpacked.path("cpio"), cpio).unwrap();
    sh("cd $1 && busybox cpio -id <cpio 2>/dev/null && rm cpio", &[unpacked.path("")]);
    let files = sh("cd $1 && find . ! -type d -printf '/%P\\n'", &[unpacked.path("")]);
    let files: BTreeSet<String> = files.lines().map(Into::into).collect();
    // Of the guests' tree without what is Debian's alone.
    let expected: BTreeSet<String> =
        installed().into_iter().filter(|file| !file.starts_with("/etc/")).collect();
    assert_eq!(files, expected);
    assert!(files.iter().all(|file| listed.lines().any(|line| line == file)), "{listed}");

    // A root with a shell for the scripts, and nothing that runs in it.
    let root = Scratch::new().unwrap();
    sh(
        "mkdir -p $1/bin $1/proc $1/run $1/var/lib $1/etc && cp $(command -v busybox) $1/bin/ && \
         chroot $1 /bin/busybox --install -s /bin && mkdir $1/run/nextkernel && touch $1/etc/nextkernel.conf",
        &[root.path("")],
    );
    let do_rpm = |words: &str| {
        let script = format!("rpm --root $1 --dbpath /var/lib/rpm --nodeps {words} 2>&1");
        sh(&script, &[root.path(""), rpm.clone()])
    };
    let all = || {
        // Folders that other packages share with it stay.
        let find = "cd $1 && find . -path ./var -prune -o ! -type d -print -o -name '*nextkernel*' -print";
        let names = sh(find, &[root.path("")]);
        names.lines().map(Into::into).collect::<BTreeSet<String>>()
    };
    let before = all();
    let said = do_rpm("-i $2");
    assert!(said.contains("nextkernel: at each shutdown systemd now calls"), "{said}");
    assert!(root.path("usr/lib/systemd/system-shutdown/nextkernel").exists());
    // A plan that nobody can read stands for what another version staged.
    fs::write(root.path("run/nextkernel/plan"), "nextkernel-plan 999\n").unwrap();
    let said = do_rpm("-U --replacepkgs $2");
    assert!(said.contains("a plan of version 999"), "{said}");
    assert!(!root.path("run/nextkernel/plan").exists());
    do_rpm("-e nextkernel");
    let left: Vec<_> = all().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(root.path("etc/nextkernel.conf").exists() && !root.path("run/nextkernel").exists());
}
