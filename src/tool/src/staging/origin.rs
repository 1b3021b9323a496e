//! The origin of a staged image set: the files that it was made from, and the stage request. It is stored in
//! the set itself, beside the images, so that it is replaced and removed with the plan, and costs no time at
//! the end of shutdown. It shows whether an update has replaced any of the files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nextkernel_plan::{HandoffId, Plan};
use serde::{Deserialize, Serialize};

use crate::entries::entry::Entry;
use crate::machine::root::Root;
use crate::request::stage::StageRequest;
use crate::staging::directory::{self, Directory, NewSet};
use crate::staging::source::Source;

/// Its name in the set.
const NAME: &str = "origin";

/// The origin of a set.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Origin {
    /// The request.
    pub request: StageRequest,
    /// The working directory at that time, because paths may be relative.
    directory: PathBuf,
    /// The kernel.
    pub kernel: Original,
    /// The files of the initrd, each once.
    pub initrds: Vec<Original>,
    /// The file that describes the entry.
    menu: Option<Original>,
    /// Whether the files lie on a file system that was mounted for the stage alone.
    aside: bool,
}

/// A file as it was when it was staged. Its inode number is left out, because vfat gives out new ones at each mount.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Original {
    /// Its path.
    pub path: PathBuf,
    size: u64,
    /// The modification time and the change time. A program that sets the first back cannot set back the second.
    times: [(i64, i64); 2],
}

/// The origin of the staged set, or of the one that an update has disarmed.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// The origin.
    pub origin: Origin,
    /// The entry's name in the plan; `None` if the set is disarmed.
    pub entry: Option<String>,
    /// The id of the handoff; `None` if the set is disarmed.
    pub handoff: Option<HandoffId>,
}

impl Original {
    fn new(path: &Path, found: &fs::Metadata) -> Original {
        let times = [(found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec())];
        Original { path: path.to_path_buf(), size: found.len(), times }
    }

    fn find(root: &Root, path: &Path) -> Option<Original> {
        Some(Original::new(path, &root.path(path).metadata().ok()?))
    }

    /// Returns the file that describes an entry.
    #[must_use]
    pub fn menu(root: &Root, entry: &Entry) -> Option<Original> {
        entry.from.as_deref().and_then(|path| Original::find(root, path))
    }

    /// Returns whether the file at the path is still this one.
    #[must_use]
    pub fn is_there(&self, root: &Root) -> bool {
        Original::find(root, &self.path).as_ref() == Some(self)
    }
}

impl Origin {
    /// Returns the origin of a set that is to be made.
    #[must_use]
    pub fn of(
        request: &StageRequest,
        entry: &Entry,
        menu: Option<Original>,
        (kernel, initrds): (&Source, &[Source]),
    ) -> Origin {
        let original = |source: &Source| {
            // The metadata is that of the open file. If the file is replaced meanwhile, the one at the path
            // differs.
            let found = source.file.metadata().ok()?;
            Some(Original::new(&source.piece.path, &found))
        };
        let nothing = Original { path: kernel.piece.path.clone(), size: 0, times: [(0, 0); 2] };
        let mut seen = BTreeSet::new();
        Origin {
            request: request.clone(),
            directory: std::env::current_dir().unwrap_or_default(),
            kernel: original(kernel).unwrap_or(nothing),
            initrds: initrds
                .iter()
                .filter(|source| seen.insert(&source.piece.path))
                .filter_map(original)
                .collect(),
            menu,
            aside: entry.aside,
        }
    }

    /// Writes the origin into a set.
    pub fn write(&self, set: &NewSet) -> Result<(), directory::Error> {
        let (path, mut file) = set.create(NAME)?;
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        text.and_then(|text| file.write_all(&text)).map_err(|error| directory::Error::Io { path, error })
    }

    /// Reads the origin of the staged set, or of the disarmed one. A set of an earlier version has none.
    #[must_use]
    pub fn staged(root: &Root) -> Option<Known> {
        let text = Directory::plan_text(root).ok()?;
        let plan = text.as_deref().map(Plan::parse).transpose().ok()?;
        let (path, entry, handoff) = match plan {
            Some(plan) => {
                (format!("{}/{NAME}", plan.handoff), Some(plan.entry.to_owned()), Some(plan.handoff))
            }
            None => (directory::DISARMED.to_owned(), None, None),
        };
        let text = fs::read(Directory::place(root, &path)).ok()?;
        Some(Known { origin: serde_json::from_slice(&text).ok()?, entry, handoff })
    }

    /// Keeps the origin for a later update, which may be able to stage it again.
    pub fn keep_disarmed(&self, root: &Root) -> Result<(), directory::Error> {
        let (directory, text) = (Directory::open(root)?, serde_json::to_vec(self).map_err(io::Error::from));
        let path = directory.path(directory::DISARMED);
        text.and_then(|text| fs::write(&path, text)).map_err(|error| directory::Error::Io { path, error })
    }

    /// Changes to the directory in which the request was made.
    pub fn enter(&self) {
        let _ = std::env::set_current_dir(&self.directory);
    }

    /// Returns whether the kernel was removed.
    #[must_use]
    pub fn is_gone(&self, root: &Root) -> bool {
        !self.aside && !root.path(&self.kernel.path).exists()
    }

    /// Returns whether kernel or initrd have changed since they were staged. For files that the stage alone could
    /// see, that is assumed.
    #[must_use]
    pub fn has_other_images(&self, root: &Root) -> bool {
        self.aside || !self.initrds.iter().chain([&self.kernel]).all(|original| original.is_there(root))
    }

    /// Returns whether any of the files has changed.
    #[must_use]
    pub fn has_changed(&self, root: &Root) -> bool {
        self.has_other_images(root) || self.menu.as_ref().is_some_and(|menu| !menu.is_there(root))
    }

    /// Returns the files as they are now.
    #[must_use]
    pub fn now(&self, root: &Root) -> Vec<Option<Original>> {
        let files = self.initrds.iter().chain([&self.kernel]).chain(&self.menu);
        files.map(|original| Original::find(root, &original.path)).collect()
    }
}
