//! The processes that hold a driver, because they have one of its device files open or mapped.
//!
//! An init ends all it can before the hooks run. A process that is left holds on by intention, or it hangs.
//! Plymouth, for example, keeps the screen; systemd spares it because its name begins with '@'.

use core::ffi::CStr;

use nextkernel_plan::{List, is_nvidia};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, StatxFlags, readlinkat_raw, statx};
use rustix::io;

use crate::scene::gpu::Device;
use crate::scene::modules::ModuleName;
use crate::scene::processes::{self, Process, Relatives};
use crate::sys::text::Text;
use crate::sys::{files, limits};

/// The major number of sound devices (Documentation/admin-guide/devices.txt).
const SOUND: u32 = 116;

/// A driver and the device files that belong to it.
pub struct Held<'a> {
    root: BorrowedFd<'a>,
    /// The driver.
    pub module: ModuleName,
    /// The majors of its devices that are in no device tree.
    majors: List<u32, { limits::MAJORS_MAX }>,
    sound: bool,
    relatives: Relatives,
}

impl<'a> Held<'a> {
    /// Finds the files of a driver; with `sound`, those of every sound card, too.
    #[must_use]
    pub fn by_files_of(
        root: BorrowedFd<'a>,
        module: &ModuleName,
        sound: bool,
        relatives: Relatives,
    ) -> Held<'a> {
        let mut majors = List::new();
        let mut character = false;
        let _ = files::find_line(root, c"proc/devices", |line| {
            character |= line.starts_with(b"Character");
            character &= !line.starts_with(b"Block");
            if let Some((major, name)) = major(line).filter(|_| character) {
                let is_its = match module.as_str() {
                    Some(module) if is_nvidia(module) => name.starts_with(b"nvidia"),
                    Some("amdgpu") => name == b"kfd",
                    _ => false,
                };
                if is_its {
                    let _ = majors.push(major);
                }
            }
            None::<()>
        });
        Held { root, module: *module, majors, sound, relatives }
    }

    /// Returns the first process that holds the driver and may be ended.
    pub fn first(&self) -> io::Result<Option<Process>> {
        processes::find(|process, directory| self.is_held_by(process, directory).then_some(*process))
    }

    /// Returns whether this process holds the driver and may be ended.
    #[must_use]
    pub fn is_held_by(&self, process: &Process, directory: &OwnedFd) -> bool {
        !process.is_kernel
            && !process.has_ended()
            && (self.is_held_by_one(directory, true) || self.is_held_by_a_thread(process, directory))
            && !self.relatives.include(process, processes::parent_of)
    }

    /// Returns whether a thread of the process holds the driver. A thread can have open files of its own, and
    /// the directory of a process whose first thread has ended shows nothing. Each thread has a directory like
    /// a process, although /proc does not list it (`proc_pid_lookup`, fs/proc/base.c).
    fn is_held_by_a_thread(&self, process: &Process, directory: &OwnedFd) -> bool {
        let threads = (process.threads > 1).then(|| files::directory(directory, c"task"));
        let Some(Ok(threads)) = threads else { return false };
        let held = files::find_entry(&threads, |name| {
            let thread = Text::<32>::of(format_args!("/proc/{}", name.to_str().ok()?));
            let thread = files::directory(rustix::fs::CWD, thread.as_c_str()?).ok()?;
            // Mappings are the same for all threads.
            self.is_held_by_one(&thread, process.has_lost_its_first_thread()).then_some(())
        });
        matches!(held, Ok(Some(())))
    }

    /// Examines open files and, in `map_files`, files that are mapped and no longer open (proc(5)).
    fn is_held_by_one(&self, one: &OwnedFd, with_mappings: bool) -> bool {
        [(c"fd", true), (c"map_files", with_mappings)].into_iter().filter(|(_, looks)| *looks).any(
            |(files, _)| {
                let Ok(directory) = files::directory(one, files) else { return false };
                let held =
                    files::find_entry(&directory, |name| self.is_file_of_it(&directory, name).then_some(()));
                matches!(held, Ok(Some(())))
            },
        )
    }

    fn is_file_of_it(&self, directory: impl AsFd, name: &CStr) -> bool {
        // Without synchronisation: a file server that does not answer is not asked.
        let Ok(file) = statx(directory, name, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE) else {
            return false;
        };
        if FileType::from_raw_mode(file.stx_mode.into()) != FileType::CharacterDevice {
            return false;
        }
        let (major, minor) = (file.stx_rdev_major, file.stx_rdev_minor);
        (self.sound && major == SOUND)
            || self.majors.iter().any(|its| its == major)
            || self.drives(major, minor)
    }

    /// Returns whether the nearest driver above a character device is this one.
    fn drives(&self, major: u32, minor: u32) -> bool {
        let link = Text::<64>::of(format_args!("sys/dev/char/{major}:{minor}"));
        let mut buffer = [const { core::mem::MaybeUninit::uninit() }; limits::LINK_MAX];
        let target = link.as_c_str().and_then(|link| readlinkat_raw(self.root, link, &mut buffer).ok());
        let mut path = target.and_then(|(path, _)| core::str::from_utf8(path).ok());
        // Goes upwards from a path like ../../devices/pci0000:00/0000:00:02.0/drm/card0.
        while let Some(place) = path.filter(|path| !path.ends_with("/devices")) {
            let directory = Text::of(format_args!("sys/dev/char/{place}"));
            if let Some(device) = Device::at(self.root, directory) {
                return device.driver == self.module;
            }
            path = place.rsplit_once('/').map(|(above, _)| above);
        }
        false
    }
}

/// Reads `MAJOR NAME` of /proc/devices.
#[must_use]
pub fn major(line: &[u8]) -> Option<(u32, &[u8])> {
    let line = line.trim_ascii();
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (major, name) = line.split_at(space);
    let major = core::str::from_utf8(major).ok()?.parse().ok()?;
    Some((major, name.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_is_read_with_its_name() {
        assert_eq!(major(b"  1 mem"), Some((1, &b"mem"[..])));
        assert_eq!(major(b"195 nvidia-frontend"), Some((195, &b"nvidia-frontend"[..])));
        for bad in ["", "Character devices:", "-1 x", "12", "x y"] {
            assert_eq!(major(bad.as_bytes()), None, "{bad}");
        }
    }
}
