//! The guests' disks: Debian as mmdebstrap makes it, cached under a hash of the recipe.

mod forky;

use crate::host::paths::vm_directory;
use crate::host::{command, programs};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The packages of every guest, in addition to minbase. kexec-tools must not be among them, because the product
/// replaces it.
const PACKAGES: &str = "cpio,systemd,systemd-sysv,udev,kmod,dbus,linux-image-amd64,initramfs-tools,\
    zstd,strace,procps,e2fsprogs,util-linux,mount,sudo";

/// The packages of the demo, which needs fewer. [`KERNELS`] installs its kernels.
const DEMO: &str =
    "systemd,systemd-sysv,udev,kmod,dbus,linux-base,initramfs-tools,zstd,e2fsprogs,util-linux,mount";

/// Runs on the host with the new tree, before [`FINISH`]. It installs Debian's newest kernel but one and then the
/// newest, as an update would have done. The cloud flavour is the smallest that has the drivers of QEMU's
/// devices. If the archive has only one version of it, as after a point release, the other flavour's kernel
/// serves as the older one.
const KERNELS: &str = r#"set -e
    export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" DEBIAN_FRONTEND=noninteractive
    kernel() { apt-cache depends "$1" | sed -n "s/.*Depends: //p"; }
    newest=$(kernel linux-image-cloud-amd64)
    older=$(apt-cache pkgnames linux-image- | grep -x "linux-image-[0-9.]*+deb13[0-9.]*-cloud-amd64" |
        sort -V | sed "/^$newest\$/,\$d" | tail -n 1)
    [ -n "$older" ] || older=$(kernel linux-image-amd64)
    cd "$1/tmp"
    apt-get download -qq -o APT::Sandbox::User=root "$older" "$newest"
    for package in "$older" "$newest"; do
        chroot "$1" sh -c "dpkg -i /tmp/${package}_*.deb >/dev/null && rm /tmp/${package}_*.deb"
    done"#;

/// Boot loaders and their tools. None of these packages installs a boot loader anywhere by itself.
const LOADERS: &str = "systemd-boot-efi,grub-pc-bin,grub2-common,extlinux";

/// Runs on the host and puts Debian's static busybox beside the new tree, for every initramfs that the bed makes.
/// The host's own busybox may be linked dynamically, and the packages of the two exclude each other.
const BUSYBOX: &str = r#"set -e
    export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
    cd "$1/.."
    apt-get download -qq -o APT::Sandbox::User=root busybox-static
    dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xO --wildcards "*/bin/busybox" >busybox
    chmod +x busybox
    rm busybox-static_*.deb"#;

/// Runs in the new tree. The units that it masks cost seconds of an emulated boot and serve no test. The two
/// stamps say that /etc and /var are up to date, so that no caches are rebuilt at boot.
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
        systemd-hostnamed.socket systemd-sysext.socket \
        systemd-udev-load-credentials.service systemd-tmpfiles-setup-dev-early.service
    mkdir -p /etc/systemd/system-generators
    for name in debug getty hibernate-resume integritysetup rc-local run ssh system-update tpm2 veritysetup; do
        ln -s /dev/null /etc/systemd/system-generators/systemd-$name-generator
    done
    : >/etc/machine-id
    touch /etc/.updated /var/.updated";

/// Runs in a copy of the tree right after the tree is made, while the mirror still has the headers of this very
/// kernel. kexec-tools is there because the product is measured against it, and because people migrate from it.
const BUILDER: &str = "set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends make linux-headers-$(basename /usr/lib/modules/*) kexec-tools";

/// Runs in Debian 13's copy, too. It installs ukify, unpacks shim and GRUB as Debian has signed them, and
/// downloads the package of another kernel of the same source, the smallest there is.
const BUILDER_13: &str = "
    apt-get install -q -y --no-install-recommends systemd-ukify
    cd /tmp
    apt-get download -q shim-signed grub-efi-amd64-signed
    for package in *.deb; do dpkg-deb -x $package /; rm $package; done
    mkdir /kernel
    cd /kernel
    apt-get download -q $(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')";

/// The age at which an image of another recipe is removed.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The line of fstab that mounts a separate /boot.
const BOOT_IN_FSTAB: &str = "LABEL=boot /boot ext4 defaults 0 2\n";

/// The images of the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Debian 13, trixie: systemd 257.
    Debian13,
    /// Debian 12, bookworm: systemd 252.
    Debian12,
    /// Debian 13 with /boot on a disk of its own.
    Debian13SeparateBoot,
    /// Debian 12 with /boot on a disk of its own.
    Debian12SeparateBoot,
    /// Debian 13 with the running kernel and one that an update has installed. It has no boot loaders and no
    /// builder.
    Demo,
    /// Debian's next release, with the newest systemd and kernel that the tests meet. It has no builder.
    Forky,
}

/// The files of an image.
pub struct Files {
    directory: PathBuf,
    /// The link in the tree to the running kernel.
    kernel: &'static str,
}

impl Image {
    /// Returns the name that is appended to a test's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian13 => "debian_13",
            Self::Debian12 => "debian_12",
            Self::Debian13SeparateBoot => "debian_13_separate_boot",
            Self::Debian12SeparateBoot => "debian_12_separate_boot",
            Self::Demo => "demo",
            Self::Forky => "debian_forky",
        }
    }

    /// Returns the kernel options that the image needs in addition to a test's. Linux 7.2 panics at times if an
    /// emulated processor is too busy to see the timer tick ("IO-APIC + timer doesn't work").
    #[must_use]
    pub fn append(self) -> &'static str {
        if self == Self::Forky { "no_timer_check" } else { "" }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Debian13 | Self::Debian13SeparateBoot | Self::Demo => "trixie",
            Self::Debian12 | Self::Debian12SeparateBoot => "bookworm",
            Self::Forky => forky::SUITE,
        }
    }

    /// Returns the first part of the directory's name.
    fn prefix(self) -> &'static str {
        if self == Self::Demo { "demo" } else { self.suite() }
    }

    /// Returns the links in the tree to its kernel and its initrd.
    fn links(self) -> [&'static str; 2] {
        if self == Self::Demo { ["vmlinuz.old", "initrd.img.old"] } else { ["vmlinuz", "initrd.img"] }
    }

    /// Returns why its packages cannot be installed today, if they cannot. Only a suite that keeps changing may
    /// give a reason.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        (self == Self::Forky && self.files().is_err()).then(forky::missing).flatten()
    }

    /// Returns the image's files, and builds them first if they do not exist.
    pub fn files(self) -> Result<Files, String> {
        let (name, [kernel, _]) = (self.prefix(), self.links());
        let directory = vm_directory().join(format!("{name}-{:016x}", recipe(self)?));
        if directory.exists() {
            return Ok(Files { directory, kernel });
        }
        let missing = || forky::missing().filter(|_| self == Self::Forky).map_or(Ok(()), Err);
        missing()?;
        // Only one thread or process builds at a time. The others then find the directory.
        fs::create_dir_all(vm_directory()).map_err(|e| format!("target/vm: {e}"))?;
        let lock = File::create(vm_directory().join(format!("{name}.lock")))
            .map_err(|e| format!("target/vm/{name}.lock: {e}"))?;
        eprintln!("bed: no image {name} yet: building it, or waiting for who does (a minute)");
        let lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, e)| format!("target/vm/{name}.lock: {e}"))?;
        if !directory.exists() {
            missing()?;
            let part = vm_directory().join(format!("{name}.part"));
            build(self, &part, &lock)?;
            remove_stale(name)?;
            fs::rename(&part, &directory).map_err(|e| format!("{}: {e}", directory.display()))?;
            eprintln!("bed: the image {name} is ready");
        }
        Ok(Files { directory, kernel })
    }

    /// Returns the disk with /.
    #[must_use]
    pub fn root(self, files: &Files) -> PathBuf {
        match self {
            Self::Debian13 | Self::Debian12 | Self::Demo | Self::Forky => files.directory.join("root.ext4"),
            Self::Debian13SeparateBoot | Self::Debian12SeparateBoot => {
                files.directory.join("root-without-boot.ext4")
            }
        }
    }

    /// Returns the disk with /boot, if /boot has one of its own. The root finds it by its label.
    #[must_use]
    pub fn boot(self, files: &Files) -> Option<PathBuf> {
        match self {
            Self::Debian13 | Self::Debian12 | Self::Demo | Self::Forky => None,
            Self::Debian13SeparateBoot | Self::Debian12SeparateBoot => {
                Some(files.directory.join("boot.ext4"))
            }
        }
    }
}

impl Files {
    /// Returns the root as a directory of the host. It must not be written to.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// Returns the file with Debian's kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Returns the file with Debian's initrd for that kernel.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd.img")
    }

    /// Returns the file with Debian's busybox, which needs no library. The demo has none.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        self.directory.join("busybox")
    }

    /// Returns a root with a compiler and headers for that kernel, and with kexec-tools. Debian 13's also has
    /// ukify, the signed files of shim and GRUB, and another kernel's package in /kernel.
    #[must_use]
    pub fn builder(&self) -> PathBuf {
        self.directory.join("builder")
    }

    /// Returns a path for files that are made from the image and are removed with it.
    #[must_use]
    pub fn made(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the release of that kernel (`uname -r`).
    pub fn release(&self) -> Result<String, String> {
        let link = fs::read_link(self.tree().join(self.kernel))
            .map_err(|e| format!("/{} of the image: {e}", self.kernel))?;
        let name = link.file_name().unwrap_or_default().to_string_lossy();
        Ok(name.trim_start_matches("vmlinuz-").into())
    }
}

/// Returns the directory with the image's files that come from no package.
fn overlay() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest")
}

/// Returns a hash of this file, of the overlay and of the program built for it. Any change to the image changes
/// the hash.
fn recipe(image: Image) -> Result<u64, String> {
    let more = if image == Image::Forky { include_str!("forky.rs") } else { "" };
    let recipe = [include_str!("mod.rs"), include_str!("../../restored.c"), more].concat();
    hash(recipe.as_bytes(), &overlay())
}

/// Returns a hash of a recipe, and of the names and contents of all files below `directory`.
pub fn hash(recipe: &[u8], directory: &Path) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(recipe);
    let mut paths = vec![directory.to_owned()];
    while let Some(path) = paths.pop() {
        let failed = |e| format!("{}: {e}", path.display());
        if path.is_dir() {
            let entries = fs::read_dir(&path).map_err(failed)?;
            paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
            paths.sort();
        } else {
            hasher.write(path.strip_prefix(directory).unwrap_or(&path).as_os_str().as_encoded_bytes());
            hasher.write(&fs::read(&path).map_err(failed)?);
        }
    }
    Ok(hasher.finish())
}

fn build(image: Image, part: &Path, lock: &File) -> Result<(), String> {
    command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(part))?;
    fs::create_dir_all(part).map_err(|e| format!("{}: {e}", part.display()))?;
    let (suite, tree) = (image.suite(), part.join("tree"));
    // The overlay is installed before initramfs-tools is configured, so that the first initrd is the small one
    // already. mmdebstrap reports its progress on stderr, which is shown on the tests' own. A test can be killed.
    // Therefore mmdebstrap's stdin is the lock: the next builder waits until mmdebstrap is gone, too, and its
    // mounts in the tree go with it.
    let restored = part.join("restored");
    fs::write(&restored, programs::restored()?).map_err(|e| format!("{}: {e}", restored.display()))?;
    let packages = match (image, suite) {
        (Image::Demo, _) => DEMO.to_owned(),
        (_, "bookworm") => format!("{PACKAGES},{LOADERS}"),
        _ => format!("{PACKAGES},{LOADERS},systemd-boot-tools"),
    };
    let stdin = || lock.try_clone().map_err(|e| format!("target/vm/{}.lock: {e}", image.prefix()));
    let mut mmdebstrap = Command::new("unshare");
    mmdebstrap
        .args(["--mount", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={packages}"))
        .arg(format!("--essential-hook=cp -rT --preserve=mode '{}' \"$1\"", overlay().display()))
        .arg(format!("--essential-hook=install '{}' \"$1/usr/lib/bed/restored\"", restored.display()));
    if image == Image::Demo {
        // The audience of the demo need not see the text of these scripts.
        mmdebstrap.arg("--quiet").arg(format!("--customize-hook={KERNELS}"));
    } else {
        mmdebstrap.arg(format!("--customize-hook={BUSYBOX}"));
    }
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
    for (link, name) in image.links().into_iter().zip(["vmlinuz", "initrd.img"]) {
        fs::copy(tree.join(link), part.join(name)).map_err(|e| format!("/{link} of {suite}: {e}"))?;
    }
    disk(&tree, &part.join("root.ext4"), "root")?;
    if matches!(image, Image::Demo | Image::Forky) {
        return Ok(());
    }
    separate_boot(&tree, part)?;
    let builder = part.join("builder");
    command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(tree).arg(&builder))?;
    let more = if suite == "trixie" { BUILDER_13 } else { "" };
    let script = format!("{BUILDER}{more}\n    apt-get clean");
    command::run(Command::new("chroot").arg(&builder).args(["sh", "-c", &script]).stdin(stdin()?)).map(drop)
}

/// Runs mmdebstrap. An error contains the first error that mmdebstrap printed.
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

/// Removes images of older recipes, but not so early that another process could still use one.
fn remove_stale(name: &str) -> Result<(), String> {
    let entries = fs::read_dir(vm_directory()).map_err(|e| format!("target/vm: {e}"))?;
    for entry in entries.filter_map(Result::ok) {
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|t| t.elapsed().ok());
        let ours = entry.file_name().to_string_lossy().starts_with(&format!("{name}-"));
        if ours && age.is_some_and(|age| age > STALE) {
            command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(entry.path()))?;
        }
    }
    Ok(())
}

/// Makes the disks of an image with a separate /boot, and restores the tree afterwards.
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

/// Makes a sparse ext4 disk with the content of a directory.
pub fn disk(tree: &Path, file: &Path, label: &str) -> Result<(), String> {
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-L", label, "-d"]).arg(tree).arg(file).arg("2G");
    command::run(&mut mke2fs).map(drop)
}
