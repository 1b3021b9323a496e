//! /run/nextkernel: the plan and the images. The plan's name is the one thing that decides; whatever
//! it does not name is left over and goes.

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

const FOLDER: &str = "/run/nextkernel";

/// The plan that does not count yet.
const PROPOSED: &str = "plan.new";

/// The origin of what an update has disarmed, so that a later one can stage it again.
pub const DISARMED: &str = "disarmed";

/// How long another nextkernel is waited for: it may be copying some hundred megabytes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes wrong with the folder.
#[derive(Debug, Error)]
pub enum Error {
    /// A call on one of its files.
    #[error("{}: {}{}", .path.display(), InWords(.error), hint(.error))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        error: io::Error,
    },
    /// Another process holds the lock.
    #[error("{FOLDER}/lock: another nextkernel has been at work for {} seconds; try again when it is done", PATIENCE.as_secs())]
    Busy,
    /// The plan cannot be read.
    #[error("{FOLDER}/plan: {0}; stage again to replace it, or `nextkernel unstage` to be rid of it")]
    Malformed(#[from] Malformed),
    /// It would be read by nobody.
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

/// The folder, locked against every other nextkernel until it is dropped.
pub struct Folder {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Folder {
    /// Makes it where it is missing, and locks it.
    pub fn open(root: &Root) -> Result<Folder, Error> {
        let path = root.path(FOLDER);
        at(&path, DirBuilder::new().recursive(true).mode(0o700).create(&path))?;
        at(&path, fs::set_permissions(&path, Permissions::from_mode(0o700)))?;
        let lock = path.join("lock");
        let mut file = at(&lock, OpenOptions::new().create(true).append(true).mode(0o600).open(&lock))?;
        let since = Instant::now();
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Folder { path, _lock: lock }),
                Err(_) if since.elapsed() >= PATIENCE => return Err(Error::Busy),
                Err((back, _)) => file = back,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The plan's text; `None` where nothing is staged.
    pub fn plan_text(root: &Root) -> Result<Option<Vec<u8>>, Error> {
        let path = root.path(FOLDER).join("plan");
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Io { path, error }),
        }
    }

    /// Whether a stage ended half way, for whoever only reads: what is loaded may be its image.
    #[must_use]
    pub fn is_half_staged(root: &Root) -> bool {
        Folder::place(root, PROPOSED).exists()
    }

    /// Where a file of it lies, for whoever only reads.
    #[must_use]
    pub fn place(root: &Root, name: impl AsRef<Path>) -> PathBuf {
        root.path(FOLDER).join(name)
    }

    /// The name of a file in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Bytes that can be written into it.
    pub fn room(&self) -> Result<u64, Error> {
        let stat = at(&self.path, statvfs(&self.path).map_err(io::Error::from))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Bytes that the file system takes in all.
    pub fn size(&self) -> Result<u64, Error> {
        let stat = at(&self.path, statvfs(&self.path).map_err(io::Error::from))?;
        Ok(stat.blocks().saturating_mul(stat.fragment_size()))
    }

    /// Bytes that a staged set takes.
    #[must_use]
    pub fn taken(&self) -> u64 {
        let sets = entries(&self.path).into_iter().filter(|path| is_set(path));
        sets.flat_map(|set| entries(&set))
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    /// A new, empty set of images. It goes again when it is dropped before it is kept.
    pub fn new_set(&self, handoff: HandoffId) -> Result<NewSet, Error> {
        let path = self.path(handoff.to_string());
        at(&path, NewSet::at(&path))
    }

    /// Writes a plan beside the one that counts: all that can go wrong with it does so here. Until it counts or is
    /// withdrawn it is the mark of a stage that may have left an image loaded.
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

    /// Makes the proposed plan the plan. Before this nothing of it counts, after it nothing of the old
    /// one.
    pub fn commit(&self, handoff: HandoffId, set: NewSet) -> Result<(), Error> {
        at(&self.path("plan"), fs::rename(self.path(PROPOSED), self.path("plan")))?;
        set.keep();
        self.forget();
        self.sweep(Some(handoff));
        Ok(())
    }

    /// Removes the copies of a plan that starts what is loaded alone. What cannot be removed takes memory, and no more.
    pub fn drop_copies(&self, plan: &Plan<'_>) {
        for image in named(plan) {
            let _ = fs::remove_file(self.path(image.name));
        }
    }

    /// Takes a proposal back, and with it the mark: what it may have left loaded is gone, or is what the plan says.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(self.path(PROPOSED));
    }

    /// Whether a stage ended before its plan counted, and may have left its image loaded.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        self.path(PROPOSED).exists()
    }

    /// Takes the plan away, and then the images and the mark: what was loaded is to be gone by then.
    pub fn clear(&self) -> Result<(), Error> {
        let plan = self.path("plan");
        at(&plan, fs::remove_file(&plan))?;
        self.sweep(None);
        self.withdraw();
        self.forget();
        Ok(())
    }

    /// Forgets what an update has disarmed: somebody has said since what is wanted.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.path(DISARMED));
    }

    /// Removes every set but one. What cannot be removed is left for the next time: no plan names it.
    pub fn sweep(&self, keep: Option<HandoffId>) {
        let keep = keep.map(|handoff| self.path(handoff.to_string()));
        for path in entries(&self.path) {
            if is_set(&path) && Some(&path) != keep.as_ref() {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
}

/// A set of images that no plan names yet.
pub struct NewSet {
    path: PathBuf,
    kept: bool,
}

impl NewSet {
    /// One in a folder of its own, which is made.
    pub fn at(path: &Path) -> io::Result<NewSet> {
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(NewSet { path: path.to_path_buf(), kept: false })
    }

    /// Keeps it.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Makes a file in it, for writing.
    pub fn create(&self, name: &str) -> Result<(PathBuf, File), Error> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok((path.clone(), at(&path, file)?))
    }

    /// Calls a file in it otherwise, in place of what has that name.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.path.join(to);
        at(&path, fs::rename(self.path.join(from), &path))
    }

    /// Takes a file out of it.
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

/// Where an image of the plan lies.
#[must_use]
pub fn path(root: &Root, image: &nextkernel_plan::Image<'_>) -> PathBuf {
    root.path(FOLDER).join(image.name)
}

/// The files of a plan that are kept in its set.
pub fn images<'a>(plan: &Plan<'a>) -> impl Iterator<Item = nextkernel_plan::Image<'a>> {
    named(plan).filter(|_| plan.preload != Preload::Only)
}

/// The files of a plan, which its set may not have kept.
pub fn named<'a>(plan: &Plan<'a>) -> impl Iterator<Item = nextkernel_plan::Image<'a>> {
    let parameters = plan.direct.map(|direct| direct.parameters);
    std::iter::once(plan.kernel).chain(plan.initrd).chain(parameters)
}

/// Whether an image is the one that was staged.
#[must_use]
pub fn is_as_staged(root: &Root, image: &nextkernel_plan::Image<'_>) -> bool {
    let Ok(found) = path(root, image).symlink_metadata() else { return false };
    measured(&found, image.name).is_some_and(|now| now == *image)
}

/// What the plan says of an image.
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

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
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

    fn stage(folder: &Folder, handoff: u64) {
        let set = folder.new_set(HandoffId(handoff)).unwrap();
        folder.propose(&plan(handoff)).unwrap();
        folder.commit(HandoffId(handoff), set).unwrap();
    }

    fn names(scratch: &Scratch) -> Vec<String> {
        let mut names: Vec<_> = entries(&scratch.root.path(FOLDER))
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_set_that_was_not_committed_is_gone() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        set.create("kernel").unwrap();
        drop(set);
        assert_eq!(names(&scratch), ["lock"]);
    }

    #[test]
    fn committing_replaces_the_whole_old_set_and_what_was_left_over() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.root).unwrap();
        stage(&folder, 1);
        fs::create_dir(folder.path("00000000000000ff")).unwrap();
        fs::write(folder.path("plan.new"), "half").unwrap();
        stage(&folder, 2);
        assert_eq!(names(&scratch), ["0000000000000002", "lock", "plan"]);
        let text = Folder::plan_text(&scratch.root).unwrap().unwrap();
        assert_eq!(Plan::parse(&text).unwrap(), plan(2));
        folder.clear().unwrap();
        assert_eq!(names(&scratch), ["lock"]);
    }

    #[test]
    fn a_plan_that_could_not_be_read_is_not_written() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.root).unwrap();
        stage(&folder, 1);
        let long = "e".repeat(limits::ENTRY_MAX + 1);
        let bad = Plan { entry: &long, ..plan(2) };
        let set = folder.new_set(HandoffId(2)).unwrap();
        assert!(folder.propose(&bad).is_err());
        drop(set);
        assert_eq!(names(&scratch), ["0000000000000001", "lock", "plan"]);
    }

    #[test]
    fn the_mark_of_an_interrupted_stage_stays_until_a_plan_counts_or_it_is_taken_away() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.root).unwrap();
        folder.propose(&plan(1)).unwrap();
        folder.sweep(None);
        let long = "e".repeat(limits::ENTRY_MAX + 1);
        assert!(folder.propose(&Plan { entry: &long, ..plan(2) }).is_err());
        assert!(folder.was_interrupted());
        stage(&folder, 3);
        assert!(!folder.was_interrupted());
        folder.propose(&plan(4)).unwrap();
        folder.clear().unwrap();
        assert!(!folder.was_interrupted());
    }

    #[test]
    fn nobody_but_root_can_look_into_it() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.root).unwrap();
        assert_eq!(folder.path.metadata().unwrap().mode() & 0o777, 0o700);
    }
}
