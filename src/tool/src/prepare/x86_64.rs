//! x86_64's way.

use super::{Error, Parts, Prepared};

/// Prepares a load.
pub fn segments(_parts: &Parts<'_>) -> Result<Prepared, Error> {
    Err(Error::Unfit("nothing is loaded this way yet".to_owned()))
}
