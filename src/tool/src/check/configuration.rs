//! The configuration: whether it can be read.

use crate::check::finding::{Findings, Verdict};
use crate::machine::root::Root;
use crate::request::conf::{self, Conf};

/// The verdict on an invalid configuration, and its consequence. A staged plan already holds all settings that
/// count, so the verdict is milder then.
#[derive(Clone, Copy)]
pub(super) struct IfInvalid(pub(super) Verdict, pub(super) &'static str);

impl IfInvalid {
    pub(super) fn of(is_staged: bool) -> IfInvalid {
        if is_staged {
            IfInvalid(
                Verdict::Warn,
                "until then what is staged holds as it is, and nothing else can be staged",
            )
        } else {
            IfInvalid(Verdict::Bad, "until then nothing can be staged")
        }
    }
}

/// Reads the configuration, and reports whether that was possible. Otherwise the defaults are returned.
pub(super) fn read(root: &Root, IfInvalid(verdict, what): IfInvalid, findings: &mut Findings) -> Conf {
    match Conf::read(root) {
        Err(error) => findings.say(verdict, "configuration", format!("{error}; {what}")),
        Ok(conf) => {
            let said = if root.path(conf::PATH).exists() {
                "can be read"
            } else {
                "is not there: the defaults hold"
            };
            findings.say(Verdict::Ok, "configuration", format!("{} {said}", conf::PATH));
            return conf;
        }
    }
    Conf::default()
}
