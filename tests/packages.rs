//! Tests the packages that `make deb` and `make rpm` have made, as files, and their installation by rpm and, for
//! Arch's, by pacman; tests/handoff tests apt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::host::command;
use bed::host::scratch::Scratch;
use bed::image::Image;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Returns all packages of one kind.
fn packages(suffix: &str) -> Vec<PathBuf> {
    let made = fs::read_dir(repository().join("target/package")).unwrap();
    let mut made: Vec<_> = made.map(|entry| entry.unwrap().path()).collect();
    made.retain(|path| path.to_string_lossy().ends_with(suffix));
    assert!(!made.is_empty(), "no {suffix}: `make deb rpm` makes them");
    made
}

fn sh(script: &str, arguments: &[PathBuf]) -> String {
    command::run(Command::new("sh").args(["-ec", script, "sh"]).args(arguments)).unwrap()
}

/// Returns the names that `make install` installs, as every package should have them: with compressed manuals.
fn installed() -> BTreeSet<String> {
    let script = "cd $1 && find usr etc ! -type d -printf '/%p\\n' 2>/dev/null || true";
    let names = sh(script, &[bed::host::paths::vm_directory().join("installed")]);
    names
        .lines()
        .map(|name| if name.contains("/share/man/") { format!("{name}.gz") } else { name.into() })
        .collect()
}

fn busybox() -> PathBuf {
    Image::Debian13.files().unwrap().busybox()
}

/// Returns a root with a shell for scripts, in which nothing runs.
fn root_with_a_shell() -> Scratch {
    let root = Scratch::new().unwrap();
    sh(
        "mkdir -p $1/usr/bin $1/dev $1/proc $1/run $1/var/lib $1/etc && ln -s usr/bin $1/bin && \
         mknod -m 666 $1/dev/null c 1 3 && cp $2 $1/bin/ && chroot $1 /bin/busybox --install -s /bin",
        &[root.path(""), busybox()],
    );
    root
}

/// Returns the files in a root, without the package manager's own; directories shared with other packages may
/// stay.
fn names_in(root: &Scratch) -> BTreeSet<String> {
    let find = "cd $1 && find . -path ./var -prune -o ! -type d -printf '/%P\\n' \
                -o -name '*nextkernel*' -printf '/%P/\\n'";
    sh(find, &[root.path("")]).lines().map(Into::into).collect()
}

#[test]
#[ignore = "`make deb` and `make rpm` make them first"]
fn two_builds_of_a_package_are_the_same_to_the_byte() {
    let again = Scratch::new().unwrap();
    for script in ["packaging/debian/build", "packaging/rpm/build"] {
        let mut build = Command::new(repository().join(script));
        command::run(build.env("OUT", again.path("")).env("TZ", "Asia/Tokyo").env("LC_ALL", "C.UTF-8"))
            .unwrap();
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
    let listed = command::run(Command::new("rpm").arg("-qlp").arg(rpm)).unwrap();
    let unpacked = Scratch::new().unwrap();
    let cpio = command::run_bytes(Command::new("rpm2cpio").arg(rpm)).unwrap();
    fs::write(unpacked.path("cpio"), cpio).unwrap();
    sh("cd $1 && $2 cpio -id <cpio 2>/dev/null && rm cpio", &[unpacked.path(""), busybox()]);
    let files = sh("cd $1 && find . ! -type d -printf '/%P\\n'", &[unpacked.path("")]);
    let files: BTreeSet<String> = files.lines().map(Into::into).collect();
    // /etc in the guests' tree is Debian's alone.
    let expected: BTreeSet<String> =
        installed().into_iter().filter(|file| !file.starts_with("/etc/")).collect();
    assert_eq!(files, expected);
    assert!(files.iter().all(|file| listed.lines().any(|line| line == file)), "{listed}");

    let root = root_with_a_shell();
    sh("mkdir $1/run/nextkernel && touch $1/etc/nextkernel.conf", &[root.path("")]);
    let do_rpm = |words: &str| {
        let script = format!("rpm --root $1 --dbpath /var/lib/rpm --nodeps {words} 2>&1");
        sh(&script, &[root.path(""), rpm.clone()])
    };
    let before = names_in(&root);
    let said = do_rpm("-i $2");
    assert!(said.contains("nextkernel: at each shutdown systemd now calls"), "{said}");
    assert!(root.path("usr/lib/systemd/system-shutdown/nextkernel").exists());
    // An unreadable plan stands in for one that another version staged.
    fs::write(root.path("run/nextkernel/plan"), "nextkernel-plan 999\n").unwrap();
    let said = do_rpm("-U --replacepkgs $2");
    assert!(said.contains("a plan of version 999"), "{said}");
    assert!(!root.path("run/nextkernel/plan").exists());
    do_rpm("-e nextkernel");
    let left: Vec<_> = names_in(&root).difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(root.path("etc/nextkernel.conf").exists() && !root.path("run/nextkernel").exists());
}

/// Makes the package of the PKGBUILD in a directory with makepkg, as nobody because makepkg refuses root.
fn makepkg(directory: &Path, words: &str) {
    let script = format!(
        "chown -R nobody: $1 && cd $1 && rm -f ./*.pkg.tar && HOME=$1 PKGEXT=.pkg.tar \
         setpriv --reuid nobody --regid nogroup --clear-groups makepkg --nodeps {words} >&2"
    );
    sh(&script, &[directory.into()]);
}

/// Files that Arch's package adds to those of `make install`.
const ARCH: [&str; 5] = [
    "/usr/lib/initcpio/install/nextkernel",
    "/usr/lib/initcpio/post/zzz-nextkernel",
    "/usr/lib/tmpfiles.d/30-nextkernel.conf",
    "/usr/share/libalpm/hooks/zzz-nextkernel.hook",
    "/usr/share/licenses/nextkernel/LICENSE",
];

/// Makes stand-ins that print their arguments, and the files that systemd-tmpfiles would then find.
const SYSTEMD: &str = r#"
    for name in systemctl systemd-tmpfiles; do
        printf '#!/bin/sh\necho "told: ${0##*/} $*:" /usr/lib/tmpfiles.d/*\n' >$1/bin/$name
        chmod +x $1/bin/$name
    done
    mkdir -p $1/run/systemd/system $1/usr/lib/tmpfiles.d
    touch $1/usr/lib/tmpfiles.d/others"#;

#[test]
#[ignore = "`make guest-install` makes what it packs"]
fn pacman_runs_the_scripts_of_what_makepkg_makes_and_its_hook_for_every_kernel() {
    let [arch, linux] = [(); 2].map(|()| Scratch::new().unwrap());
    // The root is laid out like Arch's.
    let root = root_with_a_shell();
    // The sources are already built: makepkg runs only `package`.
    let sources = arch.path(&format!("src/nextkernel-{}", env!("CARGO_PKG_VERSION")));
    sh(
        "mkdir -p $2 && cd $1 && tar -c --exclude=target --exclude=.git . | tar -x -C $2 && \
         cp -r --parents target/built target/manuals $2 && cp packaging/arch/* $3",
        &[repository(), sources, arch.path("")],
    );
    // nextkernel does nothing in a chroot. To it this one looks like the running system, whose first process has
    // the same root.
    sh(
        "mkdir -p $1/proc/self/ns $1/proc/1 && ln -s 'pid:[4026531836]' $1/proc/self/ns/pid && ln -s / $1/proc/1/root",
        &[root.path("")],
    );
    sh(
        "mkdir $1/run/nextkernel $1/var/lib/pacman && echo stage-on-update=kexec >$1/etc/nextkernel.conf",
        &[root.path("")],
    );
    let pacman = |words: &str, from: &Scratch| {
        let script = format!("pacman --root $1 --config /dev/null --noconfirm {words} 2>&1");
        let said = sh(&script, &[root.path(""), from.path("")]);
        // pacman continues after a failed script or hook.
        assert!(!said.contains("error"), "{said}");
        said
    };
    let before = names_in(&root);

    makepkg(&arch.path(""), "--repackage");
    let said = pacman("-U $2/*.pkg.tar", &arch);
    assert!(said.contains("nextkernel: at each shutdown systemd now calls"), "{said}");
    let mut files = names_in(&root);
    files.retain(|name| !name.ends_with('/') && !before.contains(name));
    let mut expected = installed();
    expected.retain(|file| !file.starts_with("/etc/"));
    expected.extend(ARCH.map(Into::into));
    assert_eq!(files, expected);

    // The tool itself prints the outcome: there is nothing in /boot to stage.
    let nothing = "nextkernel: after the update nothing new is staged: no kernel is found";
    let install = || {
        let said = pacman("-U $2/*.pkg.tar", &linux);
        assert!(said.contains(nothing), "{said}");
    };
    for version in ["6.12.1", "6.12.2"] {
        let text = format!(
            "pkgname=linux pkgver={version} pkgrel=1 arch=(any)\n\
             package() {{ install -D \"$startdir/PKGBUILD\" \"$pkgdir/usr/lib/modules/$pkgver-arch1-1/vmlinuz\"; }}\n"
        );
        fs::write(linux.path("PKGBUILD"), text).unwrap();
        makepkg(&linux.path(""), "");
        install();
    }
    // Another version is another file, which is installed; only the same file again is an upgrade.
    install();
    let said = pacman("-R linux", &linux);
    assert!(said.contains(nothing), "{said}");

    // An unreadable plan stands in for one that another version staged.
    fs::write(root.path("run/nextkernel/plan"), "nextkernel-plan 999\n").unwrap();
    sh("sed -i s/^pkgrel=1/pkgrel=2/ $1/PKGBUILD", &[arch.path("")]);
    makepkg(&arch.path(""), "--repackage");
    let said = pacman("-U $2/*.pkg.tar", &arch);
    assert!(said.contains("a plan of version 999"), "{said}");
    assert!(!root.path("run/nextkernel/plan").exists());

    // mkinitcpio must no longer look for our build hook; the files of other packages stay.
    sh(SYSTEMD, &[root.path("")]);
    let said = pacman("-R nextkernel", &arch);
    let told = "told: systemd-tmpfiles --create --prefix=/run/initramfs/mkinitcpio-shutdown.conf: \
                /usr/lib/tmpfiles.d/others\n";
    assert!(said.contains(told), "{said}");
    sh("rm $1/bin/systemctl $1/bin/systemd-tmpfiles $1/usr/lib/tmpfiles.d/others", &[root.path("")]);
    let left: Vec<_> = names_in(&root).difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(root.path("etc/nextkernel.conf").exists() && !root.path("run/nextkernel").exists());
}

#[test]
#[ignore = "it takes root, as its neighbours do"]
fn an_alpine_kernel_is_told_of_when_apk_has_done_all_else() {
    let root = root_with_a_shell();
    sh(
        "mkdir -p $1/boot $1/usr/local/bin && touch $1/boot/vmlinuz-lts && \
         printf '#!/bin/sh\\necho \"$*\"\\n' >$1/usr/local/bin/nextkernel && chmod +x $1/usr/local/bin/nextkernel && \
         make --silent -C $2 install-alpine DESTDIR=$1",
        &[root.path(""), repository()],
    );
    let run = |hook: &str, words: &str| {
        // apk sets this PATH.
        let path = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        sh(&format!("{path} chroot $1 /etc/{hook}/zzz-nextkernel.hook {words}"), &[root.path("")])
    };
    let (kernel, commit) = ("kernel-hooks.d", "apk/commit_hooks.d");
    assert_eq!(run(commit, "post-commit"), "", "no kernel was changed");
    assert_eq!(run(kernel, "lts 6.12.2-0 6.12.1-0"), "", "mkinitfs builds its initramfs only now");
    // Here only the modules of an older kernel were removed, and then a whole kernel was.
    assert_eq!(run(kernel, "lts '' 6.12.1-0"), "");
    assert_eq!(run(kernel, "virt '' 6.12.1-0"), "");
    assert_eq!(run(commit, "pre-commit"), "");
    assert_eq!(run(commit, "post-commit"), "updated\nupdated\nupdated --removed virt\n");
    assert_eq!(run(commit, "post-commit"), "", "once");
}
