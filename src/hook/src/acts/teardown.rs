//! Freeing the GPUs for the next kernel, and unloading the other modules that the plan names.

use core::time::Duration;

use nextkernel_plan::{GpuFailed, List, Plan, Policy, Trouble};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::io::Errno;

use crate::acts::module::{Stuck, Unloading, WhyStuck};
use crate::acts::pins;
use crate::bounds::act::How;
use crate::bounds::failure::Failure;
use crate::bounds::{Bounds, Undone};
use crate::scene::gpu::{self, Device, Driver};
use crate::scene::holders::Held;
use crate::scene::locks::Lock;
use crate::scene::modules::{self, ModuleName, State};
use crate::sys::limits::{self, GPUS_MAX};
use crate::sys::say::{info, warn};
use crate::sys::{clock, files};

/// The drivers and modules to free before the jump.
pub struct Teardown<'a> {
    root: OwnedFd,
    plan: &'a Plan<'a>,
    gpus: List<Driver, GPUS_MAX>,
}

impl<'a> Teardown<'a> {
    /// Finds the drivers of GPUs. Fails if the policy for one of them is a full reboot.
    pub fn find(plan: &'a Plan<'a>) -> Result<Teardown<'a>, Failure> {
        let root = files::directory(CWD, c"/").map_err(|errno| Failure::Call { call: "open /", errno })?;
        let gpus = gpu::find(root.as_fd());
        // A driver that hangs in its probe hangs every restart. `free` looks at that first.
        let meant = |gpu: &Driver| {
            gpu.state != State::Initialising && gpu.policy(plan.gpu.iter()) == Policy::FirmwareReboot
        };
        match gpus.iter().find(meant) {
            Some(gpu) => Err(Failure::MeantForFirmware(gpu.module)),
            None => Ok(Teardown { root, plan, gpus }),
        }
    }

    /// Frees everything. Fails if a GPU could not be freed and the machine must then do a full reboot. If
    /// every reboot(2) would hang, resets the machine, and returns only if that is impossible.
    pub fn carry_out(&self, how: How, bounds: &Bounds<'_>) -> Result<(), Failure> {
        // efibc writes variables of the firmware at every jump, and so overwrites those that were left there
        // for a boot loader (drivers/firmware/efi/efibc.c).
        self.unload(how, bounds, &ModuleName::cut(b"efibc"))?;
        let mut still_driven = None;
        for gpu in self.gpus.iter() {
            let Err(stuck) = self.free(how, bounds, &gpu)? else { continue };
            warn!("{stuck}");
            if stuck.blocks_reboot() {
                return Err(bounds.reset());
            }
            match gpu.if_failed(self.plan.gpu_failed) {
                GpuFailed::Jump => {
                    warn!("{} still drives its GPU: the next kernel may not get it", gpu.module);
                    bounds.diary.note(Trouble::GPU);
                }
                GpuFailed::FirmwareReboot => still_driven = Some(gpu.module),
            }
        }
        for module in self.plan.modules.iter() {
            self.unload(how, bounds, &ModuleName::cut(module.as_bytes()))?;
        }
        still_driven.map_or(Ok(()), |module| Err(Failure::StillDriven(module)))
    }

    /// Unloads a module that drives no GPU, if it is loaded.
    fn unload(&self, how: How, bounds: &Bounds<'_>, module: &ModuleName) -> Result<(), Failure> {
        if modules::state(self.root.as_fd(), module).is_none() {
            return Ok(());
        }
        let unloading = || Ok(self.unloading(bounds, bounds.budget.module, &mut || Ok(false)).unload(module));
        match how.act(format_args!("unload {module}, and what stands on it"), unloading)? {
            Some(Err(stuck)) if stuck.blocks_reboot() => {
                warn!("{stuck}");
                Err(bounds.reset())
            }
            Some(Err(stuck)) => {
                warn!("{stuck}: it stays");
                bounds.diary.note(Trouble::MODULE);
                Ok(())
            }
            Some(Ok(())) | None => Ok(()),
        }
    }

    fn free(&self, how: How, bounds: &Bounds<'_>, gpu: &Driver) -> Result<Result<(), Stuck>, Failure> {
        let module = gpu.module;
        let freed = match gpu.policy(self.plan.gpu.iter()) {
            Policy::Unload => how.act(
                format_args!("free the GPU of {module}: unload it, and a screen on it goes dark"),
                || Ok(self.unload_gpu(bounds, gpu)),
            ),
            Policy::Unbind => how.act(
                format_args!("free the GPU of {module}: unbind it, and a screen on it goes dark"),
                || Ok(self.unbind_gpu(bounds, gpu)),
            ),
            Policy::Leave => how
                .act(format_args!("leave the GPU of {module} to the driver's own shutdown"), || {
                    Ok(self.has_come_up(bounds, &module))
                }),
            Policy::FirmwareReboot => match self.has_come_up(bounds, &module) {
                Err(stuck) if stuck.blocks_reboot() => Ok(Some(Err(stuck))),
                _ => return Err(Failure::MeantForFirmware(module)),
            },
        };
        Ok(freed?.unwrap_or(Ok(())))
    }

    fn unload_gpu(&self, bounds: &Bounds<'_>, gpu: &Driver) -> Result<(), Stuck> {
        let held = self.held(bounds, gpu);
        let mut pins = Pin::ALL.into_iter();
        let mut free = || {
            for pin in pins.by_ref() {
                match pin.free(self.root.as_fd(), gpu, &held, bounds) {
                    Ok(()) => return Ok(true),
                    Err(Undone::Hangs(hang)) if hang.lock != Lock::Free => return Err(WhyStuck::Hangs(hang)),
                    Err(Undone::Died) => return Err(WhyStuck::Oopsed),
                    // A process that could not be ended keeps the driver in use, whatever else is freed.
                    Err(_) if pin == Pin::Holders => return Ok(false),
                    // There is nothing of this kind.
                    Err(_) => {}
                }
            }
            Ok(false)
        };
        let unloaded = self.unloading(bounds, bounds.budget.gpu, &mut free).unload(&gpu.module);
        if let Err(Stuck { why: WhyStuck::InUse, .. }) = unloaded {
            name_the_holder(&held, bounds);
        }
        unloaded
    }

    fn unbind_gpu(&self, bounds: &Bounds<'_>, gpu: &Driver) -> Result<(), Stuck> {
        let stuck = |why| Stuck { module: gpu.module, why };
        self.has_come_up(bounds, &gpu.module)?;
        // A process that survives keeps an open file with no device behind it.
        let _ = Pin::Holders.free(self.root.as_fd(), gpu, &self.held(bounds, gpu), bounds);
        for _ in 0..limits::DEVICES_MAX {
            let unbound = gpu::for_each_device(self.root.as_fd(), |device| {
                (device.driver == gpu.module).then(|| self.unbind(bounds, device))
            });
            match unbound {
                None => return Ok(()),
                Some(Ok(())) => {}
                Some(Err(Undone::Hangs(hang))) => return Err(stuck(WhyStuck::Hangs(hang))),
                Some(Err(Undone::Died)) => return Err(stuck(WhyStuck::Oopsed)),
                Some(Err(Undone::Refused(errno))) => return Err(stuck(WhyStuck::Refused(errno))),
                Some(Err(_)) => return Err(stuck(WhyStuck::OutOfTime)),
            }
        }
        Err(stuck(WhyStuck::OutOfTime))
    }

    fn unbind(&self, bounds: &Bounds<'_>, device: &Device) -> Result<(), Undone> {
        let name = device.name(self.root.as_fd()).ok_or(Undone::Refused(Errno::NODEV))?;
        let file = device.file("driver/unbind");
        let file = file.as_c_str().ok_or(Undone::Refused(Errno::NAMETOOLONG))?;
        info!("unbind {name} from {}", device.driver);
        bounds.watched("unbind", bounds.budget.gpu, &|| 1, || files::write(&self.root, file, name.as_bytes()))
    }

    /// Waits for a driver that is still initialising. Fails if that takes too long.
    fn has_come_up(&self, bounds: &Bounds<'_>, module: &ModuleName) -> Result<(), Stuck> {
        let mut comes_up = bounds.progress(bounds.budget.initialising);
        while modules::state(self.root.as_fd(), module) == Some(State::Initialising) {
            comes_up.see(modules::devices(self.root.as_fd(), module), 0);
            if comes_up.patience().is_none() {
                return Err(Stuck {
                    module: *module,
                    why: WhyStuck::Initialising { stalled: comes_up.has_stalled() },
                });
            }
            clock::sleep(limits::GLANCE);
        }
        Ok(())
    }

    fn held(&self, bounds: &Bounds<'_>, gpu: &Driver) -> Held<'_> {
        Held::by_files_of(self.root.as_fd(), &gpu.module, gpu.family.pinned_by_audio, bounds.relatives)
    }

    fn unloading<'f>(
        &'f self,
        bounds: &'f Bounds<'f>,
        exit: Duration,
        free: &'f mut dyn FnMut() -> Result<bool, WhyStuck>,
    ) -> Unloading<'f> {
        Unloading { root: self.root.as_fd(), exit, bounds, free }
    }
}

/// The known users of a driver that is in use, in the order in which they are ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pin {
    Holders,
    Consoles,
    /// After the holders, because unbinding waits for processes that play sound, with the lock of the device
    /// held.
    Sound,
    Dumps,
}

impl Pin {
    const ALL: [Pin; 4] = [Pin::Holders, Pin::Consoles, Pin::Sound, Pin::Dumps];

    /// Frees the driver from this user. Runs in a child, because it may hang on a lock of the driver. Fails
    /// also if there is no such user.
    fn free(
        self,
        root: BorrowedFd<'_>,
        gpu: &Driver,
        held: &Held<'_>,
        bounds: &Bounds<'_>,
    ) -> Result<(), Undone> {
        let time = bounds.budget.module;
        match self {
            // Without its parent, the hook cannot distinguish the init's other hooks from leftover processes.
            Pin::Holders if !bounds.relatives.are_known() => Err(Undone::Refused(Errno::SRCH)),
            Pin::Holders => bounds
                .bounded("end what holds it", limits::HOLDERS_LOOK, || pins::end_holders(held))
                .map_err(Undone::from),
            Pin::Consoles => {
                bounds.watched("unbind the consoles", time, &|| 1, || pins::unbind_consoles(root))
            }
            Pin::Sound if !gpu.family.pinned_by_audio => Err(Undone::Refused(Errno::NODEV)),
            Pin::Sound => bounds.watched("unbind the sound", time, &|| 1, || pins::unbind_sound(root)),
            Pin::Dumps => bounds.watched("drop its dumps", time, &|| 1, || pins::drop_dumps(root)),
        }
    }
}

/// Names the process that still holds a driver.
fn name_the_holder(held: &Held<'_>, bounds: &Bounds<'_>) {
    let _ = bounds.bounded("look for who holds it", limits::HOLDERS_LOOK, || {
        if let Some(holder) = held.first()? {
            let id = holder.id.as_raw_nonzero();
            warn!("'{}' ({id}) holds {} and cannot be ended", holder.name, held.module);
        }
        Ok(())
    });
}
