//! Tests the effect of package managers' hooks on the staged kernel: Debian's, as linux-image runs them, and
//! those of kernel-install.

use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::host::command;
use bed::host::scratch::Scratch;
use std::fs;
use std::process::Command;

use super::guides::{newly_installed, with_package};
use super::kexec::{UNSTAGED, boot, hand_over, wait_until};

/// Installs the running kernel again under another version, which boots with the running kernel's modules.
const NEW: &str = "old=$(uname -r) new=6.99-new
    cp /boot/vmlinuz-$old /boot/vmlinuz-$new && cp /boot/initrd.img-$old /boot/initrd.img-$new &&
    linux-update-symlinks install $new /boot/vmlinuz-$new";

/// Returns the last step of linux-image's maintainer scripts; the initrd exists, and is not built again.
fn hooks(script: &str, parameter: &str) -> String {
    format!(
        "export INITRD=No DEB_MAINT_PARAMS=\"'{parameter}'\"
        run-parts --report --exit-on-error --arg=6.99-new --arg=/boot/vmlinuz-6.99-new /etc/kernel/{script}.d"
    )
}

/// Does the last step of update-initramfs, with an initrd that writes a word to the kernel log.
const REBUILT: &str =
    "cd /tmp && mkdir -p conf/conf.d && echo 'echo built-again >/dev/kmsg' >conf/conf.d/word &&
    initrd=/boot/initrd.img-6.99-new && cp $initrd new && truncate -s %4 new &&
    find conf | cpio --quiet -o -H newc >>new && mv new $initrd &&
    run-parts --arg=6.99-new --arg=$initrd /etc/initramfs/post-update.d";

/// Makes a directory that apt(8) accepts as an archive: a package of another kernel, and a newer
/// linux-image-amd64 that depends on it. The latter is made up; the kernel package is Debian's, with its own
/// maintainer scripts.
const ARCHIVE: &str = "cp \"$1\"/*.deb . && mkdir -p meta/DEBIAN
    printf '%s\n' 'Package: linux-image-amd64' 'Version: 99' 'Architecture: amd64' 'Maintainer: nobody <nobody@localhost>' \
        \"Depends: $(dpkg-deb -f *.deb Package)\" 'Description: a newer kernel' >meta/DEBIAN/control
    dpkg-deb --root-owner-group -b meta meta.deb && rm -r meta
    for package in *.deb; do
        dpkg-deb -f $package
        printf '%s\n' \"Filename: $package\" \"Size: $(stat -c %s $package)\" \"SHA256: $(sha256sum <$package | head -c 64)\" ''
    done >Packages";

fn key(guest: &mut Guest, value: &str) -> Result<(), String> {
    let conf = format!("stage-on-update = {value}\\nloader = direct\\n");
    guest.ok(&format!("printf '{conf}' >/etc/nextkernel.conf")).map(drop)
}

fn staged(guest: &mut Guest, version: &str, on: &str) -> Result<String, String> {
    let plan = guest.ok("cat /run/nextkernel/plan")?;
    let has = |line: String| plan.lines().any(|other| other == line);
    if has(format!("kernel-from = /boot/vmlinuz-{version}")) && has(format!("on = {on}")) {
        return Ok(plan);
    }
    Err(guest.tell(&format!("{version} is not staged on {on}: {plan}")))
}

pub fn after_a_kernel_update_a_plain_reboot_starts_the_new_kernel_and_a_removed_one_is_unstaged(
    test: &Test,
) -> Result<(), String> {
    let mut guest = boot(test)?;
    key(&mut guest, "no")?;
    guest.ok(NEW)?;
    guest.ok(&format!("{}\n{UNSTAGED}", hooks("postinst", "configure")))?;
    key(&mut guest, "reboot")?;
    let said = guest.ok(&hooks("postinst", "configure"))?;
    if !said.contains("6.99-new is staged, after the update, for kexec reboot") {
        return Err(guest.tell(&said));
    }
    let first = staged(&mut guest, "6.99-new", "kexec reboot")?;
    guest.ok(REBUILT)?;
    if staged(&mut guest, "6.99-new", "kexec reboot")? == first {
        return Err(guest.tell("what was staged is stale"));
    }
    // systemd turns the reboot into a kexec, because the image is preloaded.
    hand_over(&mut guest, "systemctl reboot", "kexec")?;
    guest.ok("dmesg | grep built-again")?;

    // When the administrator sets the key back to `no`, the kernel stays staged but follows no more updates; its
    // removal unstages it.
    guest.ok(&hooks("postinst", "configure"))?;
    staged(&mut guest, "6.99-new", "kexec reboot")?;
    key(&mut guest, "no")?;
    guest.ok("rm /boot/*-6.99-new && linux-update-symlinks remove 6.99-new /boot/vmlinuz-6.99-new")?;
    guest.ok(&format!("{}\n{UNSTAGED}", hooks("postrm", "remove")))?;

    // Runs kernel-install(8) with our plugin alone; the others would only add a minute.
    key(&mut guest, "kexec")?;
    let plugin = "export KERNEL_INSTALL_PLUGINS=/usr/lib/kernel/install.d/95-nextkernel.install";
    guest.ok(&format!("{plugin}; kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r)"))?;
    let running = guest.ok("uname -r")?;
    staged(&mut guest, running.trim(), "kexec")?;
    guest.ok(&format!("{plugin}; kernel-install remove $(uname -r)\n{UNSTAGED}"))?;

    // The unit follows the link /vmlinuz. A staging that fails in between unstages, until there is an initrd
    // again.
    key(&mut guest, "no")?;
    guest.ok("systemctl start nextkernel-stage.service && [ -e /run/nextkernel/plan ]")?;
    guest.ok(NEW)?;
    wait_until(&mut guest, "grep -q 6.99-new /run/nextkernel/plan")?;
    guest.ok("mv /boot/initrd.img-6.99-new /boot/away")?;
    wait_until(&mut guest, UNSTAGED)?;
    guest.ok("mv /boot/away /boot/initrd.img-6.99-new")?;
    wait_until(&mut guest, "grep -q 6.99-new /run/nextkernel/plan")?;
    guest.ok(&format!("systemctl stop nextkernel-stage.service\n{UNSTAGED}")).map(drop)
}

pub fn after_apt_has_upgraded_the_kernel_a_reboot_starts_the_new_one_by_kexec(
    test: &Test,
) -> Result<(), String> {
    let installed = Scratch::new()?;
    with_package(&installed)?;
    let archive = installed.path("root/archive");
    fs::create_dir(&archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    let packages = test.image.files()?.builder().join("kernel");
    command::run(Command::new("sh").args(["-ec", ARCHIVE, "sh"]).arg(packages).current_dir(&archive))?;
    let mut guest = newly_installed(&Spec { installed: Some(installed.path("")), ..Spec::new(test) })?;
    key(&mut guest, "reboot")?;
    guest.ok("echo 'deb [trusted=yes] file:/root/archive ./' >/etc/apt/sources.list && apt-get update")?;
    let old = guest.boot.release.clone();
    let said = guest.ok("apt-get full-upgrade -y 2>&1")?;
    if !said.contains("is staged, after the update, for kexec reboot") {
        return Err(guest.tell(&said));
    }
    hand_over(&mut guest, "reboot", "kexec")?;
    if guest.boot.release == old {
        return Err(guest.tell("the old kernel runs once more"));
    }
    guest.ok("[ \"/boot/vmlinuz-$(uname -r)\" = \"$(readlink -f /vmlinuz)\" ]").map(drop)
}
