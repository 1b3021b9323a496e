//! What `make deb` and `make rpm` have made, as files, and what rpm does with its own and pacman with Arch's;
//! tests/handoff has apt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a check of the build fails by panicking")]
#![allow(missing_docs, reason = "nothing here is public")]

use bed::image::Image;
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

fn busybox() -> PathBuf {
    Image::Debian13.files().unwrap().busybox()
}

/// A root with a shell for scripts, and nothing that runs in it.
fn root_with_a_shell() -> Scratch {
    let root = Scratch::new().unwrap();
    sh(
        "mkdir -p $1/usr/bin $1/dev $1/proc $1/run $1/var/lib $1/etc && ln -s usr/bin $1/bin && \
         mknod -m 666 $1/dev/null c 1 3 && cp $2 $1/bin/ && chroot $1 /bin/busybox --install -s /bin",
        &[root.path(""), busybox()],
    );
    root
}

/// What lies in a root, but for the package manager's own; folders that other packages share with ours stay.
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
    sh("cd $1 && $2 cpio -id <cpio 2>/dev/null && rm cpio", &[unpacked.path(""), busybox()]);
    let files = sh("cd $1 && find . ! -type d -printf '/%P\\n'", &[unpacked.path("")]);
    let files: BTreeSet<String> = files.lines().map(Into::into).collect();
    // Of the guests' tree without what is Debian's alone.
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
    // A plan that nobody can read stands for what another version staged.
    fs::write(root.path("run/nextkernel/plan"), "nextkernel-plan 999\n").unwrap();
    let said = do_rpm("-U --replacepkgs $2");
    assert!(said.contains("a plan of version 999"), "{said}");
    assert!(!root.path("run/nextkernel/plan").exists());
    do_rpm("-e nextkernel");
    let left: Vec<_> = names_in(&root).difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(root.path("etc/nextkernel.conf").exists() && !root.path("run/nextkernel").exists());
}

/// Has makepkg make the package of the PKGBUILD in a folder; it refuses root.
fn makepkg(folder: &Path, words: &str) {
    let script = format!(
        "chown -R nobody: $1 && cd $1 && rm -f ./*.pkg.tar && HOME=$1 PKGEXT=.pkg.tar \
         setpriv --reuid nobody --regid nogroup --clear-groups makepkg --nodeps {words} >&2"
    );
    sh(&script, &[folder.into()]);
}

/// What Arch's package has beside what `make install` installs.
const ARCH: [&str; 5] = [
    "/usr/lib/initcpio/install/nextkernel",
    "/usr/lib/initcpio/post/zzz-nextkernel",
    "/usr/lib/tmpfiles.d/30-nextkernel.conf",
    "/usr/share/libalpm/hooks/zzz-nextkernel.hook",
    "/usr/share/licenses/nextkernel/LICENSE",
];

/// Stand-ins that tell how they are called, and what systemd-tmpfiles would find then.
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
    // Laid out as Arch's.
    let root = root_with_a_shell();
    // The sources, and built already: makepkg runs `package` alone.
    let sources = arch.path(&format!("src/nextkernel-{}", env!("CARGO_PKG_VERSION")));
    sh(
        "mkdir -p $2 && cd $1 && tar -c --exclude=target --exclude=.git . | tar -x -C $2 && \
         cp -r --parents target/built target/manuals $2 && cp packaging/arch/* $3",
        &[repository(), sources, arch.path("")],
    );
    // nextkernel leaves a chroot alone: to it this one is the running system, whose first process is in the same root.
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
        // pacman goes on where a script or a hook has failed.
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

    // The tool itself tells what became of it: nothing in /boot could be staged.
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
    // Another version is another file, which is installed; only the same again is upgraded.
    install();
    let said = pacman("-R linux", &linux);
    assert!(said.contains(nothing), "{said}");

    // A plan that nobody can read stands for what another version staged.
    fs::write(root.path("run/nextkernel/plan"), "nextkernel-plan 999\n").unwrap();
    sh("sed -i s/^pkgrel=1/pkgrel=2/ $1/PKGBUILD", &[arch.path("")]);
    makepkg(&arch.path(""), "--repackage");
    let said = pacman("-U $2/*.pkg.tar", &arch);
    assert!(said.contains("a plan of version 999"), "{said}");
    assert!(!root.path("run/nextkernel/plan").exists());

    // mkinitcpio is to look for our build hook no longer; what others want of it stays.
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
        // With the path that apk gives it.
        let path = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin";
        sh(&format!("{path} chroot $1 /etc/{hook}/zzz-nextkernel.hook {words}"), &[root.path("")])
    };
    let (kernel, commit) = ("kernel-hooks.d", "apk/commit_hooks.d");
    assert_eq!(run(commit, "post-commit"), "", "no kernel was changed");
    assert_eq!(run(kernel, "lts 6.12.2-0 6.12.1-0"), "", "mkinitfs builds its initramfs only now");
    // The modules of an older one went alone, and a kernel did.
    assert_eq!(run(kernel, "lts '' 6.12.1-0"), "");
    assert_eq!(run(kernel, "virt '' 6.12.1-0"), "");
    assert_eq!(run(commit, "pre-commit"), "");
    assert_eq!(run(commit, "post-commit"), "updated\nupdated\nupdated --removed virt\n");
    assert_eq!(run(commit, "post-commit"), "", "once");
}
