//! The table of a suite's properties, and how they are run.

use crate::image::Image;
use crate::vm_folder;
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
        let _ = fs::create_dir_all(vm_folder().join("logs"));
        let _ = fs::remove_file(&log);
        let begun = Instant::now();
        let proved = prove(self);
        // Where the time of all tests goes is found in one file: `sort -n target/vm/logs/times`.
        let seconds = begun.elapsed().as_secs();
        note(TIMES, &format!("{seconds:4} s  {}", self.name));
        OF_THIS_RUN.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone(), seconds);
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
pub fn note(file: &str, line: &str) {
    let folder = vm_folder().join("logs");
    let _ = fs::create_dir_all(&folder);
    let noted = OpenOptions::new().append(true).create(true).open(folder.join(file));
    let _ = noted.and_then(|mut noted| writeln!(noted, "{line}"));
}

/// Properties of one kind.
pub struct Suite {
    /// Its table.
    pub properties: &'static [Property],
    /// Seconds that one may take, on a machine that does nothing else. Those that take longer are named, and nothing else.
    pub budget: u64,
}

/// When no further property begins.
static DEADLINE: OnceLock<Instant> = OnceLock::new();

/// How many minutes there are for the guests of a CI run, whose host may be slow: what does not fit is told as not tested.
const MINUTES: &str = "NEXTKERNEL_MINUTES";

/// Runs all properties in one queue: as many at a time as there are processors, unless `--test-threads` says otherwise;
/// those that took the longest last time begin first. Where there is a deadline, those of the quick set come before the
/// others, suite by suite, and the last suite begins each day with another one: what does not fit differs from day to day.
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
                // A table may have a property in both sets, each on other images.
                let named = suite.properties.iter().filter(|other| other.name == property.name);
                let name = match named.map(|other| other.on.len()).sum() {
                    1_usize => property.name.into(),
                    _ => format!("{}::{}", property.name, image.name()),
                };
                budgets.insert(name.clone(), suite.budget);
                let (test, prove) = (Test { name: name.clone(), image }, property.prove);
                // What has never run may take long.
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
        let _ = fs::write(vm_folder().join("logs/summary"), summary);
    }
    conclusion.exit_code()
}

/// Seconds by property, of this run.
static OF_THIS_RUN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// The file with those of all runs.
const TIMES: &str = "times";

/// Seconds by property, of the last run in which each was: the developer's own, else those that were committed.
fn last_times() -> BTreeMap<String, u64> {
    let mut times = times_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("times"));
    times.extend(times_in(&vm_folder().join("logs").join(TIMES)));
    times
}

/// A line for each property: `SECONDS s  NAME`. The last one counts.
fn times_in(file: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let times = text.lines().filter_map(|line| {
        let (seconds, name) = line.split_once(" s  ")?;
        Some((name.to_owned(), seconds.trim().parse().ok()?))
    });
    times.collect()
}

/// Where the time went.
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
