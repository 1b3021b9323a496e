//! Freeing a driver from its users: processes, framebuffer consoles, the sound of its GPU, a dump of its
//! state.

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

/// Kills all processes that hold a driver, and waits until they are gone. Fails with EBUSY if one is still
/// there after `HOLDERS`.
pub fn end_holders(held: &Held<'_>) -> io::Result<()> {
    let holds = |process: &Process, directory: &OwnedFd| held.is_held_by(process, directory);
    let until = clock::uptime() + limits::HOLDERS;
    let kill = || Crowd::each(&holds, until, &mut |directory| crowd::signal(directory, Signal::KILL));
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

/// Gives every framebuffer console back to the dummy console. Fails with ENOENT if none was bound.
///
/// Most current drivers are not held by their console; i915, xe, radeon and all old fbdev drivers are
/// (`fbcon_open`, drivers/video/fbdev/core/fbcon.c). Consoles are recognised by name, because their numbers
/// differ (`show_name` and `store_bind`, drivers/tty/vt/vt.c).
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

/// Unbinds every sound card from `snd_hda_intel`. Fails with ENOENT if there is none.
pub fn unbind_sound(root: BorrowedFd<'_>) -> io::Result<()> {
    each_of(root, c"sys/bus/pci/drivers/snd_hda_intel", |device| {
        // The driver's devices are links named by their addresses, beside the driver's own files.
        is_pci_address(device.name).then(|| {
            let unbind = device.file("driver/unbind");
            files::write(root, unbind.as_c_str()?, device.name.as_bytes()).ok()
        })?
    })
}

/// Frees every dump that a driver has made of its device. Writing anything to the dump does that
/// (`devcd_data_write`, drivers/base/devcoredump.c). Fails with ENOENT if there is none.
pub fn drop_dumps(root: BorrowedFd<'_>) -> io::Result<()> {
    each_of(root, c"sys/class/devcoredump", |dump| {
        files::write(root, dump.file("data").as_c_str()?, b"1").ok()
    })
}

/// An entry of a directory.
struct Entry<'a> {
    directory: &'a str,
    name: &'a str,
}

impl Entry<'_> {
    fn file(&self, file: &str) -> Text<128> {
        Text::of(format_args!("{}/{}/{file}", self.directory, self.name))
    }
}

/// Calls `act` with each entry of a directory. Fails with ENOENT if `act` did something with none of them.
fn each_of(
    root: BorrowedFd<'_>,
    directory: &CStr,
    mut act: impl FnMut(&Entry<'_>) -> Option<()>,
) -> io::Result<()> {
    let opened = files::directory(root, directory)?;
    let directory = directory.to_str().unwrap_or_default();
    let mut done = Err(Errno::NOENT);
    files::find_entry(&opened, |name| {
        if act(&Entry { directory, name: name.to_str().ok()? }).is_some() {
            done = Ok(());
        }
        None::<()>
    })?;
    done
}
