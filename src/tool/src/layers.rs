//! What the root lies on, layer by layer: what has to be closed once it is unmounted, and what of that nobody can
//! close without a program beside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::carriers;
use crate::mounts::Mount;
use crate::root::Root;

/// File systems that come over a network.
const REMOTE: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "glusterfs", "lustre"];

/// One layer below a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A volume of LVM's.
    Lvm,
    /// An encrypted volume.
    Encrypted,
    /// Another mapped device.
    Mapped,
    /// An array.
    Array,
    /// A file that is a disk.
    Loop,
    /// What needs more than calls to close.
    Unclosable(Unclosable),
}

/// What needs a program, a network or a tool to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclosable {
    /// A pool is exported by `zpool`.
    Zfs,
    /// An array whose metadata is written by mdmon(8).
    External(String),
    /// Paths to one disk, which multipathd(8) looks after.
    Multipath,
    /// A disk or a file system on another machine; how it comes here.
    Remote(String),
    /// A file system that is a program (`fuse(4)`).
    Program(String),
}

impl Layer {
    /// All layers below `/` and `/usr`, and the arrays of the machine that mdmon(8) looks after: it runs from the
    /// root, and ends after it is unmounted.
    #[must_use]
    pub fn all(root: &Root) -> Vec<Layer> {
        let mounts = Mount::all(root);
        let mut layers = Vec::new();
        for mount in ["/", "/usr"].iter().filter_map(|point| Mount::at(&mounts, Path::new(point))) {
            layers.extend(Unclosable::of_mount(mount).map(Layer::Unclosable));
            layers.extend(carriers::devices(root, &mounts, mount).iter().filter_map(|path| Layer::of(path)));
            // btrfs counts devices of its own, and a device that sysfs does not have is known by its node's name.
            if layers.is_empty() && mount.source.starts_with("/dev/mapper") {
                layers.push(Layer::Mapped);
            }
        }
        layers.extend(external_arrays(root).map(|name| Layer::Unclosable(Unclosable::External(name))));
        layers
    }

    /// The first of them that nobody can close with calls alone.
    #[must_use]
    pub fn unclosable(root: &Root) -> Option<Unclosable> {
        Layer::all(root).into_iter().find_map(|layer| match layer {
            Layer::Unclosable(what) => Some(what),
            _ => None,
        })
    }

    /// Of a device in sysfs.
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
            // kpartx(8) names a partition of such a disk `partN-mpath-`.
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
            // bcache is stopped by the kernel itself, at kexec, too (`bcache_reboot`, drivers/md/bcache/super.c).
            () => None,
        }
    }

    /// For a person.
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
    fn of_mount(mount: &Mount) -> Option<Unclosable> {
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

    /// For a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Unclosable::Zfs => "a ZFS pool, which zpool(8) exports".into(),
            Unclosable::External(name) => format!("{name}, an array that mdmon(8) looks after"),
            Unclosable::Multipath => "a disk that multipathd(8) looks after".into(),
            Unclosable::Remote(how) => format!("another machine, through {how}"),
            Unclosable::Program(kind) => format!("{kind}, a file system that is a program"),
        }
    }
}

/// The arrays whose metadata the kernel does not write (Documentation/admin-guide/md.rst).
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
    use crate::scratch::Scratch;

    /// A root on this device, which sysfs has in this folder.
    fn on(number: &str, folder: &str, uuid: &str) -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/self/mountinfo", &format!("22 1 {number} / / ro - ext4 /dev/x ro\n"));
        scratch.folder(folder);
        scratch.link(&format!("/sys/dev/block/{number}"), folder);
        if !uuid.is_empty() {
            scratch.put(&format!("{folder}/dm/uuid"), uuid);
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
        scratch.folder("/sys/devices/virtual/block/md0/slaves");
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
        for (number, folder, uuid, named) in [
            ("253:0", "/sys/devices/virtual/block/dm-0", "mpath-360\n", "multipathd"),
            ("253:1", "/sys/devices/virtual/block/dm-1", "part1-mpath-360\n", "multipathd"),
            ("43:0", "/sys/devices/virtual/block/nbd0", "", "NBD"),
            ("252:0", "/sys/devices/rbd/0/block/rbd0", "", "RBD"),
            ("230:0", "/sys/devices/virtual/block/zd0", "", "ZFS"),
            ("8:0", "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:0/block/sda", "", "iSCSI"),
            ("8:16", &format!("{pci}/net/eth0/ctlr_0/host7/block/sdb"), "", "FCoE"),
            ("259:0", "/sys/devices/virtual/nvme-fabrics/ctl/nvme0/nvme0n1", "", "NVMe over a network"),
        ] {
            let said = unclosable(&on(number, folder, uuid)).unwrap_or_default();
            assert!(said.contains(named), "{folder}: {said}");
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
}
