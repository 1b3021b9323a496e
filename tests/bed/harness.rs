//! The table of a suite's properties, and how they are run.

use crate::image::Image;
use crate::vm_folder;
use libtest_mimic::{Arguments, Trial};
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// One property of the product.
pub struct Property {
    /// A sentence.
    pub name: &'static str,
    /// When it runs.
    pub set: Set,
    /// Where: once per image.
    pub on: &'static [Image],
    /// The proof.
    pub prove: fn(&Test) -> Result<(), String>,
}

/// When a property runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Always (`make test`).
    Quick,
    /// With `NEXTKERNEL_FULL=1` (`make test-all`), or when asked for with `--ignored`.
    Full,
}

/// One run of a property.
pub struct Test {
    /// The name as selected on the command line.
    pub name: String,
    /// Where it runs.
    pub image: Image,
}

impl Test {
    /// Where the consoles of this test's machines are kept when it fails.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        vm_folder().join("logs").join(format!("{}.log", self.name.replace("::", ".")))
    }

    fn run(&self, prove: fn(&Self) -> Result<(), String>) -> Result<(), String> {
        if let Some(why) = self.image.missing() {
            not_tested(&self.name, &why);
            return Ok(());
        }
        match self.run_once(prove) {
            Err(error) if once_more() => {
                eprintln!("NOT STEADY: {} failed, and is proved once more:\n{error}", self.name);
                note("unsteady", &self.name);
                self.run_once(prove)
            }
            proved => proved,
        }
    }

    fn run_once(&self, prove: fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let log = self.log();
        let _ = fs::create_dir_all(vm_folder().join("logs"));
        let _ = fs::remove_file(&log);
        let begun = Instant::now();
        let proved = prove(self);
        // Where the time of all tests goes is found in one file: `sort -n target/vm/logs/times`.
        note("times", &format!("{:4} s  {}", begun.elapsed().as_secs(), self.name));
        proved.map_err(|error| format!("{error}\n(consoles: {})", log.display()))?;
        let _ = fs::remove_file(&log);
        Ok(())
    }
}

/// Whether what failed may be proved once more: for CI (`.ci/run`), whose host may be too busy for a guest's deadlines;
/// not more than a few, for then it is no host's fault. Each is told.
fn once_more() -> bool {
    static LEFT: AtomicUsize = AtomicUsize::new(3);
    let is_wanted = env::var("NEXTKERNEL_AGAIN").is_ok_and(|value| value == "1");
    is_wanted && LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Says that something is not tested, at once and in a file beside the consoles, which `.ci/run` shows at its end.
pub fn not_tested(what: &str, why: &str) {
    eprintln!("NOT TESTED: {what}: {why}");
    note("not-tested", &format!("{what}: {why}"));
}

/// Adds a line to a file beside the consoles.
fn note(file: &str, line: &str) {
    let folder = vm_folder().join("logs");
    let _ = fs::create_dir_all(&folder);
    let noted = OpenOptions::new().append(true).create(true).open(folder.join(file));
    let _ = noted.and_then(|mut noted| writeln!(noted, "{line}"));
}

/// Runs a suite's table: two machines at a time, unless `--test-threads` says otherwise.
#[must_use]
pub fn run(properties: &[Property]) -> ExitCode {
    let full = env::var("NEXTKERNEL_FULL").is_ok_and(|value| value == "1");
    let trials = properties.iter().flat_map(|property| {
        property.on.iter().map(move |&image| {
            // A table may have a property in both sets, each on other images.
            let named = properties.iter().filter(|other| other.name == property.name);
            let name = match named.map(|other| other.on.len()).sum() {
                1_usize => property.name.into(),
                _ => format!("{}::{}", property.name, image.name()),
            };
            let (test, prove) = (Test { name: name.clone(), image }, property.prove);
            Trial::test(name, move || Ok(test.run(prove)?))
                .with_ignored_flag(property.set == Set::Full && !full)
        })
    });
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// A suite's table, a property a line: the set, the images, the function whose name is the sentence.
#[macro_export]
macro_rules! properties {
    ($($set:ident $on:ident $module:ident::$name:ident)*) => {
        &[$($crate::harness::Property {
            name: stringify!($name),
            set: $crate::harness::Set::$set,
            on: $on,
            prove: $module::$name,
        }),*]
    };
}
