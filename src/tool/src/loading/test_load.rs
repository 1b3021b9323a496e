//! The test load: the staged image is really loaded while the system runs, so that the kernel's objections are
//! known now.

use std::ffi::{CStr, CString};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nextkernel_plan::{Direct, HandoffId, Part, Record, Recorded, Segment, limits};
use thiserror::Error;

use crate::loading::policy::calls_left;
use crate::loading::refusal::{self, Image};
use crate::loading::restriction::Restriction;
use crate::machine::cma;
use crate::machine::root::Root;
use crate::machine::sys::{self, Mapping};
use crate::words::errno::ByName;

/// How often a call is repeated while another load is in its way, and the pause in between.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

const LOAD: &str = "load";

/// The kernel's refusal, in one sentence that says what to do.
#[derive(Debug, Error)]
#[error("the kernel refuses to {act} the image: {why} ({})", ByName(.errno))]
pub struct Error {
    act: &'static str,
    why: String,
    errno: io::Error,
}

/// The open files of an image set that is loaded with `kexec_load`.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    /// The kernel.
    pub kernel: &'a File,
    /// The initrd, if there is one.
    pub initrd: Option<&'a File>,
    /// The parameters for the next kernel.
    pub parameters: &'a File,
}

/// Loads the image with this command line, and returns how long the call took. If it fails, the image loaded
/// before stays. If the system limits the number of calls, `later` of them are left over.
pub fn load(
    root: &Root,
    kernel: &File,
    initrd: Option<&File>,
    line: &CStr,
    later: u64,
) -> Result<Duration, Error> {
    let initrd_fd = initrd.map(AsFd::as_fd);
    let before = Restriction::to_calls(root);
    let load = |leaves_cma_out| {
        let call = || sys::kexec_file_load(kernel.as_fd(), initrd_fd, line, leaves_cma_out);
        unless_busy(|| calls_left(root), later, call)
    };
    let has_cma = cma::is_there(root);
    let loaded = load(has_cma).or_else(|errno| {
        let is_flag = errno.raw_os_error() == Some(libc::EINVAL) && has_cma && !cma::is_loaded_into(root);
        if is_flag { load(false) } else { Err(errno) }
    });
    loaded.map_err(|errno| {
        let image = Image::of(kernel, initrd, line.to_bytes_with_nul().len() as u64);
        Error { act: LOAD, why: refusal::of_load(root, &errno, before, &image), errno }
    })
}

/// Does the same as [`load`] with `kexec_load`, by the same call that the hook makes.
pub fn load_segments(
    root: &Root,
    files: Files<'_>,
    direct: &Direct<'_>,
    line: &CStr,
    later: u64,
) -> Result<Duration, Error> {
    let before = Restriction::to_calls(root);
    let takes = Segment::memory(direct.segments.iter());
    let refused =
        |errno| Error { act: LOAD, why: refusal::of_segment_load(root, &errno, before, takes), errno };
    let io =
        |errno| Error { act: LOAD, why: "the staged files cannot be read; stage again".to_owned(), errno };
    let parameters = parameters(root, files.parameters, direct, line).map_err(io)?;
    let kernel = Mapping::of(files.kernel).map_err(io)?;
    let initrd = files.initrd.map(Mapping::of).transpose().map_err(io)?;
    let mut segments = Vec::new();
    for segment in direct.segments.iter() {
        let file = match segment.part {
            Part::Kernel => kernel.bytes(),
            Part::Initrd => initrd.as_ref().map_or(&[][..], Mapping::bytes),
            Part::Parameters => &parameters,
        };
        let bytes = segment.bytes.of(file);
        let bytes = bytes.ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EFAULT)))?;
        segments.push(sys::Segment { bytes, at: segment.at, takes: segment.takes });
    }
    let call = || sys::kexec_load(direct.start, &segments);
    unless_busy(|| calls_left(root), later, call).map_err(refused)
}

/// Returns the parameters with the command line in its place, and with freshly drawn random seeds.
fn parameters(root: &Root, file: &File, direct: &Direct<'_>, line: &CStr) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Reading at an offset neither uses nor moves the file's position.
    let length = file.metadata()?.len();
    bytes.resize(usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
    let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut random = File::open(root.path("/dev/urandom"))?;
    for seed in direct.seeds.iter() {
        random.read_exact(seed.of_mut(&mut bytes).ok_or_else(outside)?)?;
    }
    let line = line.to_bytes_with_nul();
    let place = direct.cmdline.of_mut(&mut bytes).ok_or_else(outside)?;
    place.fill(0);
    place.get_mut(..line.len()).ok_or_else(outside)?.copy_from_slice(line);
    Ok(bytes)
}

/// Returns the command line with the record of a preloaded image.
#[must_use]
pub fn preloaded(cmdline: &str, handoff: HandoffId) -> CString {
    recorded(cmdline, Record::preloaded(handoff))
}

/// Returns the longest command line that the hook may load with. A placeholder stands for the record: it has
/// the record's key, so that it is dropped if the command line is reused, and it contains no handoff's id.
#[must_use]
pub fn longest(cmdline: &str) -> CString {
    let record = format!("{:x<1$}", format!("{}=", Record::KEY), limits::RECORD_MAX - 1);
    recorded(cmdline, record)
}

fn recorded(cmdline: &str, record: impl Display) -> CString {
    CString::new(Recorded { cmdline, record }.to_string()).unwrap_or_default()
}

/// Unloads the loaded image. If the system limits the number of calls, `later` of them are left over.
pub fn unload(root: &Root, later: u64) -> Result<(), Error> {
    let before = Restriction::to_calls(root);
    let unloaded = unless_busy(|| calls_left(root), later, sys::kexec_unload).map_err(|errno| Error {
        act: "unload",
        why: refusal::of_unload(root, &errno, before),
        errno,
    });
    unloaded.map(drop)
}

/// Repeats the call while another load is in its way, and returns how long the successful call took. An attempt
/// that ends in EBUSY counts against the limit, too (`kexec_load_permitted`, `kernel/kexec_core.c`, is checked
/// before the lock).
fn unless_busy(
    left: impl Fn() -> Option<u64>,
    later: u64,
    mut call: impl FnMut() -> io::Result<()>,
) -> io::Result<Duration> {
    let mut timed = || {
        let since = Instant::now();
        call().map(|()| since.elapsed())
    };
    for _ in 0..BUSY_TRIES {
        match timed() {
            Err(errno) if errno.raw_os_error() == Some(libc::EBUSY) => {
                if left().is_some_and(|left| left <= later) {
                    return Err(errno);
                }
                std::thread::sleep(BUSY_PAUSE);
            }
            answer => return answer,
        }
    }
    timed()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use nextkernel_plan::{Area, List};
    use std::cell::Cell;

    /// A refusal as the kernel gives one.
    pub(crate) fn refusal(act: &'static str) -> Error {
        Error { act, why: "so it is".to_owned(), errno: io::Error::from_raw_os_error(libc::EPERM) }
    }

    #[test]
    fn the_line_goes_to_its_place_and_every_seed_is_fresh() {
        let scratch = Scratch::new();
        scratch.put("/dev/urandom", "12345678");
        scratch.put("/parameters", &"p".repeat(256));
        let file = File::open(scratch.root.path("/parameters")).unwrap();
        let (mut seeds, parameters) =
            (List::new(), nextkernel_plan::Image { name: "p", size: 256, stamp: None });
        seeds.push(Area { offset: 1, size: 2 }).unwrap();
        seeds.push(Area { offset: 250, size: 6 }).unwrap();
        let cmdline = Area { offset: 10, size: 200 };
        let direct = Direct { parameters, start: 0, segments: List::new(), cmdline, seeds };
        let bytes = super::parameters(&scratch.root, &file, &direct, &longest("root=x")).unwrap();
        let line = "root=x nextkernel.record=xxx";
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with(&format!("p12ppppppp{line}"))
                && text.ends_with("\0pppppppppppppppppppppppppppppppppppppppp345678")
        );
        assert_eq!(text.len(), 256);
        let small = Direct { cmdline: Area { offset: 10, size: 20 }, ..direct };
        assert!(super::parameters(&scratch.root, &file, &small, &longest("root=x")).is_err());
    }

    #[test]
    fn whoever_is_told_to_wait_spends_none_of_the_calls_that_are_needed_later() {
        for (limit, later, made) in [(Some(5), 2, 3), (Some(3), 2, 1), (Some(1), 0, 1)] {
            let (left, calls) = (Cell::new(limit), Cell::new(0));
            let busy = || {
                calls.set(calls.get() + 1);
                left.set(left.get().map(|left: u64| left.saturating_sub(1)));
                Err(io::Error::from_raw_os_error(libc::EBUSY))
            };
            assert!(unless_busy(|| left.get(), later, busy).is_err());
            assert_eq!(calls.get(), made, "{limit:?}");
        }
    }
}
