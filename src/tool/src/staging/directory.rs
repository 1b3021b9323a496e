//! /run/nextkernel: the plan and the images. Only the file named `plan` counts; every set that it does not name
//! is a leftover, and is removed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nextkernel_plan::{Changed, HandoffId, Malformed, Plan, Preload, Stamp, limits};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;
use thiserror::Error;

use crate::machine::root::Root;
use crate::words::errno::InWords;

/// The directory of the plan and its images.
pub const DIRECTORY: &str = "/run/nextkernel";

/// A plan that does not count yet.
const PROPOSED: &str = "plan.new";

/// The origin of a set that an update has disarmed, so that a later update can stage it again.
pub const DISARMED: &str = "disarmed";

/// How long to wait for another nextkernel, which may be copying some hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The reason why the directory cannot be used.
#[derive(Debug, Error)]
pub enum Error {
    /// A call on one of its files failed.
    #[error("{}: {}{}", .path.display(), InWords(.error), hint(.error))]
    Io {
        /// The file.
        path: PathBuf,
        /// The error that the kernel returned.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error("{DIRECTORY}/lock: another nextkernel has been at work for {} seconds; try again when it is done", PATIENCE.as_secs())]
    Busy,
    /// The plan cannot be read.
    #[error("{DIRECTORY}/plan: {0}; stage again to replace it, or `nextkernel unstage` to be rid of it")]
    Malformed(#[from] Malformed),
    /// The new plan would be unreadable.
    #[error("the plan would be malformed: {0}; shorter or fewer paths are needed")]
    Unwritable(Malformed),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; it belongs to root: run this with sudo",
        _ => "",
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|error| Error::Io { path: path.to_path_buf(), error })
}

/// The directory, locked against every other nextkernel until it is dropped.
pub struct Directory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Directory {
    /// Creates the directory if it is missing, and locks it. Waits up to `PATIENCE` for the lock.
    pub fn open(root: &Root) -> Result<Directory, Error> {
        let path = root.path(DIRECTORY);
        at(&path, DirBuilder::new().recursive(true).mode(0o700).create(&path))?;
        at(&path, fs::set_permissions(&path, Permissions::from_mode(0o700)))?;
        let lock = path.join("lock");
        let mut file = at(&lock, OpenOptions::new().create(true).append(true).mode(0o600).open(&lock))?;
        let since = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Directory { path, _lock: lock }),
                Err(_) if since.elapsed() >= PATIENCE => return Err(Error::Busy),
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the plan's text; `None` if nothing is staged.
    pub fn plan_text(root: &Root) -> Result<Option<Vec<u8>>, Error> {
        let path = root.path(DIRECTORY).join("plan");
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Io { path, error }),
        }
    }

    /// Returns whether a stage ended half way, without taking the lock. If so, its image may still
    /// be loaded.
    #[must_use]
    pub fn is_half_staged(root: &Root) -> bool {
        Directory::place(root, PROPOSED).exists()
    }

    /// Returns the path of a file in the directory, without taking the lock.
    #[must_use]
    pub fn place(root: &Root, name: impl AsRef<Path>) -> PathBuf {
        root.path(DIRECTORY).join(name)
    }

    /// Returns the path of a file in the directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Returns how many bytes can be written into the directory.
    pub fn room(&self) -> Result<u64, Error> {
        let stat = at(&self.path, statvfs(&self.path).map_err(io::Error::from))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Returns the size of its whole file system, in bytes.
    pub fn size(&self) -> Result<u64, Error> {
        let stat = at(&self.path, statvfs(&self.path).map_err(io::Error::from))?;
        Ok(stat.blocks().saturating_mul(stat.fragment_size()))
    }

    /// Returns how many bytes the staged sets take.
    #[must_use]
    pub fn taken(&self) -> u64 {
        let sets = entries(&self.path).into_iter().filter(|path| is_set(path));
        sets.flat_map(|set| entries(&set))
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    /// Creates a new, empty image set. It is removed when it is dropped, unless it is kept.
    pub fn new_set(&self, handoff: HandoffId) -> Result<NewSet, Error> {
        let path = self.path(handoff.to_string());
        at(&path, NewSet::at(&path))
    }

    /// Writes a plan beside the active one; an invalid plan fails here. Until it is committed or withdrawn it
    /// marks a stage that may have left an image loaded.
    pub fn propose(&self, plan: &Plan<'_>) -> Result<(), Error> {
        let text = plan.to_string();
        Plan::parse(text.as_bytes()).map_err(Error::Unwritable)?;
        let (new, is_marked) = (self.path(PROPOSED), self.was_interrupted());
        let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = options.and_then(|mut file| file.write_all(text.as_bytes()));
        at(&new, written).inspect_err(|_| {
            if !is_marked {
                self.withdraw();
            }
        })
    }

    /// Makes the proposed plan the active one. Before the rename nothing of it counts, after it nothing of the
    /// old one.
    pub fn commit(&self, handoff: HandoffId, set: NewSet) -> Result<(), Error> {
        at(&self.path("plan"), fs::rename(self.path(PROPOSED), self.path("plan")))?;
        set.keep();
        self.forget();
        self.sweep(Some(handoff));
        Ok(())
    }

    /// Removes the copies of a plan that starts the loaded image only. A copy that cannot be removed takes
    /// memory, and does no other harm.
    pub fn drop_copies(&self, plan: &Plan<'_>) {
        for image in named(plan) {
            let _ = fs::remove_file(self.path(image.name));
        }
    }

    /// Withdraws a proposal, and with it the mark. The image that it may have left loaded must be gone, or be
    /// the plan's.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(self.path(PROPOSED));
    }

    /// Returns whether a stage ended before its plan was active. Its image may still be loaded.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.path(PROPOSED).exists()
    }

    /// Removes the plan, then the images and the mark. The image must have been unloaded before.
    pub fn clear(&self) -> Result<(), Error> {
        let plan = self.path("plan");
        at(&plan, fs::remove_file(&plan))?;
        self.sweep(None);
        self.withdraw();
        self.forget();
        Ok(())
    }

    /// Forgets the set that an update has disarmed, because a later request replaces it.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.path(DISARMED));
    }

    /// Removes every set but one. A set that cannot be removed is left for the next time, because no plan names
    /// it.
    pub fn sweep(&self, keep: Option<HandoffId>) {
        let keep = keep.map(|handoff| self.path(handoff.to_string()));
        for path in entries(&self.path) {
            if is_set(&path) && Some(&path) != keep.as_ref() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// An image set that no plan names yet.
pub struct NewSet {
    path: PathBuf,
    kept: bool,
}

impl NewSet {
    /// Creates a set in a new directory.
    pub fn at(path: &Path) -> io::Result<NewSet> {
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(NewSet { path: path.to_path_buf(), kept: false })
    }

    /// Keeps the set: it is no longer removed when it is dropped.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Creates a file in the set, for writing.
    pub fn create(&self, name: &str) -> Result<(PathBuf, File), Error> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok((path.clone(), at(&path, file)?))
    }

    /// Renames a file in the set, replacing a file of the new name.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.path.join(to);
        at(&path, fs::rename(self.path.join(from), &path))
    }

    /// Removes a file from the set.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        at(&path, fs::remove_file(&path))
    }
}

impl Drop for NewSet {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns the path of an image of the plan.
#[must_use]
pub fn path(root: &Root, image: &nextkernel_plan::Image<'_>) -> PathBuf {
    root.path(DIRECTORY).join(image.name)
}

/// Returns the files of a plan that its set holds: none with `Preload::Only`.
pub fn images<'a>(plan: &Plan<'a>) -> impl Iterator<Item = nextkernel_plan::Image<'a>> {
    named(plan).filter(|_| plan.preload != Preload::Only)
}

/// Returns all files that a plan names, whether or not its set still holds them.
pub fn named<'a>(plan: &Plan<'a>) -> impl Iterator<Item = nextkernel_plan::Image<'a>> {
    let parameters = plan.direct.map(|direct| direct.parameters);
    std::iter::once(plan.kernel).chain(plan.initrd).chain(parameters)
}

/// Returns whether an image is the one that was staged.
#[must_use]
pub fn is_as_staged(root: &Root, image: &nextkernel_plan::Image<'_>) -> bool {
    let Ok(found) = path(root, image).symlink_metadata() else { return false };
    measured(&found, image.name).is_some_and(|now| now == *image)
}

/// Returns the plan's description of an image; `None` if its time is one that a plan cannot hold.
#[must_use]
pub fn measured<'a>(found: &fs::Metadata, name: &'a str) -> Option<nextkernel_plan::Image<'a>> {
    Some(nextkernel_plan::Image {
        name,
        size: found.len(),
        stamp: Some(Stamp {
            inode: found.ino(),
            changed: Changed {
                seconds: u64::try_from(found.ctime()).ok()?,
                nanoseconds: u32::try_from(found.ctime_nsec()).ok()?,
            },
        }),
    })
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_set(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() <= limits::NAME_MAX && HandoffId::from_digits(name).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use nextkernel_plan::Image;

    fn plan(handoff: u64) -> Plan<'static> {
        let kernel = Image { name: "k", size: 1, stamp: None };
        Plan { staged_at: 1, ..Plan::bare(HandoffId(handoff), "6.12", kernel, "") }
    }

    fn stage(directory: &Directory, handoff: u64) {
        let set = directory.new_set(HandoffId(handoff)).unwrap();
        directory.propose(&plan(handoff)).unwrap();
        directory.commit(HandoffId(handoff), set).unwrap();
    }

    fn names(scratch: &Scratch) -> Vec<String> {
        let mut names: Vec<_> = entries(&scratch.root.path(DIRECTORY))
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_set_that_was_not_committed_is_gone() {
        let scratch = Scratch::new();
        let directory = Directory::open(&scratch.root).unwrap();
        let set = directory.new_set(HandoffId(1)).unwrap();
        set.create("kernel").unwrap();
        drop(set);
        assert_eq!(names(&scratch), ["lock"]);
    }

    #[test]
    fn committing_replaces_the_whole_old_set_and_what_was_left_over() {
        let scratch = Scratch::new();
        let directory = Directory::open(&scratch.root).unwrap();
        stage(&directory, 1);
        fs::create_dir(directory.path("00000000000000ff")).unwrap();
        fs::write(directory.path("plan.new"), "half").unwrap();
        stage(&directory, 2);
        assert_eq!(names(&scratch), ["0000000000000002", "lock", "plan"]);
        let text = Directory::plan_text(&scratch.root).unwrap().unwrap();
        assert_eq!(Plan::parse(&text).unwrap(), plan(2));
        directory.clear().unwrap();
        assert_eq!(names(&scratch), ["lock"]);
    }

    #[test]
    fn a_plan_that_could_not_be_read_is_not_written() {
        let scratch = Scratch::new();
        let directory = Directory::open(&scratch.root).unwrap();
        stage(&directory, 1);
        let long = "e".repeat(limits::ENTRY_MAX + 1);
        let bad = Plan { entry: &long, ..plan(2) };
        let set = directory.new_set(HandoffId(2)).unwrap();
        assert!(directory.propose(&bad).is_err());
        drop(set);
        assert_eq!(names(&scratch), ["0000000000000001", "lock", "plan"]);
    }

    #[test]
    fn the_mark_of_an_interrupted_stage_stays_until_a_plan_counts_or_it_is_taken_away() {
        let scratch = Scratch::new();
        let directory = Directory::open(&scratch.root).unwrap();
        directory.propose(&plan(1)).unwrap();
        directory.sweep(None);
        let long = "e".repeat(limits::ENTRY_MAX + 1);
        assert!(directory.propose(&Plan { entry: &long, ..plan(2) }).is_err());
        assert!(directory.was_interrupted());
        stage(&directory, 3);
        assert!(!directory.was_interrupted());
        directory.propose(&plan(4)).unwrap();
        directory.clear().unwrap();
        assert!(!directory.was_interrupted());
    }

    #[test]
    fn nobody_but_root_can_look_into_it() {
        let scratch = Scratch::new();
        let directory = Directory::open(&scratch.root).unwrap();
        assert_eq!(directory.path.metadata().unwrap().mode() & 0o777, 0o700);
    }
}
