//! Runs programs of the host.

use std::process::Command;

/// Runs a program of the host and returns its output. An error names the program and contains its error messages.
pub fn run(command: &mut Command) -> Result<String, String> {
    run_bytes(command).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Does the same as [`run`], for output that is not text.
pub fn run_bytes(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}: {}", output.status, said.trim()))
}
