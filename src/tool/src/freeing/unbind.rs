//! Finds the other devices to unbind just before the jump: those that the configuration names, as PCI addresses
//! for the plan.

use std::fs;

use nextkernel_plan::{is_nvidia, is_pci_address, limits};
use thiserror::Error;

use crate::machine::carriers::{self, Carriers};
use crate::machine::root::Root;
use crate::request::conf::{self, UnbindTarget, as_module};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVERS: &str = "/sys/bus/pci/drivers";

/// The vendor ID of NVIDIA, and the beginning of the class of displays, as sysfs writes them.
const NVIDIA: &str = "0x10de";
const DISPLAY: &str = "0x03";

/// The devices to unbind, and those that stay bound.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unbind {
    /// The PCI addresses of the devices to unbind.
    pub addresses: Vec<String>,
    /// A sentence for each name without a device, and for each device of a driver that must stay bound.
    pub left_out: Vec<String>,
}

/// A reason why a device that is named by its address cannot be unbound. It is an error because the
/// administrator means that very device.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The device carries a file system or swap that is in use until the jump.
    #[error(
        "{path}: unbind names {address}, which carries {what}, and that is in use until the jump; take it out",
        path = conf::PATH
    )]
    Carries {
        /// Its PCI address.
        address: String,
        /// The use: `/`, `/usr` or swap.
        what: String,
    },
    /// The device might carry a file system or swap whose devices cannot be determined.
    #[error(
        "{path}: unbind names {address}, and what carries {what} cannot be told, which might be this; take it out",
        path = conf::PATH
    )]
    MayCarry {
        /// Its PCI address.
        address: String,
        /// The use: `/`, `/usr` or swap.
        what: String,
    },
    /// The device is a GPU of NVIDIA.
    #[error(
        "{path}: unbind names {0}, an NVIDIA GPU; while anything has it open that waits for ever: take it out",
        path = conf::PATH
    )]
    Nvidia(String),
    /// There are more devices than a plan holds.
    #[error(
        "{path}: unbind names {0} devices, and a plan holds {max}; name fewer",
        path = conf::PATH, max = limits::UNBIND_MAX
    )]
    TooMany(usize),
}

/// Finds the devices to unbind.
pub fn find(root: &Root, targets: &[UnbindTarget]) -> Result<Unbind, Error> {
    let mut found = Unbind::default();
    if targets.is_empty() {
        return Ok(found);
    }
    let carriers = carriers::find(root);
    for target in targets {
        let addresses = match target {
            UnbindTarget::Address(address) if root.path(DEVICES).join(address).exists() => {
                vec![address.clone()]
            }
            UnbindTarget::Address(_) => Vec::new(),
            UnbindTarget::Driver(driver) => devices(root, driver),
        };
        if addresses.is_empty() {
            found.left_out.push(format!("unbind: no device here is {target} or has that driver"));
        }
        for address in addresses {
            match (bar(root, &carriers, &address), target) {
                (None, _) if found.addresses.contains(&address) => {}
                (None, _) => found.addresses.push(address),
                (Some(bar), UnbindTarget::Address(_)) => return Err(bar.into_error(address)),
                (Some(bar), UnbindTarget::Driver(driver)) => {
                    found
                        .left_out
                        .push(format!("unbind: {address} ({driver}) stays bound: {}", bar.in_words()));
                }
            }
        }
    }
    match found.addresses.len() {
        many if many > limits::UNBIND_MAX => Err(Error::TooMany(many)),
        _ => Ok(found),
    }
}

/// A reason to leave a device bound.
enum Bar {
    Carries(String),
    MayCarry(String),
    Nvidia,
}

impl Bar {
    fn into_error(self, address: String) -> Error {
        match self {
            Bar::Carries(what) => Error::Carries { address, what },
            Bar::MayCarry(what) => Error::MayCarry { address, what },
            Bar::Nvidia => Error::Nvidia(address),
        }
    }

    fn in_words(&self) -> String {
        match self {
            Bar::Carries(what) => format!("it carries {what}"),
            Bar::MayCarry(what) => format!("what carries {what} cannot be told"),
            Bar::Nvidia => "an NVIDIA GPU is never unbound".to_owned(),
        }
    }
}

fn bar(root: &Root, carriers: &Carriers, address: &str) -> Option<Bar> {
    let fact = |name: &str| root.fact(&format!("{DEVICES}/{address}/{name}")).unwrap_or_default();
    let driver = root.link(&format!("{DEVICES}/{address}/driver")).unwrap_or_default();
    let is_gpu = fact("vendor") == NVIDIA && fact("class").starts_with(DISPLAY);
    if is_gpu || is_nvidia(&as_module(&driver)) {
        return Some(Bar::Nvidia);
    }
    match carriers {
        Carriers::Unknown(what) => Some(Bar::MayCarry(what.clone())),
        Carriers::Known(known) => known.get(address).cloned().map(Bar::Carries),
    }
}

/// Returns the PCI addresses of a driver's devices.
fn devices(root: &Root, driver: &str) -> Vec<String> {
    let names = |path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    };
    let drivers = root.path(DRIVERS);
    let of_that_name = names(drivers.clone()).filter(|name| as_module(name) == as_module(driver));
    let mut devices: Vec<_> = of_that_name.flat_map(|name| names(drivers.join(name))).collect();
    devices.retain(|name| is_pci_address(name));
    devices.sort();
    devices
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    /// Returns a machine with two drives, one of which holds the root, a USB controller, and two GPUs.
    fn machine() -> Scratch {
        let scratch = Scratch::new();
        for (address, driver, vendor, class) in [
            ("0000:01:00.0", "nvme", "0x144d", "0x010802"),
            ("0000:02:00.0", "nvme", "0x144d", "0x010802"),
            ("0000:00:14.0", "xhci_hcd", "0x8086", "0x0c0330"),
            ("0000:03:00.0", "nvidia", "0x10de", "0x030000"),
            ("0000:04:00.0", "nouveau", "0x10de", "0x030200"),
        ] {
            let device = format!("/sys/devices/pci0000:00/{address}");
            scratch.put(&format!("{device}/vendor"), &format!("{vendor}\n"));
            scratch.put(&format!("{device}/class"), &format!("{class}\n"));
            scratch.link(&format!("{DEVICES}/{address}"), &device);
            scratch.link(&format!("{DRIVERS}/{driver}/{address}"), &device);
            scratch.link(&format!("{device}/driver"), &format!("{DRIVERS}/{driver}"));
        }
        scratch.put(&format!("{DRIVERS}/nvme/bind"), "");
        scratch.put("/proc/self/mountinfo", "22 1 259:0 / / ro - ext4 /dev/nvme0n1 ro\n");
        scratch.directory("/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1");
        scratch.link("/sys/dev/block/259:0", "/sys/devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1");
        scratch
    }

    fn found(names: &[&str]) -> Result<Unbind, Error> {
        let conf = conf::Conf::parse(format!("unbind = {}", names.join(" ")).as_bytes()).unwrap();
        find(&machine().root, &conf.unbind)
    }

    #[test]
    fn a_driver_stands_for_its_devices_less_those_that_the_machine_stands_on() {
        let unbind = found(&["nvme", "xhci-hcd", "0000:02:00.0"]).unwrap();
        assert_eq!(unbind.addresses, ["0000:02:00.0", "0000:00:14.0"]);
        assert_eq!(unbind.left_out, ["unbind: 0000:01:00.0 (nvme) stays bound: it carries /"]);
    }

    #[test]
    fn a_device_that_is_named_and_must_stay_is_refused_by_name() {
        let carries = Error::Carries { address: "0000:01:00.0".to_owned(), what: "/".to_owned() };
        assert_eq!(found(&["0000:01:00.0"]), Err(carries));
    }

    #[test]
    fn an_nvidia_gpu_is_never_unbound_whatever_its_driver() {
        for address in ["0000:03:00.0", "0000:04:00.0"] {
            assert_eq!(found(&[address]), Err(Error::Nvidia(address.to_owned())));
        }
        assert_eq!(found(&["nouveau"]).unwrap().addresses, [""; 0]);
    }

    #[test]
    fn what_is_not_here_is_said_and_does_no_harm() {
        let unbind = found(&["megaraid_sas", "0000:7f:00.0"]).unwrap();
        assert_eq!(unbind.addresses, [""; 0]);
        assert_eq!(unbind.left_out.len(), 2);
    }

    #[test]
    fn where_it_cannot_be_told_what_carries_the_root_nothing_is_unbound() {
        let scratch = machine();
        scratch.put("/proc/self/mountinfo", "22 1 0:40 / / ro - nfs4 host:/root ro\n");
        let of = |name: &str| vec![UnbindTarget::Driver(name.to_owned())];
        assert_eq!(find(&scratch.root, &of("xhci_hcd")).unwrap().addresses, [""; 0]);
        assert!(find(&scratch.root, &[UnbindTarget::Address("0000:00:14.0".to_owned())]).is_err());
    }
}
