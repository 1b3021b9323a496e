//! The PCI devices behind `/`, `/usr` and swap, which the machine needs until the jump. At the end of
//! shutdown the hook and the init still run from there, read-only, and one of their pages may have to be read
//! again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nextkernel_plan::is_pci_address;

use crate::machine::mounts::{Mount, unescaped};
use crate::machine::root::Root;

/// The deepest stack of devices that is followed. A file system on a loop device on a mapping on an array has
/// four levels.
const DEPTH_MAX: u8 = 16;

/// File systems in memory, which need no device.
const MEMORY: [&str; 3] = ["rootfs", "tmpfs", "ramfs"];

/// The devices, or the reason why they are unknown.
#[derive(Debug, PartialEq, Eq)]
pub enum Carriers {
    /// Addresses of PCI devices, and what each carries: `/`, `/usr` or swap.
    Known(BTreeMap<String, String>),
    /// The one of `/`, `/usr` and swap whose device cannot be found, because a network or a program may be behind
    /// it.
    Unknown(String),
}

/// Finds the devices.
#[must_use]
pub fn find(root: &Root) -> Carriers {
    let mounts = Mount::all(root);
    let swaps = fs::read_to_string(root.path("/proc/swaps")).unwrap_or_default();
    let search = Search::new(root, &mounts);
    let mut found = BTreeMap::new();
    for point in ["/", "/usr"] {
        let known = match Mount::at(&mounts, Path::new(point)) {
            Some(mount) => search.mount(mount, DEPTH_MAX),
            None if point == "/" => None,
            None => continue,
        };
        let Some(addresses) = known else { return Carriers::Unknown(point.to_owned()) };
        found.extend(addresses.into_iter().map(|address| (address, point.to_owned())));
    }
    for line in swaps.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace();
        let path = unescaped(fields.next().unwrap_or_default());
        let known = match fields.next() {
            Some("file") => search.file(&path, DEPTH_MAX),
            _ => search.node(&path, DEPTH_MAX),
        };
        let Some(addresses) = known else { return Carriers::Unknown("swap".to_owned()) };
        for address in addresses {
            found.entry(address).or_insert_with(|| "swap".to_owned());
        }
    }
    Carriers::Known(found)
}

/// Returns what is below a mount, from the top down, as far as it can be found: the sysfs directories of the
/// block devices, and the mounts involved, starting with this one.
pub(crate) fn below<'a>(
    root: &'a Root,
    mounts: &'a [Mount],
    mount: &'a Mount,
) -> (Vec<PathBuf>, Vec<&'a Mount>) {
    let search = Search::new(root, mounts);
    // The lists are filled whether or not the search reaches the end.
    let _ = search.mount(mount, DEPTH_MAX);
    (search.seen.take(), search.seen_mounts.take())
}

/// A search. Each method returns the PCI addresses below something, or `None` if they cannot be found.
struct Search<'a> {
    root: &'a Root,
    mounts: &'a [Mount],
    seen: RefCell<Vec<PathBuf>>,
    seen_mounts: RefCell<Vec<&'a Mount>>,
}

impl<'a> Search<'a> {
    fn new(root: &'a Root, mounts: &'a [Mount]) -> Search<'a> {
        Search { root, mounts, seen: RefCell::default(), seen_mounts: RefCell::default() }
    }

    fn mount(&self, mount: &'a Mount, depth: u8) -> Option<Vec<String>> {
        let again = self.seen_mounts.borrow().iter().any(|seen| std::ptr::eq(*seen, mount));
        self.seen_mounts.borrow_mut().push(mount);
        if mount.kind == "overlay" {
            // An overlay's paths date from when it was mounted: they show what may be below, but prove
            // nothing.
            for path in mount.overlaid().iter().filter(|_| !again) {
                let _ = self.file(path, depth);
            }
            return None;
        }
        if MEMORY.contains(&mount.kind.as_str()) {
            return Some(Vec::new());
        }
        let device = self.root.path("/sys/dev/block").join(&mount.device);
        if device.exists() {
            return self.block(&device, depth);
        }
        // btrfs shows a number of its own, which belongs to no device; and it may span several devices.
        let below = self.node(&mount.source, depth)?;
        let mut below = vec![below];
        for member in self.btrfs_members(&mount.source) {
            below.push(self.block(&member, depth)?);
        }
        Some(below.concat())
    }

    fn file(&self, path: &Path, depth: u8) -> Option<Vec<String>> {
        self.mount(Mount::over(self.mounts, path)?, depth.checked_sub(1)?)
    }

    fn node(&self, path: &Path, depth: u8) -> Option<Vec<String>> {
        self.block(&self.numbered(path)?, depth)
    }

    /// Returns the sysfs directory of a device node.
    fn numbered(&self, path: &Path) -> Option<PathBuf> {
        let number = path.is_absolute().then(|| self.root.path(path).metadata().ok()).flatten()?.rdev();
        let number = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
        Some(self.root.path("/sys/dev/block").join(number))
    }

    /// Returns all devices of the btrfs that `source` belongs to.
    fn btrfs_members(&self, source: &Path) -> Vec<PathBuf> {
        let Some(one) = self.numbered(source).and_then(|device| device.canonicalize().ok()) else {
            return Vec::new();
        };
        let systems = links(&self.root.path("/sys/fs/btrfs")).into_iter();
        let mut systems = systems.map(|system| links(&system.join("devices")));
        systems.find(|members| members.contains(&one)).unwrap_or_default()
    }

    fn block(&self, device: &Path, depth: u8) -> Option<Vec<String>> {
        let depth = depth.checked_sub(1)?;
        let device = device.canonicalize().ok()?;
        self.seen.borrow_mut().push(device.clone());
        let names: Vec<_> = device.components().filter_map(name).collect();
        let addresses: Vec<_> =
            names.iter().filter(|name| is_pci_address(name)).map(ToString::to_string).collect();
        if !addresses.is_empty() {
            return Some(addresses);
        }
        let whole = if device.join("partition").exists() { device.parent()? } else { &device };
        let members = members(whole);
        if whole != device {
            self.seen.borrow_mut().push(whole.to_path_buf());
        }
        if !members.is_empty() {
            let below = members.iter().map(|member| self.block(member, depth));
            return Some(below.collect::<Option<Vec<_>>>()?.concat());
        }
        if let Ok(file) = fs::read_to_string(whole.join("loop/backing_file")) {
            return self.file(Path::new(file.trim_end_matches('\n')), depth);
        }
        let memory = whole.file_name()?.to_str()?.trim_end_matches(|c: char| c.is_ascii_digit());
        if matches!(memory, "ram" | "zram") {
            return Some(Vec::new());
        }
        // Behind these is a network or a program. Any other device that is not on PCI is part of the board.
        let elsewhere =
            names.iter().any(|name| matches!(*name, "virtual" | "rbd") || name.starts_with("session"));
        (!elsewhere).then(Vec::new)
    }
}

/// Resolves the links and directories in a directory, and returns those that are directories.
fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.path().canonicalize().ok()).filter(|path| path.is_dir()).collect()
}

/// Returns the devices that a device consists of: the members of a mapping or an array. A disk with several
/// controllers (`nvme-subsys0`) consists of these; they are links beside it.
pub(crate) fn members(device: &Path) -> Vec<PathBuf> {
    let mut members = links(&device.join("slaves"));
    let last = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if let Some(subsystem) = device.parent().filter(|parent| last(parent).starts_with("nvme-subsys")) {
        let number =
            |name: &str| name.strip_prefix("nvme").is_some_and(|number| number.parse::<u32>().is_ok());
        members.extend(links(subsystem).into_iter().filter(|beside| number(&last(beside))));
    }
    members
}

fn name(component: Component<'_>) -> Option<&str> {
    component.as_os_str().to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    const NVME: &str = "/sys/devices/pci0000:00/0000:00:1d.0/0000:3b:00.0/nvme/nvme0";

    /// Makes a machine with these mounts and swaps.
    fn machine(mountinfo: &str, swaps: &str) -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/proc/self/mountinfo", mountinfo);
        scratch.put("/proc/swaps", &format!("Filename\tType\n{swaps}"));
        scratch
    }

    fn block(scratch: &Scratch, number: &str, directory: &str) {
        scratch.directory(directory);
        scratch.link(&format!("/sys/dev/block/{number}"), directory);
    }

    fn known(addresses: &[(&str, &str)]) -> Carriers {
        Carriers::Known(addresses.iter().map(|(at, what)| ((*at).to_owned(), (*what).to_owned())).collect())
    }

    #[test]
    fn every_bridge_on_the_way_to_a_disk_carries_what_is_on_it() {
        let scratch = machine("22 1 259:1 / / ro,relatime shared:1 - ext4 /dev/nvme0n1p1 ro\n", "");
        block(&scratch, "259:1", &format!("{NVME}/nvme0n1/nvme0n1p1"));
        scratch.put(&format!("{NVME}/nvme0n1/nvme0n1p1/partition"), "1\n");
        assert_eq!(find(&scratch.root), known(&[("0000:00:1d.0", "/"), ("0000:3b:00.0", "/")]));
    }

    #[test]
    fn mappings_and_arrays_lead_to_all_their_members() {
        let scratch = machine("22 1 253:0 / / ro - xfs /dev/mapper/vg-root ro\n", "");
        block(&scratch, "253:0", "/sys/devices/virtual/block/dm-0");
        scratch.link("/sys/devices/virtual/block/dm-0/slaves/md0p1", "/sys/devices/virtual/block/md0/md0p1");
        scratch.put("/sys/devices/virtual/block/md0/md0p1/partition", "1\n");
        for (member, disk) in [
            ("sda", "/sys/devices/pci0000:00/0000:00:17.0/ata1/sda"),
            ("nvme0n1", "/sys/devices/pci0000:00/0000:3b:00.0/nvme/nvme0/nvme0n1"),
        ] {
            scratch.directory(disk);
            scratch.link(&format!("/sys/devices/virtual/block/md0/slaves/{member}"), disk);
        }
        assert_eq!(find(&scratch.root), known(&[("0000:00:17.0", "/"), ("0000:3b:00.0", "/")]));
    }

    #[test]
    fn a_disk_behind_several_controllers_is_carried_by_each() {
        let subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0";
        let scratch = machine("22 1 259:0 / / ro - ext4 /dev/nvme0n1 ro\n", "");
        block(&scratch, "259:0", &format!("{subsystem}/nvme0n1"));
        scratch.directory(&format!("{subsystem}/power"));
        for (controller, address) in [("nvme0", "0000:3b:00.0"), ("nvme1", "0000:5e:00.0")] {
            let directory = format!("/sys/devices/pci0000:00/{address}/nvme/{controller}");
            scratch.directory(&directory);
            scratch.link(&format!("{subsystem}/{controller}"), &directory);
        }
        assert_eq!(find(&scratch.root), known(&[("0000:3b:00.0", "/"), ("0000:5e:00.0", "/")]));
    }

    #[test]
    fn usr_and_swap_are_stood_on_too_and_what_is_mounted_last_counts() {
        let mounts = "\
22 1 8:1 / / ro - ext4 /dev/sda1 ro
23 22 8:1 / /usr ro - ext4 /dev/sda1 ro
24 22 8:17 / /usr ro - ext4 /dev/sdb1 ro
25 22 8:33 / /srv\\040x ro - ext4 /dev/sdc1 rw\n";
        let scratch = machine(mounts, "/srv\\040x/swap file\n/zram partition\n");
        for (number, address) in [("8:1", "0000:00:01.0"), ("8:17", "0000:00:02.0"), ("8:33", "0000:00:03.0")]
        {
            block(&scratch, number, &format!("/sys/devices/pci0000:00/{address}/ata1/sd"));
        }
        // /dev/null stands for the device node; its number is 1:3.
        std::os::unix::fs::symlink("/dev/null", scratch.root.path("/zram")).unwrap_or_default();
        block(&scratch, "1:3", "/sys/devices/virtual/block/zram0");
        let expected = known(&[("0000:00:01.0", "/"), ("0000:00:02.0", "/usr"), ("0000:00:03.0", "swap")]);
        assert_eq!(find(&scratch.root), expected);
    }

    #[test]
    fn btrfs_is_carried_by_all_its_devices() {
        let scratch = machine("22 1 0:30 /root / ro - btrfs /source ro,subvol=/root\n", "");
        std::os::unix::fs::symlink("/dev/null", scratch.root.path("/source")).unwrap_or_default();
        let (one, two) =
            ("/sys/devices/pci0000:00/0000:00:01.0/sda", "/sys/devices/pci0000:00/0000:00:02.0/sdb");
        block(&scratch, "1:3", one);
        scratch.directory(two);
        scratch.directory("/sys/fs/btrfs/features");
        for (name, device) in [("sda", one), ("sdb", two)] {
            scratch.link(&format!("/sys/fs/btrfs/5f3a/devices/{name}"), device);
        }
        assert_eq!(find(&scratch.root), known(&[("0000:00:01.0", "/"), ("0000:00:02.0", "/")]));
    }

    #[test]
    fn a_loop_leads_to_the_file_behind_it() {
        let mounts = "\
20 1 8:1 / /live ro - vfat /dev/sda1 ro
22 1 7:0 / / ro - squashfs /dev/loop0 ro\n";
        let scratch = machine(mounts, "");
        block(&scratch, "8:1", "/sys/devices/pci0000:00/0000:00:14.0/usb1/sda/sda1");
        block(&scratch, "7:0", "/sys/devices/virtual/block/loop0");
        scratch.put("/sys/devices/virtual/block/loop0/loop/backing_file", "/live/root.squashfs\n");
        assert_eq!(find(&scratch.root), known(&[("0000:00:14.0", "/")]));
        // A file that lies on its own loop device is reported as unknown.
        scratch.put("/sys/devices/virtual/block/loop0/loop/backing_file", "/root.squashfs\n");
        assert_eq!(find(&scratch.root), Carriers::Unknown("/".to_owned()));
    }

    #[test]
    fn what_lies_in_memory_is_carried_by_nothing_and_what_comes_over_a_network_by_nobody_knows() {
        let carriers = |mount: &str, device: &str| {
            let scratch = machine(mount, "");
            if !device.is_empty() {
                block(&scratch, "8:1", device);
            }
            find(&scratch.root)
        };
        let unknown = || Carriers::Unknown("/".to_owned());
        assert_eq!(carriers("1 1 0:2 / / rw - rootfs none rw\n", ""), known(&[]));
        assert_eq!(
            carriers("1 1 8:1 / / rw - ext4 x rw\n", "/sys/devices/platform/soc/mmc0/mmcblk0"),
            known(&[])
        );
        assert_eq!(
            carriers("1 1 8:1 / / rw - ext4 x rw\n", "/sys/devices/platform/host3/session1/sda"),
            unknown()
        );
        assert_eq!(carriers("1 1 8:1 / / rw - ext4 x rw\n", "/sys/devices/virtual/block/nbd0"), unknown());
        assert_eq!(carriers("1 1 0:40 / / rw - nfs4 host:/x rw\n", ""), unknown());
        assert_eq!(carriers("1 1 0:40 / / rw - overlay overlay rw,lowerdir=/a\n", ""), unknown());
        assert_eq!(carriers("", ""), unknown());
    }
}
