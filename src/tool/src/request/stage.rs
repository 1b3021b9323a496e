//! A request to stage: the next kernel that somebody wants, and how it is to be staged. It is stored beside the
//! images, so that an update can repeat it.

use std::ffi::OsString;
use std::path::PathBuf;

use nextkernel_plan::Watchdog;
use serde::{Deserialize, Serialize};

use crate::request::choices::{OnVerb, PreloadChoice, SyscallChoice};

/// A request to stage. Where it leaves something open, the configuration decides.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct StageRequest {
    /// The kernel to stage.
    pub target: Target,
    /// Files to add to the initrd, as `PATH[:NAME]`.
    pub extra: Vec<OsString>,
    /// The origin of the command line.
    pub line: LineFrom,
    /// Parameters to remove from that line, as `NAME[=VALUE]`.
    pub remove: Vec<String>,
    /// Parameters to append to it.
    pub append: Vec<String>,
    /// The seconds after which the next kernel restarts when it panics.
    pub panic: Option<u16>,
    /// Whether to stop the hardware watchdog before the jump, or to arm it.
    #[serde(with = "word")]
    pub watchdog: Option<Watchdog>,
    /// The verbs that start the image; none means `kexec`.
    pub on: Vec<OnVerb>,
    /// Whether to load the image while it is staged.
    pub preload: Option<PreloadChoice>,
    /// The system call that loads it.
    pub syscall: Option<SyscallChoice>,
    /// Whether to decompress kernel and initrd.
    pub decompress: Option<bool>,
    /// Whether to leave out the test load.
    pub skips_test_load: bool,
    /// Whether an update may stage another kernel in its place, if the boot loader would then boot that one.
    pub follow: bool,
    /// Whether `stage-on-update` made the request, and not a person.
    pub by_update: bool,
}

/// The kernel to stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Target {
    /// The kernel that the boot loader would boot now.
    #[default]
    Default,
    /// A boot entry by its name, or an installed kernel by its version.
    Entry(String),
    /// Files.
    Files {
        /// The kernel.
        kernel: PathBuf,
        /// The initrds, which are joined in this order.
        initrds: Vec<PathBuf>,
    },
}

/// The origin of the next kernel's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum LineFrom {
    /// The entry's own line. If it has none, the running kernel's line is used for an installed kernel, and files
    /// are refused.
    #[default]
    Entry,
    /// The running kernel, without the parameters that the boot loader added.
    Running,
    /// The request itself.
    Given(String),
}

impl StageRequest {
    /// Returns a request for an entry, or for the default one.
    #[must_use]
    pub fn of_entry(entry: Option<String>) -> StageRequest {
        StageRequest { target: entry.map_or(Target::Default, Target::Entry), ..StageRequest::default() }
    }

    /// Returns whether a person named the kernel to stage.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.by_update && self.target != Target::Default
    }
}

impl Target {
    /// Returns the entry that is named, if one is.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        match self {
            Target::Entry(name) => Some(name),
            _ => None,
        }
    }
}

/// Stores a watchdog as its word.
mod word {
    use nextkernel_plan::Watchdog;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference"
    )]
    pub fn serialize<S: Serializer>(value: &Option<Watchdog>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|value| value.to_string()).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Watchdog>, D::Error> {
        let word = Option::<String>::deserialize(from)?;
        let read = |word: String| Watchdog::from_word(&word).ok_or_else(|| D::Error::custom("no watchdog"));
        word.map(read).transpose()
    }
}
