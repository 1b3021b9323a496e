//! The drivers that own a GPU of this machine, and what happens to each at the end of shutdown. The hook's own
//! code finds the drivers and decides, so the tool shows exactly what will happen.

use std::fs::File;
use std::os::fd::AsFd;

use nextkernel_hook::scene::gpu;
use nextkernel_hook::scene::holders::Held;
use nextkernel_hook::scene::modules::{ModuleName, State};
use nextkernel_hook::scene::processes::Relatives;
use nextkernel_plan::{GpuFailed, GpuPolicy, Plan, Policy};
use serde::{Serialize, Serializer};

use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::words::quoted::quoted;

/// Drivers that leave the address table of their device as it is. The firmware's framebuffer is then mapped to
/// pages of the old kernel, and a next kernel that draws there overwrites whatever those pages now hold.
const STALE_FRAMEBUFFER: [&str; 2] = ["i915", "xe"];

/// The administrator's settings for GPUs, as staged or as configured now.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// The settings in a plan.
    Plan(&'a Plan<'a>),
    /// The settings in the configuration.
    Conf(&'a Conf),
}

/// A driver that owns a GPU.
#[derive(Debug, Serialize)]
pub struct Gpu {
    /// The name of its module, or of the driver if it is built in.
    pub module: String,
    /// Whether the driver is built into the kernel.
    pub builtin: bool,
    /// `live`, `coming` (its initialisation has not returned), `going` or `built-in`.
    pub state: &'static str,
    /// `unload`, `unbind`, `leave` or `firmware-reboot`.
    #[serde(serialize_with = "as_word")]
    pub policy: Policy,
    /// What happens if the policy fails: `jump` or `firmware-reboot`.
    #[serde(serialize_with = "as_word")]
    pub if_failed: GpuFailed,
    /// The names of its devices on their bus.
    pub devices: Vec<String>,
    /// The policy that the driver has if nothing else is set, and the reason for it.
    #[serde(skip)]
    pub default: (Policy, &'static str),
}

/// Finds the drivers that own a GPU.
#[must_use]
pub fn find(root: &Root, said: Said<'_>) -> Vec<Gpu> {
    let Ok(directory) = File::open(root.path("/")) else { return Vec::new() };
    gpu::find(directory.as_fd()).iter().map(|driver| Gpu::of(&directory, &driver, said)).collect()
}

/// Returns the first driver that leaves a framebuffer that the next kernel must not touch.
#[must_use]
pub fn stale_framebuffer(gpus: &[Gpu]) -> Option<&Gpu> {
    gpus.iter().find(|gpu| STALE_FRAMEBUFFER.contains(&gpu.module.as_str()))
}

/// Returns the first driver that rules out a jump.
#[must_use]
pub fn forbids_the_jump(gpus: &[Gpu]) -> Option<&Gpu> {
    gpus.iter().find(|gpu| gpu.policy == Policy::FirmwareReboot || gpu.is_stuck())
}

/// Returns a process that has a device file of the driver open now, if one is visible from here. The code that
/// finds it is the one that would end the process at the end of shutdown.
#[must_use]
pub fn process_on(root: &Root, module: &str) -> Option<String> {
    let directory = File::open(root.path("/")).ok()?;
    let module = ModuleName::cut(module.as_bytes());
    let held = Held::by_files_of(directory.as_fd(), &module, false, Relatives::of_this_process());
    let process = held.first().ok()??;
    Some(format!("{} ({})", quoted(&process.name.to_string(), 16), process.id.as_raw_nonzero()))
}

/// Returns the modules that depend on a module now.
#[must_use]
pub fn modules_on(root: &Root, module: &str) -> Vec<String> {
    let directory = root.path("/sys/module").join(module).join("holders");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

impl Gpu {
    fn of(directory: &File, driver: &gpu::Driver, said: Said<'_>) -> Gpu {
        let (policy, if_failed) = match said {
            Said::Plan(plan) => (driver.policy(plan.gpu.iter()), plan.gpu_failed),
            Said::Conf(conf) => {
                let policies = conf.gpu.iter().map(|(driver, policy)| GpuPolicy { driver, policy: *policy });
                (driver.policy(policies), conf.gpu_failed)
            }
        };
        let mut devices = Vec::new();
        gpu::for_each_device(directory.as_fd(), |device| {
            if device.driver == driver.module {
                devices.extend(device.name(directory.as_fd()).map(|name| name.to_string()));
            }
            None::<()>
        });
        devices.sort();
        devices.dedup();
        Gpu {
            module: driver.module.to_string(),
            builtin: driver.state == State::BuiltIn,
            state: match driver.state {
                State::Live => "live",
                State::Initialising => "coming",
                State::Going => "going",
                State::BuiltIn => "built-in",
            },
            policy,
            if_failed: driver.if_failed(if_failed),
            devices,
            default: (driver.policy(std::iter::empty()), driver.family.why.sentence()),
        }
    }

    /// Returns whether the driver is still in its initialisation. As long as that lasts, every reboot(2) waits
    /// for the probe of its device.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.state == "coming"
    }

    /// Says what happens to the driver.
    #[must_use]
    pub fn in_words(&self) -> String {
        let if_failed = match self.if_failed {
            GpuFailed::Jump => "the jump is made all the same",
            GpuFailed::FirmwareReboot => "the machine restarts through firmware",
        };
        match self.policy {
            _ if self.is_stuck() => {
                "is not back from its initialisation: no jump while that lasts".to_owned()
            }
            Policy::Unload => format!("is unloaded before the jump; if that fails, {if_failed}"),
            Policy::Unbind => format!("is unbound before the jump; if that fails, {if_failed}"),
            Policy::Leave => "is left to the kernel's own device shutdown".to_owned(),
            Policy::FirmwareReboot => {
                "firmware-reboot: while it is there, the machine restarts through firmware instead of jumping"
                    .to_owned()
            }
        }
    }
}

fn as_word<S: Serializer>(word: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(word)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    /// Adds a GPU on the PCI bus to a machine.
    pub(crate) fn add(scratch: &Scratch, module: &str, address: &str, state: &str) {
        let device = format!("/sys/devices/pci0000:00/{address}");
        scratch.put(&format!("{device}/class"), "0x030000\n");
        scratch.link(&format!("/sys/bus/pci/devices/{address}"), &device);
        scratch.link(&format!("{device}/subsystem"), "/sys/bus/pci");
        scratch.link(&format!("{device}/driver"), &format!("/sys/bus/pci/drivers/{module}"));
        scratch.link(&format!("/sys/bus/pci/drivers/{module}/module"), &format!("/sys/module/{module}"));
        scratch.put(&format!("/sys/module/{module}/initstate"), &format!("{state}\n"));
        scratch.put(&format!("/sys/module/{module}/refcnt"), "1\n");
    }

    #[test]
    fn what_is_found_is_shown_with_what_is_done_to_it_and_where_it_is() {
        let scratch = Scratch::new();
        add(&scratch, "amdgpu", "0000:03:00.0", "live");
        add(&scratch, "i915", "0000:00:02.0", "live");
        let conf = Conf { gpu: vec![("amdgpu".to_owned(), Policy::FirmwareReboot)], ..Conf::default() };
        let mut gpus = find(&scratch.root, Said::Conf(&conf));
        gpus.sort_by(|one, other| one.module.cmp(&other.module));
        let shown: Vec<_> =
            gpus.iter().map(|gpu| (gpu.module.as_str(), gpu.policy, gpu.devices.concat())).collect();
        assert_eq!(
            shown,
            [
                ("amdgpu", Policy::FirmwareReboot, "0000:03:00.0".to_owned()),
                ("i915", Policy::Leave, "0000:00:02.0".to_owned())
            ]
        );
        assert_eq!(forbids_the_jump(&gpus).map(|gpu| gpu.module.as_str()), Some("amdgpu"));
        assert_eq!(stale_framebuffer(&gpus).map(|gpu| gpu.module.as_str()), Some("i915"));
    }

    #[test]
    fn a_driver_that_is_stuck_in_its_initialisation_forbids_the_jump() {
        let scratch = Scratch::new();
        add(&scratch, "radeon", "0000:03:00.0", "coming");
        let gpus = find(&scratch.root, Said::Conf(&Conf::default()));
        assert!(forbids_the_jump(&gpus).is_some_and(Gpu::is_stuck));
        assert!(find(&Scratch::new().root, Said::Conf(&Conf::default())).is_empty());
    }
}
