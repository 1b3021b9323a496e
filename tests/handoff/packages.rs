//! Tests installing, updating and removing Debian's package with apt.

use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::host::command;
use bed::host::scratch::Scratch;
use bed::image;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::kexec::{UNSTAGED, hand_over};

/// Lists the files of the root, except for those that apt, dpkg and systemd write for any package.
const FILES: &str = "find /etc /usr /var -xdev \\( -path /var/log -o -path /var/cache -o -path /var/lib/apt \
    -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/tmp \\) -prune -o -print | sort";

/// Returns the package that `make deb` made, and proves that it holds the current build.
pub fn deb() -> Result<PathBuf, String> {
    let made = bed::host::paths::vm_directory().with_file_name("package");
    let names = fs::read_dir(&made).map_err(|e| format!("{}: {e} (make deb)", made.display()))?;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("nextkernel_") && name.ends_with("-1_amd64.deb")
    };
    let debs: Vec<_> = names.filter_map(Result::ok).map(|entry| entry.path()).filter(is_ours).collect();
    let [deb] = debs.as_slice() else {
        return Err(format!("{}: {} packages for amd64; `make deb` makes one", made.display(), debs.len()));
    };
    let same = "for program in usr/bin/nextkernel usr/lib/systemd/system-shutdown/nextkernel; do
        dpkg-deb --fsys-tarfile \"$1\" | tar -xO ./$program | cmp - \"$2/$program\"
    done";
    command::run(
        Command::new("sh")
            .args(["-ec", same, "sh"])
            .arg(deb)
            .arg(bed::host::paths::vm_directory().join("installed")),
    )
    .map_err(|e| format!("the package is not of what is built now: make deb ({e})"))?;
    Ok(deb.clone())
}

/// Returns a directory with the package and its successor: a higher version, with another hook.
fn debs() -> Result<Scratch, String> {
    let deb = deb()?;
    let scratch = Scratch::new()?;
    // A program runs unchanged with extra bytes at the end of its file.
    let script = "mkdir debs && cp $0 debs/nextkernel.deb && dpkg-deb -R $0 next && \
        echo >>next/usr/lib/systemd/system-shutdown/nextkernel && \
        sed -i 's/^Version: .*/&.1/' next/DEBIAN/control && dpkg-deb --root-owner-group -b next debs/next.deb && \
        rm -r next";
    command::run(Command::new("sh").args(["-ec", script]).arg(deb).current_dir(scratch.path("")))?;
    image::disk(&scratch.path("debs"), &scratch.path("debs.ext4"), "DEBS")?;
    Ok(scratch)
}

pub fn installed_used_updated_and_purged_by_apt_nothing_is_left(test: &Test) -> Result<(), String> {
    let debs = debs()?;
    let drive = format!("file={},format=raw,if=virtio,readonly=on", debs.path("debs.ext4").display());
    let qemu = vec!["-drive".into(), drive];
    let mut guest = Guest::boot(&Spec { installed: None, qemu, ..Spec::new(test) })?;
    guest.ok("! command -v nextkernel")?;
    let before = guest.ok(FILES)?;
    let enabled = "find /etc/systemd -type l | sort";
    let enabled_before = guest.ok(enabled)?;
    guest.ok("mount -o ro LABEL=DEBS /mnt")?;
    let installed = guest.ok("apt-get install -q -y /mnt/nextkernel.deb 2>&1")?;
    says(&guest, &installed, "no unit was enabled")?;
    let enabled_after = guest.ok(enabled)?;
    if enabled_after != enabled_before {
        return Err(guest.tell(&format!("units were enabled:\n{enabled_before}\n{enabled_after}")));
    }

    // After an update while a kernel is staged, the kernel stays staged, and the new hook hands over, also from
    // the exitrd.
    guest.ok("systemctl enable --now nextkernel-exitrd && nextkernel stage --loader direct")?;
    guest.ok("cp /run/nextkernel/plan /root/plan")?;
    let updated = guest.ok("apt-get install -q -y /mnt/next.deb 2>&1")?;
    says(&guest, &updated, "what is staged stays staged")?;
    guest.ok("cmp /run/nextkernel/plan /root/plan && rm /root/plan")?;
    guest.ok("cmp /usr/lib/systemd/system-shutdown/nextkernel /run/initramfs/shutdown")?;
    hand_over(&mut guest, "systemctl kexec", "kexec")?;

    // A plan that the new hook cannot read is refused while the system runs.
    guest.ok("mount -o ro LABEL=DEBS /mnt && nextkernel stage --loader direct")?;
    guest.ok("sed -i '1s/2$/999/' /run/nextkernel/plan")?;
    let refused = guest.ok("dpkg -i /mnt/next.deb 2>&1")?;
    says(&guest, &refused, "a plan of version 999, and only version ")?;
    guest.ok(UNSTAGED)?;

    guest.ok("nextkernel stage --loader direct && echo 'panic = 30' >/etc/nextkernel.conf")?;
    guest.ok("systemctl enable nextkernel-stage@$(uname -r)")?;
    guest.ok("apt-get remove -q -y nextkernel 2>&1")?;
    guest.ok(&format!("{UNSTAGED} && [ -e /etc/nextkernel.conf ]"))?;
    guest.ok("! mountpoint -q /run/initramfs")?;
    guest.ok("apt-get purge -q -y nextkernel 2>&1")?;
    let left =
        guest.ok("find /run -name '*nextkernel*'; systemctl list-units --all --no-legend 'nextkernel*'")?;
    let after = guest.ok(FILES)?;
    let left = left.lines().chain(after.lines().filter(|line| !before.lines().any(|known| known == *line)));
    let left: Vec<_> = left.collect();
    if left.is_empty() { Ok(()) } else { Err(guest.tell(&format!("left behind: {left:#?}"))) }
}

fn says(guest: &Guest, output: &str, sentence: &str) -> Result<(), String> {
    if output.contains(sentence) {
        return Ok(());
    }
    Err(guest.tell(&format!("{sentence:?} is not said:\n{output}")))
}
