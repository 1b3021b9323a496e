//! The guests' disks: Debian as mmdebstrap makes it, cached by the hash of the recipe.

use crate::{forky, host, vm_folder};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What every guest has beyond minbase. kexec-tools must not be there: the product replaces it.
const PACKAGES: &str = "systemd,systemd-sysv,udev,kmod,dbus,linux-image-amd64,initramfs-tools,\
    zstd,strace,procps,e2fsprogs,util-linux,mount,sudo";

/// Boot loaders and their tools. None of these installs anything anywhere by itself.
const LOADERS: &str = "systemd-boot-efi,grub-pc-bin,grub2-common,extlinux";

/// Runs in the new tree. What it masks costs seconds of an emulated boot and serves no test; the
/// two stamps say that /etc and /var are up to date, which spares rebuilding caches at boot.
const FINISH: &str = "set -e
    passwd -q -d root
    systemctl -q enable bed-agent.service
    systemctl -q mask getty.target getty@tty1.service serial-getty@ttyS0.service \
        e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer \
        modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
        sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
        dev-mqueue.mount dev-hugepages.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service \
        systemd-hibernate-clear.service systemd-random-seed.service systemd-pstore.service \
        systemd-ask-password-console.path systemd-ask-password-wall.path systemd-creds.socket \
        systemd-hostnamed.socket systemd-sysext.socket
    : >/etc/machine-id
    touch /etc/.updated /var/.updated";

/// Runs in a copy of the tree, right after it: the mirror still has the headers of this very kernel. kexec-tools
/// is what the product is measured against, and what people migrate from.
const BUILDER: &str = "set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends make linux-headers-$(basename /usr/lib/modules/*) kexec-tools";

/// In Debian 13's, too: ukify; shim and GRUB, as Debian has them signed, only unpacked; and another kernel of the same
/// source, the smallest there is, as its package.
const BUILDER_13: &str = "
    apt-get install -q -y --no-install-recommends systemd-ukify
    cd /tmp
    apt-get download -q shim-signed grub-efi-amd64-signed
    for package in *.deb; do dpkg-deb -x $package /; rm $package; done
    mkdir /kernel
    cd /kernel
    apt-get download -q $(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')";

/// The age at which another recipe's image is removed.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// How a separate /boot is mounted.
const BOOT_IN_FSTAB: &str = "LABEL=boot /boot ext4 defaults 0 2\n";

/// The guests there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Debian 13, trixie: systemd 257.
    Debian13,
    /// Debian 12, bookworm: systemd 252.
    Debian12,
    /// Debian 13 with /boot on a disk of its own.
    Debian13SeparateBoot,
    /// Debian 12 in the same way.
    Debian12SeparateBoot,
    /// Debian's next release, with the newest systemd and kernel that the tests meet. It has no builder.
    Forky,
}

/// The files of an image.
pub struct Files(PathBuf);

impl Image {
    /// The name as it stands behind a test's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian13 => "debian_13",
            Self::Debian12 => "debian_12",
            Self::Debian13SeparateBoot => "debian_13_separate_boot",
            Self::Debian12SeparateBoot => "debian_12_separate_boot",
            Self::Forky => "debian_forky",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Debian13 | Self::Debian13SeparateBoot => "trixie",
            Self::Debian12 | Self::Debian12SeparateBoot => "bookworm",
            Self::Forky => forky::SUITE,
        }
    }

    /// Why its packages cannot be installed today, where that is so; only a suite that moves may answer this.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        (self == Self::Forky && self.files().is_err()).then(forky::missing).flatten()
    }

    /// The image's files, built first where they are not there yet.
    pub fn files(self) -> Result<Files, String> {
        let suite = self.suite();
        let folder = vm_folder().join(format!("{suite}-{:016x}", recipe(self)?));
        if folder.exists() {
            return Ok(Files(folder));
        }
        // One builder at a time, be it a thread or a process; the others then find the folder.
        fs::create_dir_all(vm_folder()).map_err(|e| format!("target/vm: {e}"))?;
        let lock = File::create(vm_folder().join(format!("{suite}.lock")))
            .map_err(|e| format!("target/vm/{suite}.lock: {e}"))?;
        eprintln!("bed: no image of {suite} yet: building it, or waiting for who does (a minute)");
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, e)| format!("target/vm/{suite}.lock: {e}"))?;
        if !folder.exists() {
            if let Some(why) = forky::missing().filter(|_| self == Self::Forky) {
                return Err(why);
            }
            let part = vm_folder().join(format!("{suite}.part"));
            build(self, &part, &lock)?;
            remove_stale(suite)?;
            fs::rename(&part, &folder).map_err(|e| format!("{}: {e}", folder.display()))?;
            eprintln!("bed: the image of {suite} is ready");
        }
        Ok(Files(folder))
    }

    /// The disk with /.
    #[must_use]
    pub fn root(self, files: &Files) -> PathBuf {
        match self {
            Self::Debian13 | Self::Debian12 | Self::Forky => files.0.join("root.ext4"),
            Self::Debian13SeparateBoot | Self::Debian12SeparateBoot => files.0.join("root-without-boot.ext4"),
        }
    }

    /// The disk with /boot, where that is one of its own; the root finds it by its label.
    #[must_use]
    pub fn boot(self, files: &Files) -> Option<PathBuf> {
        match self {
            Self::Debian13 | Self::Debian12 | Self::Forky => None,
            Self::Debian13SeparateBoot | Self::Debian12SeparateBoot => Some(files.0.join("boot.ext4")),
        }
    }
}

impl Files {
    /// The root as a folder of the host. Not to be written.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }

    /// Debian's kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.0.join("vmlinuz")
    }

    /// Debian's initrd for it.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.0.join("initrd.img")
    }

    /// A root with a compiler and headers for that kernel, and with kexec-tools; Debian 13's has ukify, the signed files
    /// of shim and GRUB, and in /kernel another kernel's package, too.
    #[must_use]
    pub fn builder(&self) -> PathBuf {
        self.0.join("builder")
    }

    /// A folder for what is made of the image, gone with it.
    #[must_use]
    pub fn made(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `uname -r` of that kernel.
    pub fn release(&self) -> Result<String, String> {
        let link =
            fs::read_link(self.tree().join("vmlinuz")).map_err(|e| format!("/vmlinuz of the image: {e}"))?;
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        Ok(name.trim_start_matches("vmlinuz-").into())
    }
}

/// What is laid into the image beside packages.
fn overlay() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest")
}

/// This file and the overlay: whatever changes the image changes the hash.
fn recipe(image: Image) -> Result<u64, String> {
    let more = if image == Image::Forky { include_str!("forky.rs") } else { "" };
    hash([include_str!("image.rs"), more].concat().as_bytes(), &overlay())
}

/// Of a recipe, and of the names and contents of the files that it takes.
pub fn hash(recipe: &[u8], folder: &Path) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(recipe);
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        let failed = |e| format!("{}: {e}", path.display());
        if path.is_dir() {
            let entries = fs::read_dir(&path).map_err(failed)?;
            paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
            paths.sort();
        } else {
            hasher.write(path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes());
            hasher.write(&fs::read(&path).map_err(failed)?);
        }
    }
    Ok(hasher.finish())
}

fn build(image: Image, part: &Path, lock: &File) -> Result<(), String> {
    let suite = image.suite();
    host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(part))?;
    fs::create_dir_all(part).map_err(|e| format!("{}: {e}", part.display()))?;
    let tree = part.join("tree");
    // The overlay goes in before initramfs-tools is configured: the first initrd is the small one.
    // mmdebstrap tells its progress on stderr, which is the tests' own. A test can be killed: its
    // stdin is the lock, so that the next builder waits until it is gone too, and what it mounted
    // in the tree goes with it.
    let tools = if suite == "bookworm" { "" } else { ",systemd-boot-tools" };
    let stdin = || lock.try_clone().map_err(|e| format!("target/vm/{suite}.lock: {e}"));
    let mut mmdebstrap = Command::new("unshare");
    mmdebstrap
        .args(["--mount", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={PACKAGES},{LOADERS}{tools}"))
        .arg(format!("--essential-hook=cp -rT --preserve=mode '{}' \"$1\"", overlay().display()));
    if image == Image::Forky {
        mmdebstrap.args(forky::options(part));
    }
    mmdebstrap.arg(format!("--customize-hook=chroot \"$1\" sh -c '{FINISH}'")).arg(suite).arg(&tree);
    if let Err(why) = told(mmdebstrap.stdin(stdin()?).stdout(Stdio::null())) {
        if image == Image::Forky {
            forky::remember(part, &why)?;
        }
        return Err(why);
    }
    for name in ["vmlinuz", "initrd.img"] {
        fs::copy(tree.join(name), part.join(name)).map_err(|e| format!("/{name} of {suite}: {e}"))?;
    }
    disk(&tree, &part.join("root.ext4"), "root")?;
    if image == Image::Forky {
        return Ok(());
    }
    separate_boot(&tree, part)?;
    let builder = part.join("builder");
    host(Command::new("cp").args(["-a", "--reflink=auto"]).arg(tree).arg(&builder))?;
    let more = if suite == "trixie" { BUILDER_13 } else { "" };
    let script = format!("{BUILDER}{more}\n    apt-get clean");
    host(Command::new("chroot").arg(&builder).args(["sh", "-c", &script]).stdin(stdin()?)).map(drop)
}

/// Runs mmdebstrap; an error has the first that it told of.
fn told(mmdebstrap: &mut Command) -> Result<(), String> {
    let failed = |e| format!("mmdebstrap: {e} (tests/prepare installs it)");
    let mut child = mmdebstrap.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut error = None;
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(failed)?;
        eprintln!("{line}");
        error = error.or_else(|| line.starts_with("E: ").then_some(line));
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("mmdebstrap: {status}: {}", error.unwrap_or_default()))
    }
}

/// Removes what an older recipe made, but not so soon that another process could still use it.
fn remove_stale(suite: &str) -> Result<(), String> {
    let entries = fs::read_dir(vm_folder()).map_err(|e| format!("target/vm: {e}"))?;
    for entry in entries.filter_map(Result::ok) {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|t| t.elapsed().ok());
        let ours = entry.file_name().to_string_lossy().starts_with(&format!("{suite}-"));
        if ours && age.is_some_and(|age| age > STALE) {
            host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(entry.path()))?;
        }
    }
    Ok(())
}

/// The same again with /boot apart; the tree is put back as it was.
fn separate_boot(tree: &Path, part: &Path) -> Result<(), String> {
    let (boot, fstab, aside) = (tree.join("boot"), tree.join("etc/fstab"), part.join("boot"));
    let failed = |e| format!("{}: {e}", boot.display());
    let before = fs::read(&fstab).map_err(failed)?;
    fs::rename(&boot, &aside).map_err(failed)?;
    fs::create_dir(&boot).map_err(failed)?;
    fs::write(&fstab, BOOT_IN_FSTAB).map_err(failed)?;
    disk(tree, &part.join("root-without-boot.ext4"), "root")?;
    disk(&aside, &part.join("boot.ext4"), "boot")?;
    fs::write(&fstab, before).map_err(failed)?;
    fs::remove_dir(&boot).map_err(failed)?;
    fs::rename(&aside, &boot).map_err(failed)
}

/// A sparse ext4 disk with a folder's content.
pub fn disk(tree: &Path, file: &Path, label: &str) -> Result<(), String> {
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-L", label, "-d"]).arg(tree).arg(file).arg("2G");
    host(&mut mke2fs).map(drop)
}
