//! A cache for bytes that every guest of a process needs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Bytes that are made once in a process, each under a name.
pub(crate) struct Made(Mutex<BTreeMap<&'static str, Vec<u8>>>);

impl Made {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Returns the bytes of that name, and makes them at the first call.
    pub(crate) fn get(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Vec<u8>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = all.get(name) {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        all.insert(name, bytes.clone());
        Ok(bytes)
    }
}
