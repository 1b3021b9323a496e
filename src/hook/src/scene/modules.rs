//! The kernel's modules, as sysfs shows them.

use nextkernel_plan::limits::MODULE_NAME_MAX;
use rustix::fd::{BorrowedFd, OwnedFd};

use crate::sys::name::Name;
use crate::sys::text::Text;
use crate::sys::{files, limits};

/// The name of a module, with room for the NUL.
pub type ModuleName = Name<{ MODULE_NAME_MAX + 1 }>;

/// The state of a driver's module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The module works.
    Live,
    /// Its initialisation has not returned.
    Initialising,
    /// It is being unloaded.
    Going,
    /// The driver is built in, and is not a module.
    BuiltIn,
}

/// Returns the state of a module, or `None` if there is no module of that name
/// (Documentation/ABI/testing/sysfs-module).
#[must_use]
pub fn state(root: BorrowedFd<'_>, module: &ModuleName) -> Option<State> {
    let path = Text::<{ limits::PATH_MAX }>::of(format_args!("sys/module/{module}/initstate"));
    let mut word = [0; 8];
    match files::up_to(files::open(root, path.as_c_str()?).ok()?, &mut word).ok()? {
        b"live\n" => Some(State::Live),
        b"coming\n" => Some(State::Initialising),
        b"going\n" => Some(State::Going),
        _ => None,
    }
}

/// Returns the number of devices that the drivers of a module have, plus the number of other entries in their
/// directories. Only changes of it matter. While a driver probes its first devices, the module does not show
/// the driver yet (`bus_add_driver`, drivers/base/bus.c). A driver on the PCI bus is therefore found by its
/// name, which for GPU drivers is the module's name.
#[must_use]
pub fn devices(root: BorrowedFd<'_>, module: &ModuleName) -> u32 {
    let directory = |path: Text<{ limits::PATH_MAX }>| files::directory(root, path.as_c_str()?).ok();
    let mut count = 0;
    let mut count_in = |driver: &OwnedFd| {
        let _ = files::find_entry(driver, |_| {
            count += 1;
            None::<()>
        });
    };
    if let Some(driver) = directory(Text::of(format_args!("sys/bus/pci/drivers/{module}"))) {
        count_in(&driver);
    }
    if let Some(drivers) = directory(Text::of(format_args!("sys/module/{module}/drivers"))) {
        let _ = files::find_entry(&drivers, |driver| {
            count_in(&files::directory(&drivers, driver).ok()?);
            None::<()>
        });
    }
    count
}

/// Returns a module that uses symbols of this one, after skipping the first `but_for`.
#[must_use]
pub fn standing_on(root: BorrowedFd<'_>, module: &ModuleName, mut but_for: u32) -> Option<ModuleName> {
    let path = Text::<{ limits::PATH_MAX }>::of(format_args!("sys/module/{module}/holders"));
    let directory = files::directory(root, path.as_c_str()?).ok()?;
    files::find_entry(&directory, |name| {
        let found = but_for == 0;
        but_for = but_for.saturating_sub(1);
        found.then(|| ModuleName::cut(name.to_bytes()))
    })
    .ok()?
}
