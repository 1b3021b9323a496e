//! The table of a suite's properties, and the code that runs them.

use crate::host::paths::vm_directory;
use crate::image::Image;
use libtest_mimic::{Arguments, Trial};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One property of the product.
pub struct Property {
    /// The name: a sentence.
    pub name: &'static str,
    /// When it runs.
    pub set: Set,
    /// The images on which it runs, once on each.
    pub on: &'static [Image],
    /// The function that proves it.
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
    /// The image on which it runs.
    pub image: Image,
}

impl Test {
    /// Returns the file in which the consoles of this test's machines are kept if it fails.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        vm_directory().join("logs").join(format!("{}.log", self.name.replace("::", ".")))
    }

    fn run(&self, prove: fn(&Self) -> Result<(), String>) -> Result<(), String> {
        if let Some(why) = self.image.missing() {
            not_tested(&self.name, &why);
            return Ok(());
        }
        if DEADLINE.get().is_some_and(|deadline| Instant::now() > *deadline) {
            not_tested(&self.name, "the time for the guests is up");
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
        let _ = fs::create_dir_all(vm_directory().join("logs"));
        let _ = fs::remove_file(&log);
        let begun = Instant::now();
        let proved = prove(self);
        // One file lists the time of all tests: `sort -n target/vm/logs/times`.
        let seconds = begun.elapsed().as_secs();
        note(TIMES, &format!("{seconds:4} s  {}", self.name));
        OF_THIS_RUN.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone(), seconds);
        proved.map_err(|error| format!("{error}\n(consoles: {})", log.display()))?;
        let _ = fs::remove_file(&log);
        Ok(())
    }
}

/// Returns whether a failed property may be proved once more. This is for CI (`.ci/run`), whose host may be too
/// busy for a guest's deadlines. Only a few may: if more fail, the host is not the cause. Each one is reported.
fn once_more() -> bool {
    static LEFT: AtomicUsize = AtomicUsize::new(3);
    let is_wanted = env::var("NEXTKERNEL_AGAIN").is_ok_and(|value| value == "1");
    is_wanted && LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Reports that something is not tested, at once and in a file beside the consoles, which `.ci/run` shows at its
/// end.
pub fn not_tested(what: &str, why: &str) {
    eprintln!("NOT TESTED: {what}: {why}");
    note("not-tested", &format!("{what}: {why}"));
}

/// Appends a line to a file beside the consoles.
pub fn note(file: &str, line: &str) {
    let directory = vm_directory().join("logs");
    let _ = fs::create_dir_all(&directory);
    let noted = OpenOptions::new().append(true).create(true).open(directory.join(file));
    let _ = noted.and_then(|mut noted| writeln!(noted, "{line}"));
}

/// Properties of one kind.
pub struct Suite {
    /// The suite's table.
    pub properties: &'static [Property],
    /// The seconds that a property may take on an otherwise idle machine. Slower properties are named; that is
    /// the only consequence.
    pub budget: u64,
}

/// The time after which no further property begins.
static DEADLINE: OnceLock<Instant> = OnceLock::new();

/// The variable with the minutes for the guests of a CI run, whose host may be slow. Properties that do not fit
/// are reported as not tested.
const MINUTES: &str = "NEXTKERNEL_MINUTES";

/// Runs all properties in one queue: as many at a time as there are processors, unless `--test-threads` says
/// otherwise. The properties that took the longest last time begin first. If there is a deadline, the quick set
/// comes first and then the other properties, suite by suite. The last suite begins with a different property
/// each day, so that the properties that do not fit differ from day to day.
#[must_use]
pub fn run(suites: &[Suite]) -> ExitCode {
    let full = env::var("NEXTKERNEL_FULL").is_ok_and(|value| value == "1");
    let minutes: Option<u64> = env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok());
    if let Some(minutes) = minutes {
        DEADLINE.get_or_init(|| Instant::now() + Duration::from_secs(60 * minutes));
    }
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let last = last_times();
    let (mut trials, mut budgets) = (Vec::new(), BTreeMap::new());
    for (number, suite) in suites.iter().enumerate() {
        for (row, property) in suite.properties.iter().enumerate() {
            for &image in property.on {
                // A table may list a property in both sets, each time on other images.
                let named = suite.properties.iter().filter(|other| other.name == property.name);
                let name = match named.map(|other| other.on.len()).sum() {
                    1_usize => property.name.into(),
                    _ => format!("{}::{}", property.name, image.name()),
                };
                budgets.insert(name.clone(), suite.budget);
                let (test, prove) = (Test { name: name.clone(), image }, property.prove);
                // A property that has never run may take long.
                let took = last.get(&name).copied().unwrap_or(u64::MAX);
                let rows = suite.properties.len() as u64;
                let turn = match property.set {
                    _ if minutes.is_none() => (0, 0),
                    Set::Quick => (0, 0),
                    Set::Full if number + 1 < suites.len() => (1, 0),
                    Set::Full => (2, (row as u64 + rows - today % rows) % rows),
                };
                let trial = Trial::test(name, move || Ok(test.run(prove)?));
                trials.push((
                    (turn, Reverse(took)),
                    trial.with_ignored_flag(property.set == Set::Full && !full),
                ));
            }
        }
    }
    trials.sort_by_key(|(order, _)| *order);
    let trials = trials.into_iter().map(|(_, trial)| trial).collect();
    let mut arguments = Arguments::from_args();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(cores);
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let summary = summary(&OF_THIS_RUN.lock().unwrap_or_else(PoisonError::into_inner), &budgets);
        print!("{summary}");
        let _ = fs::write(vm_directory().join("logs/summary"), summary);
    }
    conclusion.exit_code()
}

/// The seconds that each property took in this run.
static OF_THIS_RUN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The log file with the seconds of all runs.
const TIMES: &str = "times";

/// Returns the seconds that each property took in its last run: from the developer's own runs, else from the
/// committed times.
fn last_times() -> BTreeMap<String, u64> {
    let mut times = times_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("times"));
    times.extend(times_in(&vm_directory().join("logs").join(TIMES)));
    times
}

/// Reads lines of the form `SECONDS s  NAME`, one for each property. The last line for a property counts.
fn times_in(file: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let times = text.lines().filter_map(|line| {
        let (seconds, name) = line.split_once(" s  ")?;
        Some((name.to_owned(), seconds.trim().parse().ok()?))
    });
    times.collect()
}

/// Returns a summary of where the time went.
fn summary(times: &BTreeMap<String, u64>, budgets: &BTreeMap<String, u64>) -> String {
    let mut slowest: Vec<_> = times.iter().collect();
    slowest.sort_by_key(|(_, seconds)| Reverse(**seconds));
    let sum: u64 = times.values().sum();
    let mut text = format!("{} properties in guests, {sum} s one by one; the slowest:\n", slowest.len());
    for (name, seconds) in slowest.iter().take(10) {
        let _ = writeln!(text, "{seconds:5} s  {name}");
    }
    for (name, seconds) in slowest {
        if let Some(budget) = budgets.get(name).filter(|budget| *seconds > **budget) {
            let _ = writeln!(text, "over its budget of {budget} s: {name}, {seconds} s");
        }
    }
    text
}

/// Builds a suite's table from one line for each property: the set, the images, and the function whose name is
/// the sentence.
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
