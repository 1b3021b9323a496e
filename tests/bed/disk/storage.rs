//! Disks whose root is on storage that has to be closed: Debian 13 as in the other guests, with Debian's own
//! tools for that storage, cached by a recipe of their own. The host needs no device mapper, because a guest
//! makes the disks, in a minute.

use crate::disk::disks::Disks;
use crate::host::command;
use crate::host::paths::vm_directory;
use crate::host::scratch::Scratch;
use crate::image::{self, Image};
use crate::initramfs::modules::Modules;
use crate::initramfs::{program, with_busybox};
use crate::machine::setup::{Architecture, Setup, Starts};
use crate::machine::{End, Machine};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The storage that the root is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// ext4 in LUKS in a logical volume. The key is in the initrd.
    Luks,
    /// ext4 on a mirror of two disks.
    Md,
    /// btrfs on a disk.
    Btrfs,
}

/// The directory with the image's files.
pub struct Files(PathBuf);

/// Runs in a copy of the tree. It makes an initrd for an encrypted root and one for any other root. udev finds
/// both roots.
const INSTALL: &str = "set -e
    export DEBIAN_FRONTEND=noninteractive
    release=$(basename /usr/lib/modules/*)
    updates=/etc/initramfs-tools/update-initramfs.conf
    sed -i s/update_initramfs=yes/update_initramfs=no/ $updates
    rm /etc/initramfs-tools/scripts/init-*/udev
    apt-get update -q
    apt-get install -q -y --no-install-recommends cryptsetup-initramfs systemd-cryptsetup lvm2 mdadm \
        btrfs-progs dracut-core
    apt-get clean
    sed -i s/update_initramfs=no/update_initramfs=yes/ $updates
    (umask 77; mkdir /etc/keys; printf 'the bed opens this' >/etc/keys/root.key)
    echo 'KEYFILE_PATTERN=/etc/keys/*.key' >>/etc/cryptsetup-initramfs/conf-hook
    printf '%s\\n' dm_crypt aesni_intel xts raid1 btrfs >>/etc/initramfs-tools/modules
    echo 'ARRAY /dev/md0 UUID=6e657874:6b65726e:656c0000:00000001' >>/etc/mdadm/mdadm.conf
    : >/etc/machine-id
    touch /etc/.updated /var/.updated
    update-initramfs -u -k $release
    cp /boot/initrd.img-$release /plain.img
    echo 'cryptroot /dev/mapper/bed-root /etc/keys/root.key luks,initramfs' >/etc/crypttab
    update-initramfs -u -k $release
    mv /boot/initrd.img-$release /luks.img
    rm /etc/crypttab";

/// Removes everything that no test needs, because every byte is written through an emulated cipher.
const STRIP: &str = "cd \"$1\" && rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/i18n \
    usr/share/perl usr/share/zoneinfo usr/lib/python3* usr/lib/grub usr/share/grub usr/lib/systemd/boot \
    usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin var/lib/apt/lists/* var/cache/* plain.img luks.img && \
    cd usr/lib/modules/*/kernel && rm -rf net sound && cd drivers && \
    ls | grep -v -x -e md -e virtio -e block -e char -e dax | xargs rm -rf";

/// Makes the disks, in a guest. Their content is there already. vda has the content of the volume. vdc and vdd
/// are a mirror as soon as they are declared one, because metadata 1.0 is at the end.
const PREPARE: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
export DM_DISABLE_UDEV=1
prepare() {
    set -e
    for module in virtio_blk dm_crypt xts aesni_intel raid1; do modprobe $module; done
    lvm pvcreate -q -y /dev/vdb
    lvm vgcreate -q bed /dev/vdb
    lvm lvcreate -q -y -Wn -Zn -l 100%FREE -n root bed
    cryptsetup luksFormat -q --uuid 6e657874-6b65-726e-656c-000000000002 --pbkdf pbkdf2 \
        --pbkdf-force-iterations 1000 --key-file /key /dev/mapper/bed-root
    cryptsetup open --key-file /key /dev/mapper/bed-root cryptroot
    dd if=/dev/vda of=/dev/mapper/cryptroot bs=1M
    cryptsetup close cryptroot
    lvm vgchange -q -an bed
    mdadm --create /dev/md0 --run --level=1 --metadata=1.0 --assume-clean --bitmap=none --raid-devices=2 \
        --homehost=any --name=root --uuid=6e657874:6b65726e:656c0000:00000001 /dev/vdc /dev/vdd
    mdadm --stop /dev/md0
    sync
}
(prepare) && echo 'THE DISKS ARE MADE'
poweroff -f
";

/// The programs that [`PREPARE`] runs.
const PROGRAMS: [&str; 3] = ["/usr/sbin/lvm", "/usr/sbin/cryptsetup", "/usr/sbin/mdadm"];
const MODULES: [&str; 5] = ["virtio_blk", "dm_crypt", "xts", "aesni_intel", "raid1"];
/// The limit for [`PREPARE`], which takes half a minute on an idle host.
const PREPARE_LIMIT: Duration = Duration::from_secs(400);

/// The size of the ext4 file systems, and the sizes of the disks: with LVM's and LUKS' headers, with the
/// mirror's, and with btrfs.
const SIZE: &str = "320M";
const VOLUME_SIZE: u64 = 348 << 20;
const MIRROR_SIZE: u64 = 324 << 20;
const BTRFS_SIZE: u64 = 512 << 20;

impl Storage {
    /// Returns the disks and the initrd that a guest with this storage boots from.
    pub fn disks(self) -> Result<Disks, String> {
        let files = files()?;
        let (disks, initrd, root): (&[&str], _, _) = match self {
            Self::Luks => (&["luks.disk"], "luks.img", "/dev/mapper/cryptroot"),
            Self::Md => (&["mirror.0", "mirror.1"], "plain.img", "/dev/md0"),
            Self::Btrfs => (&["btrfs.disk"], "plain.img", "/dev/vda"),
        };
        let disks = disks.iter().map(|disk| files.0.join(disk)).collect();
        Ok(Disks { disks, initrd: files.0.join(initrd), root: root.into(), are_shared: true })
    }
}

impl Files {
    /// Returns the whole root, with initramfs-tools, dracut and every module. It must not be written to.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.0.join("tree")
    }
}

/// Returns the image's files, and builds them first if they do not exist.
pub fn files() -> Result<Files, String> {
    let base = Image::Debian13.files()?;
    let recipe = format!("{}{}", include_str!("storage.rs"), base.tree().display());
    let nothing = Scratch::new()?;
    let directory =
        vm_directory().join(format!("storage-{:016x}", image::hash(recipe.as_bytes(), &nothing.path(""))?));
    if directory.exists() {
        return Ok(Files(directory));
    }
    let lock = File::create(vm_directory().join("storage.lock"))
        .map_err(|e| format!("target/vm/storage.lock: {e}"))?;
    eprintln!(
        "bed: no disks with LUKS, md and btrfs yet: making them, or waiting for who does (two minutes)"
    );
    let lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, e)| format!("target/vm/storage.lock: {e}"))?;
    if !directory.exists() {
        remove_others()?;
        let part = vm_directory().join("storage.part");
        build(&base, &part, &lock)?;
        fs::rename(&part, &directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        eprintln!("bed: the disks with LUKS, md and btrfs are ready");
    }
    Ok(Files(directory))
}

/// Removes the files of other recipes, and unfinished ones.
fn remove_others() -> Result<(), String> {
    let entries = fs::read_dir(vm_directory()).map_err(|e| format!("target/vm: {e}"))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("storage-") || name == "storage.part" {
            command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(entry.path()))?;
        }
    }
    Ok(())
}

fn build(base: &image::Files, part: &Path, lock: &File) -> Result<(), String> {
    let failed = |what: &Path, e| format!("{}: {e}", what.display());
    fs::create_dir_all(part).map_err(|e| failed(part, e))?;
    let (tree, root) = (part.join("tree"), part.join("root"));
    command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(base.tree()).arg(&tree))?;
    // If this process is killed, the next builder waits for the chroot, too, because its stdin is the lock.
    let stdin = lock.try_clone().map_err(|e| format!("target/vm/storage.lock: {e}"))?;
    command::run(
        Command::new("unshare")
            .args(["--mount", "chroot"])
            .arg(&tree)
            .args(["sh", "-c", INSTALL])
            .stdin(stdin),
    )?;
    for initrd in ["plain.img", "luks.img"] {
        fs::rename(tree.join(initrd), part.join(initrd)).map_err(|e| failed(&tree.join(initrd), e))?;
    }
    command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&tree).arg(&root))?;
    command::run(Command::new("sh").args(["-c", STRIP, "sh"]).arg(&root))?;
    command::run(Command::new("chroot").arg(&root).args([
        "sh",
        "-c",
        "depmod $(basename /usr/lib/modules/*)",
    ]))?;
    let initrd = root.join("boot").join(format!("initrd.img-{}", base.release()?));
    fs::copy(part.join("plain.img"), &initrd).map_err(|e| failed(&initrd, e))?;
    btrfs(part)?;
    ext4(&root, &part.join("mirror.0"), MIRROR_SIZE)?;
    command::run(
        Command::new("cp").arg("--sparse=always").arg(part.join("mirror.0")).arg(part.join("mirror.1")),
    )?;
    fs::copy(part.join("luks.img"), &initrd).map_err(|e| failed(&initrd, e))?;
    let crypttab = root.join("etc/crypttab");
    fs::write(&crypttab, "cryptroot /dev/mapper/bed-root /etc/keys/root.key luks,initramfs\n")
        .map_err(|e| failed(&crypttab, e))?;
    ext4(&root, &part.join("plain.ext4"), 0)?;
    sparse(&part.join("luks.disk"), VOLUME_SIZE)?;
    prepare(base, part)?;
    command::run(
        Command::new("rm").args(["-rf", "--one-file-system"]).arg(&root).arg(part.join("plain.ext4")),
    )
    .map(drop)
}

/// Makes a file system with the root's content, in a file of at least this size.
fn ext4(root: &Path, file: &Path, size: u64) -> Result<(), String> {
    command::run(
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-L", "root", "-d"]).arg(root).arg(file).arg(SIZE),
    )?;
    let length = fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?.len();
    sparse(file, size.max(length))
}

/// Makes the disk with btrfs, using Debian's own mkfs, which the host may not have.
fn btrfs(part: &Path) -> Result<(), String> {
    sparse(&part.join("btrfs.disk"), BTRFS_SIZE)?;
    let script = "mount --bind . tree/mnt && mount -t proc proc tree/proc && exec chroot tree mkfs.btrfs -q -L root --rootdir /mnt/root /mnt/btrfs.disk";
    command::run(Command::new("unshare").args(["--mount", "sh", "-c", script]).current_dir(part)).map(drop)
}

fn sparse(file: &Path, size: u64) -> Result<(), String> {
    let made = File::options().create(true).append(true).open(file).and_then(|file| file.set_len(size));
    made.map_err(|e| format!("{}: {e}", file.display()))
}

fn prepare(base: &image::Files, part: &Path) -> Result<(), String> {
    let tree = part.join("tree");
    let mut cpio = with_busybox(PREPARE)?;
    for directory in ["proc", "sys", "run", "tmp"] {
        cpio.directory(directory);
    }
    for path in PROGRAMS {
        program(&mut cpio, &tree, path)?;
    }
    Modules::of(base, &MODULES)?.put(&mut cpio);
    let key = tree.join("etc/keys/root.key");
    cpio.file("/key", 0o600, &fs::read(&key).map_err(|e| format!("{}: {e}", key.display()))?);
    let scratch = Scratch::new()?;
    let initrd = scratch.path("initrd");
    fs::write(&initrd, cpio.finish()).map_err(|e| format!("{}: {e}", initrd.display()))?;
    let mut args = vec!["-no-reboot".to_owned()];
    for disk in ["plain.ext4", "luks.disk", "mirror.0", "mirror.1"] {
        let drive = format!("file={},format=raw,if=virtio,cache=unsafe", part.join(disk).display());
        args.extend(["-drive".into(), drive]);
    }
    let log = vm_directory().join("logs/storage.log");
    let _ = fs::create_dir_all(vm_directory().join("logs"));
    let kernel = base.kernel();
    let starts = Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: "console=ttyS0" };
    let setup = Setup {
        starts,
        architecture: Architecture::X86_64,
        memory: 1024,
        counting: false,
        disks: &[],
        args: &args,
        waits: false,
        log: &log,
    };
    let mut machine = Machine::start(&setup, scratch)?;
    let end = machine.await_end(PREPARE_LIMIT)?;
    if end == End::PoweredOff && machine.console.text().contains("THE DISKS ARE MADE") {
        return Ok(());
    }
    Err(machine.tell(&format!("the disks could not be made ({end:?})")))
}
