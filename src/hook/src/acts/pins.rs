//! Freeing a driver from what holds it: processes, framebuffer consoles, its sound, a dump of its state.

use core::ffi::CStr;

use nextkernel_plan::is_pci_address;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::process::Signal;

use crate::acts::crowd::{self, Crowd};
use crate::scene::holders::Held;
use crate::scene::processes::Process;
use crate::sys::say::info;
use crate::sys::text::Text;
use crate::sys::{clock, files, limits};

/// Ends all processes that hold a driver, and waits until they are gone. EBUSY: one is still there.
pub fn end_holders(held: &Held<'_>) -> io::Result<()> {
    let holds = |process: &Process, folder: &OwnedFd| held.is_held_by(process, folder);
    let until = clock::uptime() + limits::HOLDERS;
    let kill = || Crowd::each(&holds, until, &mut |folder| crowd::signal(folder, Signal::KILL));
    let crowd = kill();
    if crowd.is_empty() {
        return Ok(());
    }
    info!("end who holds {}: {crowd}", held.module);
    while clock::uptime() < until {
        clock::sleep(limits::GLANCE);
        if kill().is_empty() {
            return Ok(());
        }
    }
    Err(Errno::BUSY)
}

/// Gives every framebuffer console back to the dummy one. ENOENT: none was bound.
///
/// Most drivers of today are not held by theirs; i915, xe, radeon and all of the old fbdev kind are
/// (`fbcon_open`, drivers/video/fbdev/core/fbcon.c). Consoles are known by name, for their numbers differ
/// (`show_name` and `store_bind`, drivers/tty/vt/vt.c).
pub fn unbind_consoles(root: BorrowedFd<'_>) -> io::Result<()> {
    each_of(root, c"sys/class/vtconsole", |console| {
        let (mut name, mut bound) = ([0; 64], [0; 1]);
        let file = |file| files::open(root, console.file(file).as_c_str()?).ok();
        let name = files::up_to(file("name")?, &mut name).ok()?;
        let is_framebuffer = name.windows(12).any(|at| at == b"frame buffer");
        let bound = files::up_to(file("bind")?, &mut bound).ok()? == b"1";
        (is_framebuffer && bound).then(|| files::write(root, console.file("bind").as_c_str()?, b"0").ok())?
    })
}

/// Unbinds the sound of every card from `snd_hda_intel`. ENOENT: there is none.
pub fn unbind_sound(root: BorrowedFd<'_>) -> io::Result<()> {
    each_of(root, c"sys/bus/pci/drivers/snd_hda_intel", |device| {
        // Its devices are links named by their addresses, beside the driver's own files.
        is_pci_address(device.name).then(|| {
            let unbind = device.file("driver/unbind");
            files::write(root, unbind.as_c_str()?, device.name.as_bytes()).ok()
        })?
    })
}

/// Frees every dump that a driver has made of its device: writing anything does it (`devcd_data_write`,
/// drivers/base/devcoredump.c). ENOENT: there is none.
pub fn drop_dumps(root: BorrowedFd<'_>) -> io::Result<()> {
    each_of(root, c"sys/class/devcoredump", |dump| {
        files::write(root, dump.file("data").as_c_str()?, b"1").ok()
    })
}

/// An entry of a folder.
struct Entry<'a> {
    folder: &'a str,
    name: &'a str,
}

impl Entry<'_> {
    fn file(&self, file: &str) -> Text<128> {
        Text::of(format_args!("{}/{}/{file}", self.folder, self.name))
    }
}

/// Calls `act` with each entry of a folder; ENOENT where it did something with none.
fn each_of(
    root: BorrowedFd<'_>,
    folder: &CStr,
    mut act: impl FnMut(&Entry<'_>) -> Option<()>,
) -> io::Result<()> {
    let opened = files::folder(root, folder)?;
    let folder = folder.to_str().unwrap_or_default();
    let mut done = Err(Errno::NOENT);
    files::find_entry(&opened, |name| {
        if act(&Entry { folder, name: name.to_str().ok()? }).is_some() {
            done = Ok(());
        }
        None::<()>
    })?;
    done
}
