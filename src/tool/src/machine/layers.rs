//! The layers below the root file system: which of them have to be closed once the root is unmounted, and
//! which of those cannot be closed without the help of another program.

use std::fs;
use std::path::{Path, PathBuf};

use crate::machine::carriers;
use crate::machine::mounts::Mount;
use crate::machine::root::Root;

/// Network file systems.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "glusterfs", "lustre"];

/// One layer below a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An LVM logical volume.
    Lvm,
    /// An encrypted volume.
    Encrypted,
    /// Any other device-mapper device.
    Mapped,
    /// An md array.
    Array,
    /// A loop device.
    Loop,
    /// A layer that system calls alone cannot close.
    Unclosable(Unclosable),
}

/// A layer that only a program, a network or a tool can close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclosable {
    /// A ZFS pool, which `zpool` has to export.
    Zfs,
    /// An array whose metadata mdmon(8) writes; its name.
    External(String),
    /// A disk with several paths, which multipathd(8) manages.
    Multipath,
    /// A disk or a file system on another machine; the protocol or file system type by which it is reached.
    Remote(String),
    /// A file system implemented by a program (`fuse(4)`); its type.
    Program(String),
    /// A block device that a program or another machine provides, instead of a hardware driver; its name.
    Virtual(String),
    /// A layer of an overlay that was mounted from a path at which nothing of it is seen now.
    Unseen(PathBuf),
}

impl Layer {
    /// Returns all layers below `/` and `/usr`. Includes every array of the machine that mdmon(8) manages,
    /// because mdmon runs from the root and ends only after the root is unmounted.
    #[must_use]
    pub fn all(root: &Root) -> Vec<Layer> {
        let mounts = Mount::all(root);
        let mut layers = Vec::new();
        for mount in ["/", "/usr"].iter().filter_map(|point| Mount::at(&mounts, Path::new(point))) {
            let (devices, carrying) = carriers::below(root, &mounts, mount);
            let unclosable = carrying.iter().filter_map(|mount| Unclosable::of_mount(&mounts, mount));
            layers.extend(unclosable.map(Layer::Unclosable));
            layers.extend(devices.iter().filter_map(|path| Layer::of(path)));
            // btrfs has device numbers of its own, so sysfs may not lead to the device. Then a source below
            // /dev/mapper shows that it is a mapped device.
            if layers.is_empty() && mount.source.starts_with("/dev/mapper") {
                layers.push(Layer::Mapped);
            }
        }
        layers.extend(external_arrays(root).map(|name| Layer::Unclosable(Unclosable::External(name))));
        layers
    }

    /// Returns the first layer that cannot be closed with system calls alone.
    #[must_use]
    pub fn unclosable(root: &Root) -> Option<Unclosable> {
        Layer::all(root).into_iter().find_map(|layer| match layer {
            Layer::Unclosable(what) => Some(what),
            _ => None,
        })
    }

    /// Classifies a device by its directory in sysfs.
    fn of(device: &Path) -> Option<Layer> {
        let name = device.file_name()?.to_str()?;
        let fact = |file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
        let is = |prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let above = |test: &dyn Fn(&str) -> bool| device.iter().any(|part| part.to_str().is_some_and(test));
        let remote = |how: &str| Some(Layer::Unclosable(Unclosable::Remote(how.to_owned())));
        if is("dm-") {
            let uuid = fact("dm/uuid");
            // kpartx(8) gives a partition of such a disk a UUID that begins with `partN-mpath-`.
            if uuid.starts_with("mpath-") || uuid.contains("-mpath-") {
                return Some(Layer::Unclosable(Unclosable::Multipath));
            }
            return Some(match uuid.split('-').next() {
                Some("LVM") => Layer::Lvm,
                Some("CRYPT") => Layer::Encrypted,
                _ => Layer::Mapped,
            });
        }
        if is("md") {
            return Some(Layer::Array);
        }
        if is("loop") {
            return Some(Layer::Loop);
        }
        if is("zd") {
            return Some(Layer::Unclosable(Unclosable::Zfs));
        }
        match () {
            () if is("nbd") => remote("NBD"),
            () if is("rbd") => remote("RBD"),
            () if is("drbd") => remote("DRBD"),
            () if above(&|part| part.starts_with("session")) => remote("iSCSI"),
            () if above(&|part| part.starts_with("ctlr_")) => remote("FCoE"),
            () if above(&|part| part == "nvme-fabrics") => remote("NVMe over a network"),
            // bcache does not count as `Virtual`, because the kernel itself stops it, at kexec, too
            // (`bcache_reboot`, drivers/md/bcache/super.c).
            () if is_elsewhere(device) => {
                Some(Layer::Unclosable(Unclosable::Virtual(name.replace('!', "/"))))
            }
            () => None,
        }
    }

    /// Describes the layer for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Layer::Lvm => "LVM".into(),
            Layer::Encrypted => "an encrypted volume".into(),
            Layer::Mapped => "a mapped device".into(),
            Layer::Array => "an array".into(),
            Layer::Loop => "a loop device".into(),
            Layer::Unclosable(what) => what.in_words(),
        }
    }
}

impl Unclosable {
    fn of_mount(mounts: &[Mount], mount: &Mount) -> Option<Unclosable> {
        let is_hidden =
            |path: &PathBuf| Mount::over(mounts, path).is_none_or(|over| std::ptr::eq(over, mount));
        if let Some(path) = mount.overlaid().into_iter().find(is_hidden) {
            return Some(Unclosable::Unseen(path));
        }
        let kind = mount.kind.as_str();
        if kind == "zfs" {
            return Some(Unclosable::Zfs);
        }
        if REMOTE.contains(&kind) {
            return Some(Unclosable::Remote(kind.to_uppercase()));
        }
        let is_program = kind == "fuseblk" || kind == "fuse" || kind.starts_with("fuse.");
        is_program.then(|| Unclosable::Program(kind.to_owned()))
    }

    /// Describes the layer for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Unclosable::Zfs => "a ZFS pool, which zpool(8) exports".into(),
            Unclosable::External(name) => format!("{name}, an array that mdmon(8) looks after"),
            Unclosable::Multipath => "a disk that multipathd(8) looks after".into(),
            Unclosable::Remote(how) => format!("another machine, through {how}"),
            Unclosable::Program(kind) => format!("{kind}, a file system that is a program"),
            Unclosable::Virtual(name) => {
                format!("{name}, a device that comes from a program or from another machine")
            }
            Unclosable::Unseen(path) => {
                format!("an overlay on {}, and what that was cannot be seen now", path.display())
            }
        }
    }
}

/// Whether a program or another machine is behind a device: it consists of no other devices, and in sysfs it
/// hangs below no hardware. The kernel's own virtual devices (memory, a file, flash, a cache) depend on
/// neither and do not count.
fn is_elsewhere(device: &Path) -> bool {
    const OWN: [&str; 9] = ["dm-", "md", "loop", "ram", "zram", "bcache", "nvme", "mtdblock", "ubiblock"];
    let above = |name: &str| device.iter().any(|part| part == name);
    let name = device.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_own = |prefix: &&str| {
        name.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    // For a partition, the whole disk is examined separately.
    let is_partition = device.join("partition").exists();
    above("virtual") && !OWN.iter().any(is_own) && !is_partition && carriers::members(device).is_empty()
}

/// Returns the arrays whose metadata is not written by the kernel (Documentation/admin-guide/md.rst).
fn external_arrays(root: &Root) -> impl Iterator<Item = String> {
    let blocks = fs::read_dir(root.path("/sys/block")).into_iter().flatten().flatten();
    let arrays: Vec<(String, PathBuf)> = blocks
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| name.starts_with("md"))
        .collect();
    arrays.into_iter().filter_map(|(name, path)| {
        let metadata = fs::read_to_string(path.join("md/metadata_version")).unwrap_or_default();
        metadata.starts_with("external:").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    /// Makes a root on the device with this number, whose sysfs directory is `directory`.
    fn on(number: &str, directory: &str, uuid: &str) -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/self/mountinfo", &format!("22 1 {number} / / ro - ext4 /dev/x ro\n"));
        scratch.directory(directory);
        scratch.link(&format!("/sys/dev/block/{number}"), directory);
        if !uuid.is_empty() {
            scratch.put(&format!("{directory}/dm/uuid"), uuid);
        }
        scratch
    }

    #[test]
    fn every_layer_below_the_root_is_seen() {
        let scratch = on("253:1", "/sys/devices/virtual/block/dm-1", "LVM-abc\n");
        scratch.put("/sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
        let slaves = |of: &str, to: &str| {
            scratch.link(
                &format!("/sys/devices/virtual/block/{of}/slaves/{to}"),
                &format!("/sys/devices/virtual/block/{to}"),
            );
        };
        scratch.directory("/sys/devices/virtual/block/md0/slaves");
        slaves("dm-1", "dm-0");
        slaves("dm-0", "md0");
        assert_eq!(Layer::all(&scratch.root), [Layer::Lvm, Layer::Encrypted, Layer::Array]);
        assert_eq!(Layer::unclosable(&scratch.root), None);
        let plain = on("8:1", "/sys/devices/pci0000:00/0000:00:17.0/ata1/sda/sda1", "");
        assert_eq!(Layer::all(&plain.root), []);
    }

    #[test]
    fn what_needs_a_program_or_a_network_to_be_closed_is_told_apart() {
        let unclosable = |scratch: &Scratch| Layer::unclosable(&scratch.root).map(|what| what.in_words());
        let pci = "/sys/devices/pci0000:00/0000:00:17.0";
        for (number, directory, uuid, named) in [
            ("253:0", "/sys/devices/virtual/block/dm-0", "mpath-360\n", "multipathd"),
            ("253:1", "/sys/devices/virtual/block/dm-1", "part1-mpath-360\n", "multipathd"),
            ("43:0", "/sys/devices/virtual/block/nbd0", "", "NBD"),
            ("252:0", "/sys/devices/rbd/0/block/rbd0", "", "RBD"),
            ("230:0", "/sys/devices/virtual/block/zd0", "", "ZFS"),
            ("8:0", "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sda", "", "iSCSI"),
            ("8:16", &format!("{pci}/net/eth0/ctlr_0/host7/block/sdb"), "", "FCoE"),
            ("259:0", "/sys/devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1", "", "NVMe over a network"),
        ] {
            let said = unclosable(&on(number, directory, uuid)).unwrap_or_default();
            assert!(said.contains(named), "{directory}: {said}");
        }
        for (kind, named) in [("zfs", "ZFS"), ("nfs4", "NFS4"), ("fuse.sshfs", "is a program")] {
            let scratch = Scratch::new();
            scratch.put("/proc/self/mountinfo", &format!("22 1 0:40 / / ro - {kind} a/b ro\n"));
            let said = unclosable(&scratch).unwrap_or_default();
            assert!(said.contains(named), "{kind}: {said}");
        }
        let scratch = on("8:1", &format!("{pci}/ata1/sda"), "");
        scratch.put("/sys/block/md127/md/metadata_version", "external:imsm\n");
        assert_eq!(unclosable(&scratch), Some("md127, an array that mdmon(8) looks after".to_owned()));
        scratch.put("/sys/block/md127/md/metadata_version", "1.2\n");
        assert_eq!(unclosable(&scratch), None);
    }

    #[test]
    fn a_device_that_nothing_of_the_machine_is_behind_is_a_programs_or_another_machines() {
        let unclosable = |directory: &str| Layer::unclosable(&on("8:0", directory, "").root);
        for name in ["ublkb0", "rnbd0", "etherd!e0.0"] {
            let named = Unclosable::Virtual(name.replace('!', "/"));
            assert_eq!(unclosable(&format!("/sys/devices/virtual/block/{name}")), Some(named));
        }
        for name in ["dm-0", "md0", "loop0", "ram0", "zram0", "bcache0", "mtdblock3", "ubiblock0_0"] {
            assert_eq!(unclosable(&format!("/sys/devices/virtual/block/{name}")), None, "{name}");
        }
        assert_eq!(unclosable("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"), None);
        assert_eq!(unclosable("/sys/devices/platform/soc/mmc0/mmcblk0"), None);
        let scratch = on("8:0", "/sys/devices/virtual/block/cache0", "");
        scratch.link("/sys/devices/virtual/block/cache0/slaves/sda", "/sys/devices/platform/sda");
        scratch.directory("/sys/devices/platform/sda");
        assert_eq!(Layer::unclosable(&scratch.root), None);
        let scratch = on("8:1", "/sys/devices/virtual/block/ublkb0/ublkb0p1", "");
        scratch.put("/sys/devices/virtual/block/ublkb0/ublkb0p1/partition", "1\n");
        assert_eq!(Layer::unclosable(&scratch.root), Some(Unclosable::Virtual("ublkb0".into())));
    }

    #[test]
    fn every_mount_that_carries_a_layer_has_to_be_closable() {
        let unclosable = |root: &str, below: &str| {
            let scratch = on("7:0", "/sys/devices/virtual/block/loop0", "");
            scratch.put("/sys/devices/virtual/block/loop0/loop/backing_file", "/low/er/root.img\n");
            scratch.link("/sys/dev/block/8:1", "/sys/devices/pci0000:00/0000:00:17.0/ata1/sda");
            scratch.directory("/sys/devices/pci0000:00/0000:00:17.0/ata1/sda");
            scratch.directory("/sys/devices/platform/host3/session1/sdb");
            scratch.link("/sys/dev/block/8:16", "/sys/devices/platform/host3/session1/sdb");
            let mounts = format!("22 1 {root}\n23 22 {below}\n24 22 0:5 / /up rw - tmpfs tmpfs rw\n");
            scratch.put("/proc/self/mountinfo", &mounts);
            Layer::unclosable(&scratch.root).map(|what| what.in_words())
        };
        let overlay = "0:30 / / rw - overlay overlay rw,lowerdir=/up/x:/low/er,upperdir=/up/y,workdir=/up/w";
        let written =
            overlay.replace("lowerdir=/up/x:/low/er,upperdir=/up/y", "lowerdir+=/up/x,upperdir=/low/er");
        let a_loop = "7:0 / / ro - squashfs /dev/loop0 ro";
        for root in [overlay, &written, a_loop] {
            for (below, named) in [
                ("0:40 / /low ro - nfs4 host:/x ro", "through NFS4"),
                ("8:1 / /low ro - fuseblk /dev/sda1 ro", "fuseblk"),
                ("8:16 / /low ro - ext4 /dev/sdb ro", "through iSCSI"),
            ] {
                let said = unclosable(root, below).unwrap_or_default();
                assert!(said.contains(named), "{root}, {below}: {said}");
            }
            assert_eq!(unclosable(root, "8:1 / /low ro - ext4 /dev/sda1 ro"), None, "{root}");
        }
        // The overlay was mounted before the root was changed, so its paths lead nowhere now.
        let said = unclosable(overlay, "8:1 / /elsewhere ro - ext4 /dev/sda1 ro").unwrap_or_default();
        assert!(said.contains("an overlay on /low/er"), "{said}");
    }
}
