//! Finds the drivers that own a GPU on this machine, in the same way while the system runs and at the end of
//! shutdown.
//!
//! There are three sources: the devices of the classes drm and graphics, every PCI device of class 03, and the
//! drivers known by name in /proc/modules, because a driver may have no device, or may be stuck in its probe.
//! Helpers without hardware of their own (drm, ttm, ...) drive no device, and so are not found.

use core::ffi::CStr;

use nextkernel_plan::{GpuFailed, GpuPolicy, List, Policy, is_nvidia};
use rustix::fd::BorrowedFd;

use crate::scene::families::{self, Family};
use crate::scene::modules::{self, ModuleName, State};
use crate::sys::files;
use crate::sys::limits::{self, GPUS_MAX};
use crate::sys::name::Name;
use crate::sys::text::Text;

/// A driver that owns a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its module; the driver's own name if it is built in.
    pub module: ModuleName,
    /// The module's state.
    pub state: State,
    /// The family that it belongs to.
    pub family: &'static Family,
}

impl Driver {
    /// Returns the way to handle it. A built-in driver cannot be unloaded; unbinding has the same effect.
    pub fn policy<'a>(&self, said: impl Iterator<Item = GpuPolicy<'a>>) -> Policy {
        let name = self.module.as_str().unwrap_or_default();
        let (mut own, mut every) = (None, None);
        for line in said {
            if line.driver == name {
                own = Some(line.policy);
            } else if line.driver == GpuPolicy::EVERY {
                // A lent device is unbound only if the administrator named its driver.
                let lent = *self.family == families::LENT;
                every = Some(line.policy).filter(|policy| *policy != Policy::Unbind || !lent);
            }
        }
        match own.or(every).unwrap_or(self.family.policy) {
            Policy::Unbind if is_nvidia(name) => Policy::Unload,
            Policy::Unload if self.state == State::BuiltIn && is_nvidia(name) => Policy::Leave,
            Policy::Unload if self.state == State::BuiltIn => Policy::Unbind,
            policy => policy,
        }
    }

    /// Returns the consequence if that failed.
    #[must_use]
    pub fn if_failed(&self, said: Option<GpuFailed>) -> GpuFailed {
        said.unwrap_or(self.family.if_failed)
    }
}

/// Returns the drivers that own a GPU, below a directory that represents `/`.
#[must_use]
pub fn find(root: BorrowedFd<'_>) -> List<Driver, GPUS_MAX> {
    let mut found = List::new();
    let mut add = |module: ModuleName, family| {
        let state = modules::state(root, &module).unwrap_or(State::BuiltIn);
        let known = found.iter().any(|driver: Driver| driver.module == module);
        if !known {
            // A machine does not have more GPU drivers than there is room for.
            let _ = found.push(Driver { module, state, family });
        }
    };
    for_each_device(root, |device| {
        if let Some(family) = device.family(root) {
            add(device.driver, family);
        }
        None::<()>
    });
    let _ = files::find_line(root, c"proc/modules", |line| {
        let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        if let Some(family) = families::of(name).filter(|family| family.drives_gpus_alone) {
            add(ModuleName::cut(name), family);
        }
        None::<()>
    });
    found
}

/// A device that may be a GPU, and has a driver.
pub struct Device {
    /// Its directory in sysfs, relative to `/`.
    path: Text<{ limits::PATH_MAX }>,
    /// The module of its driver, or the driver's own name if it is built in.
    pub driver: ModuleName,
    built_in: bool,
}

impl Device {
    /// Returns the device in this directory, if it has a driver. For the transport of a virtio device, returns
    /// the device itself, one directory below.
    pub fn at(root: BorrowedFd<'_>, path: Text<{ limits::PATH_MAX }>) -> Option<Device> {
        let mut device = Device { path, driver: ModuleName::cut(b""), built_in: false };
        let link = |name| files::link(root, device.file(name).as_c_str()?);
        let name: ModuleName = link("driver")?;
        if let Some(module) = link("driver/module") {
            device.driver = module;
        } else {
            let name = name.replace(b'-', b'_');
            // The driver of bochs is called bochs-drm.
            let short = name.as_bytes().strip_suffix(b"_drm").filter(|short| families::of(short).is_some());
            device.driver = short.map_or(name, ModuleName::cut);
            device.built_in = true;
        }
        if !device.driver.as_bytes().starts_with(b"virtio_") || device.driver.as_bytes() == b"virtio_gpu" {
            return Some(device);
        }
        let directory = files::directory(root, device.path.as_c_str()?).ok()?;
        let upon = files::find_entry(&directory, |name| {
            let name = name.to_str().ok().filter(|name| name.starts_with("virtio"))?;
            Some(device.file(name))
        });
        Device::at(root, upon.ok()??)
    }

    /// Returns the path of a file below the device's directory.
    #[must_use]
    pub fn file(&self, name: &str) -> Text<{ limits::PATH_MAX }> {
        let path = self.path.as_c_str().and_then(|path| path.to_str().ok()).unwrap_or_default();
        Text::of(format_args!("{path}/{name}"))
    }

    /// Returns the device's name on its bus.
    #[must_use]
    pub fn name(&self, root: BorrowedFd<'_>) -> Option<Name<64>> {
        let path = self.path.as_c_str()?;
        // In /sys/bus the directory itself is the link, in /sys/class its last component is; on virtio neither
        // is.
        let own = || path.to_bytes().rsplit(|byte| *byte == b'/').next().map(Name::cut);
        files::link(root, path).or_else(own)
    }

    /// Returns the family of its driver, or `None` if the driver owns no hardware that matters here.
    fn family(&self, root: BorrowedFd<'_>) -> Option<&'static Family> {
        let integrated = |device: &Device| device.is_integrated_amd(root).then_some(());
        // One module drives all of them: if one of them is integrated, the module stays.
        if self.driver.as_bytes() == b"amdgpu" && for_each_device(root, integrated).is_some() {
            return Some(const { &families::INTEGRATED_AMD });
        }
        if let Some(family) = families::of(self.driver.as_bytes()) {
            return Some(family);
        }
        let bus: Option<Name<16>> =
            self.file("subsystem").as_c_str().and_then(|path| files::link(root, path));
        match bus.as_ref().map(Name::as_bytes) {
            Some(b"pci") => Some(const { &families::UNKNOWN_ON_PCI }),
            // The firmware's framebuffer: the firmware set up this memory, and not the driver.
            _ if self.built_in => None,
            _ => Some(const { &families::UNKNOWN_ELSEWHERE }),
        }
    }

    /// Returns whether this is known to be the GPU of a processor. amdgpu shows the voltage of the northbridge
    /// only for those, but not for all of them (MI300A; `hwmon_attributes_visible`,
    /// `drivers/gpu/drm/amd/pm/amdgpu_pm.c`).
    fn is_integrated_amd(&self, root: BorrowedFd<'_>) -> bool {
        if self.driver.as_bytes() != b"amdgpu" {
            return false;
        }
        let hwmon = self.file("hwmon");
        let directory = hwmon.as_c_str().map(|path| files::directory(root, path));
        let Some(Ok(directory)) = directory else { return false };
        let northbridge = files::find_entry(&directory, |name| {
            let label = Text::<64>::of(format_args!("{}/in1_label", name.to_str().ok()?));
            files::open(&directory, label.as_c_str()?).ok()
        });
        matches!(northbridge, Ok(Some(_)))
    }
}

/// Calls `each` with every device that may be a GPU, until it returns something. A device in two classes is
/// passed twice.
pub fn for_each_device<T>(root: BorrowedFd<'_>, mut each: impl FnMut(&Device) -> Option<T>) -> Option<T> {
    let mut found = None;
    devices_until(root, &mut |device| {
        found = each(device);
        found.is_some()
    });
    found
}

/// Not generic, so the compiler emits only one copy.
fn devices_until(root: BorrowedFd<'_>, is_it: &mut dyn FnMut(&Device) -> bool) {
    let mut of_class = |class: &CStr, is: fn(&[u8]) -> bool, below: &str| {
        let directory = files::directory(root, class).ok()?;
        let class = class.to_str().ok()?;
        let found = files::find_entry(&directory, |name| {
            if !is(name.to_bytes()) {
                return None;
            }
            let path = Text::of(format_args!("{class}/{}{below}", name.to_str().ok()?));
            let device = Device::at(root, path)?;
            let is_gpu = !below.is_empty() || is_display(root, &device);
            (is_gpu && is_it(&device)).then_some(())
        });
        found.ok()?
    };
    let _ = of_class(c"sys/class/drm", is_card, "/device")
        .or_else(|| of_class(c"sys/class/graphics", is_framebuffer, "/device"))
        .or_else(|| of_class(c"sys/bus/pci/devices", |_| true, ""));
}

/// Returns whether a name is that of a card or a render node, and not of a card's connector.
fn is_card(name: &[u8]) -> bool {
    (name.starts_with(b"card") || name.starts_with(b"renderD")) && !name.contains(&b'-')
}

/// Returns whether a name is that of a framebuffer, and not of fbcon, the console on it.
fn is_framebuffer(name: &[u8]) -> bool {
    matches!(name, [b'f', b'b', b'0'..=b'9', ..])
}

/// Returns whether a device has PCI class 03, display controllers (PCI Code and ID Assignment, 1.4).
fn is_display(root: BorrowedFd<'_>, device: &Device) -> bool {
    let mut class = [0; 4];
    let path = device.file("class");
    let read = path.as_c_str().and_then(|path| files::open(root, path).ok());
    read.is_some_and(|file| files::up_to(file, &mut class).is_ok_and(|class| class == b"0x03"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::fd::AsFd;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::string::{String, ToString};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::vec::Vec;

    /// The parts of a machine's /sys and /proc that are examined.
    struct Machine(PathBuf);

    impl Machine {
        fn new() -> Machine {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("nextkernel-gpu-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let machine = Machine(std::env::temp_dir().join(name));
            machine.file("proc/modules", "");
            machine
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        fn module(&self, name: &str, state: &str) {
            self.file(&format!("sys/module/{name}/initstate"), &format!("{state}\n"));
            let modules = fs::read_to_string(self.0.join("proc/modules")).unwrap();
            self.file("proc/modules", &format!("{modules}{name} 16384 0 - Live 0x0000000000000000\n"));
        }

        /// Adds a device with its driver; `module` is empty if that is built in.
        fn device(&self, bus: &str, name: &str, class: &str, driver: &str, module: &str) {
            let device = format!("sys/devices/{bus}/{name}");
            self.file(&format!("{device}/class"), &format!("{class}\n"));
            self.link(&format!("{device}/subsystem"), &format!("../../../bus/{bus}"));
            let up = "../../..";
            if !driver.is_empty() {
                fs::create_dir_all(self.0.join(format!("sys/bus/{bus}/drivers/{driver}"))).unwrap();
                self.link(&format!("{device}/driver"), &format!("{up}/bus/{bus}/drivers/{driver}"));
                if !module.is_empty() {
                    let link = format!("sys/bus/{bus}/drivers/{driver}/module");
                    let _ = fs::remove_file(self.0.join(&link));
                    self.link(&link, &format!("../../../../module/{module}"));
                }
            }
            self.link(&format!("sys/bus/{bus}/devices/{name}"), &format!("{up}/devices/{bus}/{name}"));
        }

        fn in_class(&self, entry: &str, bus: &str, device: &str) {
            self.link(&format!("sys/class/{entry}/device"), &format!("../../../devices/{bus}/{device}"));
        }

        fn root(&self) -> rustix::fd::OwnedFd {
            let path = std::ffi::CString::new(self.0.to_str().unwrap()).unwrap();
            files::directory(rustix::fs::CWD, &path).unwrap()
        }

        fn found(&self) -> Vec<String> {
            let root = self.root();
            let none = || core::iter::empty();
            find(root.as_fd())
                .iter()
                .map(|gpu| std::format!("{} {}", gpu.module, gpu.policy(none())))
                .collect()
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_machine_without_a_gpu_has_none() {
        let machine = Machine::new();
        assert_eq!(machine.found(), [""; 0]);
        machine.module("ext4", "live");
        machine.module("drm", "live");
        machine.device("pci", "0000:00:03.0", "0x020000", "e1000", "e1000");
        machine.file("sys/class/drm/version", "drm 1.1.0 20060810\n");
        assert_eq!(machine.found(), [""; 0]);
    }

    #[test]
    fn the_nvidia_stack_is_one_driver_that_is_unloaded() {
        let machine = Machine::new();
        for module in ["nvidia_drm", "nvidia_uvm", "nvidia_modeset", "nvidia"] {
            machine.module(module, "live");
        }
        machine.device("pci", "0000:3b:00.0", "0x030200", "nvidia", "nvidia");
        machine.in_class("drm/card1", "pci", "0000:3b:00.0");
        assert_eq!(machine.found(), ["nvidia unload"]);
    }

    /// The files as on a machine with an H200, NVIDIA's open driver 580 and a kernel that cannot unload
    /// modules.
    #[test]
    fn a_card_without_a_display_whose_kernel_counts_no_users_is_found() {
        let machine = Machine::new();
        for module in ["nvidia_uvm", "nvidia"] {
            machine.module(module, "live");
        }
        let modules = "nvidia_uvm 1830912 - - Live 0xffffffffc080c000 (O)\n\
                       nvidia 14299136 - - Live 0xffffffffc0400000 (O)\n";
        machine.file("proc/modules", modules);
        machine.device("pci", "0000:00:06.0", "0x030200", "nvidia", "nvidia");
        assert_eq!(machine.found(), ["nvidia unload"]);
    }

    #[test]
    fn a_driver_without_a_device_is_found_by_name() {
        let machine = Machine::new();
        machine.module("nvidia", "live");
        machine.module("radeon", "coming");
        assert_eq!(machine.found(), ["nvidia unload", "radeon unload"]);
        let root = machine.root();
        let states: Vec<_> = find(root.as_fd()).iter().map(|gpu| gpu.state).collect();
        assert_eq!(states, [State::Live, State::Initialising]);
    }

    #[test]
    fn a_virtual_gpu_is_its_own_driver_and_not_that_of_its_transport() {
        let machine = Machine::new();
        machine.module("virtio_pci", "live");
        machine.module("virtio_gpu", "live");
        machine.device("pci", "0000:00:02.0", "0x030000", "virtio-pci", "virtio_pci");
        machine.device("pci", "0000:00:03.0", "0x020000", "virtio-pci", "virtio_pci");
        machine.device("virtio", "virtio0", "", "virtio_gpu", "virtio_gpu");
        let below = "sys/devices/pci/0000:00:02.0/virtio0";
        fs::rename(machine.0.join("sys/devices/virtio/virtio0"), machine.0.join(below)).unwrap();
        fs::remove_file(machine.0.join(below).join("driver")).unwrap();
        machine.link(&format!("{below}/driver"), "../../../../bus/virtio/drivers/virtio_gpu");
        machine.in_class("drm/card0", "pci", "0000:00:02.0");
        assert_eq!(machine.found(), ["virtio_gpu unload"]);
        let name = for_each_device(machine.root().as_fd(), |device| device.name(machine.root().as_fd()));
        assert_eq!(name.unwrap().to_string(), "virtio0");
    }

    #[test]
    fn the_firmwares_framebuffer_is_nobodys_gpu() {
        let machine = Machine::new();
        machine.device("platform", "simple-framebuffer.0", "", "simple-framebuffer", "");
        machine.in_class("drm/card0", "platform", "simple-framebuffer.0");
        machine.in_class("graphics/fb0", "platform", "simple-framebuffer.0");
        assert_eq!(machine.found(), [""; 0]);
    }

    #[test]
    fn a_driver_that_is_built_in_is_unbound() {
        let machine = Machine::new();
        machine.device("pci", "0000:00:02.0", "0x030000", "bochs-drm", "");
        machine.in_class("drm/card0", "pci", "0000:00:02.0");
        assert_eq!(machine.found(), ["bochs unbind"]);
    }

    #[test]
    fn amdgpu_is_left_alone_on_a_processor_with_graphics() {
        let machine = Machine::new();
        machine.module("amdgpu", "live");
        machine.device("pci", "0000:03:00.0", "0x030000", "amdgpu", "amdgpu");
        machine.in_class("drm/card0", "pci", "0000:03:00.0");
        machine.file("sys/devices/pci/0000:03:00.0/hwmon/hwmon4/in0_label", "vddgfx\n");
        assert_eq!(machine.found(), ["amdgpu unload"]);
        machine.file("sys/devices/pci/0000:03:00.0/hwmon/hwmon4/in1_label", "vddnb\n");
        assert_eq!(machine.found(), ["amdgpu leave"]);
        machine.device("pci", "0000:01:00.0", "0x030000", "amdgpu", "amdgpu");
        machine.in_class("drm/card1", "pci", "0000:01:00.0");
        assert_eq!(machine.found(), ["amdgpu leave"]);
    }

    #[test]
    fn old_framebuffers_connectors_and_boards_are_told_apart() {
        let machine = Machine::new();
        machine.module("cirrusfb", "live");
        machine.module("vc4", "live");
        machine.device("pci", "0000:00:02.0", "0x030000", "cirrusfb", "cirrusfb");
        machine.in_class("graphics/fb0", "pci", "0000:00:02.0");
        machine.device("platform", "gpu", "", "vc4-drm", "vc4");
        machine.in_class("drm/card0", "platform", "gpu");
        machine.link("sys/class/drm/card0-HDMI-A-1/device", "../card0");
        assert_eq!(machine.found(), ["vc4 leave", "cirrusfb unload"]);
    }

    #[test]
    fn what_the_administrator_said_counts_first_but_nvidia_is_never_unbound() {
        let machine = Machine::new();
        machine.module("nvidia", "live");
        machine.module("i915", "live");
        let root = machine.root();
        let said = |driver, policy| GpuPolicy { driver, policy };
        let policies = |said: &[GpuPolicy<'static>]| {
            let gpus = find(root.as_fd());
            gpus.iter().map(|gpu| gpu.policy(said.iter().copied()).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(policies(&[]), ["unload", "leave"]);
        assert_eq!(policies(&[said("i915", Policy::Unload)]), ["unload", "unload"]);
        let every = said(GpuPolicy::EVERY, Policy::FirmwareReboot);
        assert_eq!(policies(&[every]), ["firmware-reboot", "firmware-reboot"]);
        assert_eq!(policies(&[said("nvidia", Policy::Leave), every]), ["leave", "firmware-reboot"]);
        machine.module("vfio_pci", "live");
        // vfio_pci may have been lent a network card.
        assert_eq!(policies(&[]), ["unload", "leave"]);
        machine.device("pci", "0000:01:00.0", "0x030000", "vfio-pci", "vfio_pci");
        assert_eq!(policies(&[said(GpuPolicy::EVERY, Policy::Unbind)]), ["leave", "unload", "unbind"]);
        assert_eq!(policies(&[said("vfio_pci", Policy::Unbind)]), ["unbind", "unload", "leave"]);
        machine.device("pci", "0000:02:00.0", "0x030200", "nvgrace-gpu-vfio-pci", "nvgrace_gpu_vfio_pci");
        let lent = policies(&[said(GpuPolicy::EVERY, Policy::Unbind)]);
        assert_eq!(lent.iter().filter(|policy| *policy == "leave").count(), 2, "{lent:?}");
    }
}
