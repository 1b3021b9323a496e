//! The staged images: opened once, and checked to be those for which the plan was written.

use nextkernel_plan::{Image, Plan, Preload, Stamp, limits};
use rustix::fd::OwnedFd;
use rustix::fs::fstat;

use crate::bounds::failure::Failure;
use crate::sys::files;

/// The directory of a plan. The names in the plan are relative to it.
#[derive(Debug)]
pub struct PlanDirectory {
    /// Its path, for messages.
    pub path: &'static str,
    /// The open directory.
    pub file: OwnedFd,
}

/// The open images.
#[derive(Debug)]
pub struct Images {
    /// The kernel.
    pub kernel: OwnedFd,
    /// The initrd, if there is one.
    pub initrd: Option<OwnedFd>,
    /// The boot parameters of the next kernel, if it is loaded with `kexec_load(2)`.
    pub parameters: Option<OwnedFd>,
}

impl Images {
    /// Opens the images that the plan names in its directory. Fails if one of them is not the staged one, or
    /// if the plan keeps no copies.
    pub fn open(directory: &PlanDirectory, plan: &Plan<'_>) -> Result<Images, Failure> {
        if plan.preload == Preload::Only {
            return Err(Failure::NoCopies);
        }
        Ok(Images {
            kernel: open(directory, "kernel", &plan.kernel)?,
            initrd: plan.initrd.map(|initrd| open(directory, "initrd", &initrd)).transpose()?,
            parameters: match &plan.direct {
                Some(direct) => Some(open(directory, "parameters", &direct.parameters)?),
                None => None,
            },
        })
    }
}

fn open(directory: &PlanDirectory, image: &'static str, staged: &Image<'_>) -> Result<OwnedFd, Failure> {
    let call = match image {
        "kernel" => "open the staged kernel",
        "initrd" => "open the staged initrd",
        _ => "open the staged parameters",
    };
    let mut name = [0; limits::NAME_MAX + 1];
    for (to, from) in name.iter_mut().zip(staged.name.bytes().take(limits::NAME_MAX)) {
        *to = from;
    }
    let name = core::ffi::CStr::from_bytes_until_nul(&name).unwrap_or_default();
    let file = files::open(&directory.file, name).map_err(|errno| Failure::Call { call, errno })?;
    let found = fstat(&file).map_err(|errno| Failure::Call { call, errno })?;
    let differs = |what| Err(Failure::NotAsStaged { directory: directory.path, image, what });
    if u64::try_from(found.st_size) != Ok(staged.size) {
        return differs("size");
    }
    let Some(Stamp { inode, changed }) = staged.stamp else { return Ok(file) };
    if found.st_ino != inode {
        return differs("inode");
    }
    let seconds = u64::try_from(found.st_ctime);
    let nanoseconds = u32::try_from(found.st_ctime_nsec);
    if seconds != Ok(changed.seconds) || nanoseconds != Ok(changed.nanoseconds) {
        return differs("change time");
    }
    Ok(file)
}
