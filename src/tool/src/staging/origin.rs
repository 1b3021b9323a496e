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
use crate::request::arguments::Wish;
use crate::staging::directory::{self, Folder, NewSet};
use crate::staging::images::Source;

/// Its name in the set.
const NAME: &str = "origin";

/// What a set was made from.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Origin {
    /// What was wanted, as it was said.
    pub wish: Wish,
    /// The folder in which it was said: paths may be relative.
    folder: PathBuf,
    /// The kernel.
    pub kernel: Original,
    /// The files of the initrd, each once.
    pub initrds: Vec<Original>,
    /// The file that describes the entry.
    menu: Option<Original>,
    /// Whether they were seen by the stage alone, which had mounted what they lie on.
    aside: bool,
}

/// A file as it was when it was staged. The number of an inode is not part of it: vfat gives new ones at each mount.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Original {
    /// Where it lies.
    pub path: PathBuf,
    size: u64,
    /// When it was written, and when anything of it was changed: whoever keeps the one cannot keep the other.
    times: [(i64, i64); 2],
}

/// What is staged, or was, before an update disarmed it.
#[derive(Debug, PartialEq)]
pub struct Known {
    /// What it was made from.
    pub origin: Origin,
    /// What a person calls it; `None` where it is disarmed.
    pub entry: Option<String>,
    /// Which handoff it is; `None` where it is disarmed.
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

    /// The file that describes an entry.
    #[must_use]
    pub fn menu(root: &Root, entry: &Entry) -> Option<Original> {
        entry.from.as_deref().and_then(|path| Original::find(root, path))
    }

    /// Whether it is there as it was.
    #[must_use]
    pub fn is_there(&self, root: &Root) -> bool {
        Original::find(root, &self.path).as_ref() == Some(self)
    }
}

impl Origin {
    /// Of what is to be staged.
    #[must_use]
    pub fn of(
        wish: &Wish,
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
            wish: wish.clone(),
            folder: std::env::current_dir().unwrap_or_default(),
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

    /// Writes it into a set.
    pub fn write(&self, set: &NewSet) -> Result<(), directory::Error> {
        let (path, mut file) = set.create(NAME)?;
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        text.and_then(|text| file.write_all(&text)).map_err(|error| directory::Error::Io { path, error })
    }

    /// Of what is staged, or was disarmed. A set of an earlier version has none.
    #[must_use]
    pub fn staged(root: &Root) -> Option<Known> {
        let text = Folder::plan_text(root).ok()?;
        let plan = text.as_deref().map(Plan::parse).transpose().ok()?;
        let (path, entry, handoff) = match plan {
            Some(plan) => {
                (format!("{}/{NAME}", plan.handoff), Some(plan.entry.to_owned()), Some(plan.handoff))
            }
            None => (directory::DISARMED.to_owned(), None, None),
        };
        let text = fs::read(Folder::place(root, &path)).ok()?;
        Some(Known { origin: serde_json::from_slice(&text).ok()?, entry, handoff })
    }

    /// Keeps it for a later update, which may be able to stage it again.
    pub fn keep_disarmed(&self, root: &Root) -> Result<(), directory::Error> {
        let (folder, text) = (Folder::open(root)?, serde_json::to_vec(self).map_err(io::Error::from));
        let path = folder.path(directory::DISARMED);
        text.and_then(|text| fs::write(&path, text)).map_err(|error| directory::Error::Io { path, error })
    }

    /// Goes to where the wish was said.
    pub fn enter(&self) {
        let _ = std::env::set_current_dir(&self.folder);
    }

    /// Whether its kernel is no longer there.
    #[must_use]
    pub fn is_gone(&self, root: &Root) -> bool {
        !self.aside && !root.path(&self.kernel.path).exists()
    }

    /// Whether kernel or initrd are others than those that were staged; of what nobody else could see it is taken to be
    /// so.
    #[must_use]
    pub fn has_other_images(&self, root: &Root) -> bool {
        self.aside || !self.initrds.iter().chain([&self.kernel]).all(|original| original.is_there(root))
    }

    /// Whether anything that it was made from is another.
    #[must_use]
    pub fn has_changed(&self, root: &Root) -> bool {
        self.has_other_images(root) || self.menu.as_ref().is_some_and(|menu| !menu.is_there(root))
    }

    /// The files as they are now.
    #[must_use]
    pub fn now(&self, root: &Root) -> Vec<Option<Original>> {
        let files = self.initrds.iter().chain([&self.kernel]).chain(&self.menu);
        files.map(|original| Original::find(root, &original.path)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::choices::{OnVerb, PreloadChoice};
    use clap::Parser;
    use nextkernel_plan::Watchdog;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        wish: Wish,
    }

    #[test]
    fn a_wish_comes_back_as_it_was_said() {
        let all = "stage --kernel k --initrd a b --extra /e:n --cmdline=-x --remove r --append --y --panic 3 --watchdog 9 \
                   --on kexec --on reboot --preload no --loader direct --thaw=no --no-rehearse";
        let wish = Command::parse_from(all.split_ascii_whitespace()).wish;
        assert!(wish.on == [OnVerb::Kexec, OnVerb::Reboot] && wish.preload == Some(PreloadChoice::No));
        assert_eq!(wish.watchdog, Some(Watchdog::Seconds(9)));
        for wish in [wish, Wish::default(), Wish { by_update: true, follow: true, ..Wish::default() }] {
            let text = serde_json::to_string(&wish).unwrap();
            assert_eq!(serde_json::from_str::<Wish>(&text).unwrap(), wish, "{text}");
        }
    }
}
