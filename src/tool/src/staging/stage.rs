//! Staging: chooses the next kernel, copies its images to /run, where they outlive the file systems, test-loads
//! them, and writes the plan.

use std::time::Duration;

use nextkernel_plan::{HandoffId, Plan, Preload};
use thiserror::Error;

use crate::loading::policy;
use crate::loading::prepare::handed_out::Look;
use crate::loading::syscall::{self, Syscall};
use crate::loading::test_load::{self, Files};
use crate::machine::root::Root;
use crate::machine::sys::Calls;
use crate::report;
use crate::request::stage::StageRequest;
use crate::staging::directory::{self, Directory, NewSet};
use crate::staging::interrupt::{Deferred, Interrupted};
use crate::staging::leftovers::Leftovers;
use crate::staging::order::{self, Order};
use crate::staging::plan::{self, Names, NoRandom};
use crate::staging::room::{self, LOADS_LATER, Loads};
use crate::staging::set::{self, Beside, Made, Place};
use crate::words::errno::InWords;

/// The reason why nothing was staged.
#[derive(Debug, Error)]
pub enum Error {
    /// The request cannot be resolved.
    #[error(transparent)]
    Order(#[from] order::Error),
    /// The machine has no place for the image set.
    #[error(transparent)]
    Room(#[from] room::Error),
    /// The image set cannot be made.
    #[error(transparent)]
    Set(#[from] set::Error),
    /// /run/nextkernel cannot be used.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// The kernel refuses the image.
    #[error("{error}; what was staged before is as it was")]
    Refused {
        /// The kernel's error.
        error: test_load::Error,
    },
    /// The kernel took the image once, and refused it the second time.
    #[error(
        "{error}; nothing new is staged, and what was loaded before is loaded no more: stage again, or `nextkernel unstage`"
    )]
    RefusedAgain {
        /// The kernel's error.
        error: test_load::Error,
    },
    /// The kernel took the image, and fails to unload it.
    #[error("{error}; the new image is still loaded, and no plan is for it: `nextkernel unstage` unloads it")]
    StaysLoaded {
        /// The kernel's error on unloading.
        error: test_load::Error,
    },
    /// A signal asked this process to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// No id could be generated for the handoff.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Stages without printing anything.
pub fn quietly(root: &Root, request: &StageRequest) -> Result<(), Error> {
    stage(root, request, syscall::calls(root)).map(drop)
}

/// The result of staging.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) handoff: HandoffId,
    /// Notes for the user, in addition to the status.
    pub(crate) notes: Vec<String>,
}

/// Stages on a kernel that has these loading syscalls.
pub(crate) fn stage(root: &Root, request: &StageRequest, calls: Option<Calls>) -> Result<Staged, Error> {
    let order = Order::resolve(root, request, calls)?;
    let directory = Directory::open(root)?;
    let leftovers = Leftovers::clear_up(root, &directory)?;
    let loads = Loads::of(&order, leftovers.may_be_loaded);
    room::check(root, &directory, &order, loads)?;

    // From here on signals are deferred. Half-copied files, which may include a key of `--extra`, are removed
    // on an error, and no image without a plan stays loaded.
    let signals = Deferred::begin(root);
    let handoff = plan::new_id(root)?;
    let (set, names) = (directory.new_set(handoff)?, Names::of(handoff));
    let place = Place { root, directory: &directory, set: &set };
    let made =
        set::make(place, &order.contents, order.sizes.initrd, || signals.check().map_err(Error::from))?;
    room::check_load(root, &order, &made, loads)?;
    order.origin.write(&set)?;
    let plan = plan::of(&order, &directory, &made, (handoff, &names))?;
    signals.check()?;

    let mut trial = Trial { place, order: &order, names: &names, plan, made, loads, leftovers };
    let took = trial.run()?;
    let Trial { plan, made, .. } = trial;
    commit(root, &directory, set, &plan, leftovers)?;
    let notes = order.notes.iter().chain(&made.notes).cloned().chain(recorded(root, &plan, took));
    Ok(Staged { handoff, notes: notes.collect() })
}

/// A proposed plan with its set, which the kernel is asked to load.
struct Trial<'s, 'a> {
    place: Place<'s>,
    order: &'a Order,
    names: &'a Names,
    plan: Plan<'a>,
    made: Made,
    loads: Loads,
    leftovers: Leftovers,
}

impl Trial<'_, '_> {
    /// Writes the proposed plan and test-loads it. Returns how long the load took.
    fn run(&mut self) -> Result<Option<Duration>, Error> {
        let (root, directory, loads) = (self.place.root, self.place.directory, self.loads);
        let keeps_mark = self.leftovers.interrupted;
        directory.propose(&self.plan)?;
        let load = || self.load();
        let unload = || test_load::unload(root, LOADS_LATER);
        let took = loaded(loads.tests.then_some(load), loads.unloads.then_some(unload));
        took.inspect_err(|error| {
            if !keeps_mark && !matches!(error, Error::StaysLoaded { .. }) {
                directory.withdraw();
            }
        })
    }

    /// Loads the image as the plan says, and returns how long that took. If the hook will load by segments, and
    /// the kernel allocates pages for that in the very memory that the segments are to go to, changes the plan so
    /// that they go elsewhere.
    fn load(&mut self) -> Result<Duration, Error> {
        let (root, unloads) = (self.place.root, self.loads.unloads);
        let may_move = !self.plan.preload.starts_what_is_loaded() && policy::calls_left(root).is_none();
        let by_segments = self.made.direct.as_ref().filter(|_| may_move);
        let look = by_segments.and_then(|direct| Look::before(root, direct.segments()));
        let took = self.load_once().map_err(|error| Error::Refused { error })?;
        let Some(look) = look.filter(|look| look.may_be_in_its_own_way(root)) else { return Ok(took) };
        let unload = || test_load::unload(root, LOADS_LATER + u64::from(unloads));
        let avoided = match look.blocks(root, unload) {
            Ok(avoided) => avoided,
            // Unloading failed, but the image is meant to stay loaded.
            Err(_) if !unloads => return Ok(took),
            Err(error) => return Err(Error::StaysLoaded { error }),
        };
        // If there is no other place, the image stays where it is and loads more slowly.
        let contents = &self.order.contents;
        if !avoided.is_empty() && self.made.move_away(self.place, contents, &avoided).is_ok() {
            let direct = self.made.direct.as_ref();
            let direct = direct.map(|beside| plan::direct(self.place.directory, beside, self.names));
            self.plan.direct = direct.transpose()?;
            self.place.directory.propose(&self.plan)?;
        }
        self.load_once().map_err(|error| Error::RefusedAgain { error })
    }

    /// Loads the image, and returns how long that took.
    fn load_once(&self) -> Result<Duration, test_load::Error> {
        let (root, plan, made) = (self.place.root, &self.plan, &self.made);
        let later = LOADS_LATER + u64::from(self.loads.unloads);
        let line = if plan.preload.stays_loaded() {
            test_load::preloaded(plan.cmdline, plan.handoff)
        } else {
            test_load::longest(plan.cmdline)
        };
        let (kernel, initrd) = (&made.kernel, made.initrd.as_ref());
        match (&plan.direct, &made.direct) {
            (Some(direct), Some(Beside { parameters, .. })) => {
                let files = Files { kernel: &kernel.copy, initrd, parameters };
                test_load::load_segments(root, files, direct, &line, later)
            }
            _ => test_load::load(root, kernel.judged(), initrd, &line, later),
        }
    }
}

/// Loads, and unloads again unless the image is to stay. Returns how long the load took.
fn loaded(
    load: Option<impl FnOnce() -> Result<Duration, Error>>,
    unload: Option<impl FnOnce() -> Result<(), test_load::Error>>,
) -> Result<Option<Duration>, Error> {
    let loaded = load.map(|load| load()).transpose()?;
    unload.map_or(Ok(()), |unload| unload()).map_err(|error| match loaded {
        Some(_) => Error::StaysLoaded { error },
        None => Error::Refused { error },
    })?;
    Ok(loaded)
}

/// Makes the proposed plan the active one.
fn commit(
    root: &Root,
    directory: &Directory,
    set: NewSet,
    plan: &Plan<'_>,
    leftovers: Leftovers,
) -> Result<(), Error> {
    directory.commit(plan.handoff, set).map_err(|error| {
        // If nothing is loaded, the previous plan's image is loaded at the end of shutdown, provided that it
        // has copies.
        let is_known = !plan.preload.stays_loaded() || test_load::unload(root, 0).is_ok();
        if is_known && !leftovers.interrupted {
            directory.withdraw();
        }
        Error::Directory(error)
    })?;
    if plan.preload == Preload::Only {
        directory.drop_copies(plan);
    }
    Ok(())
}

/// Writes the history's line about the stage. Returns a note if that fails.
fn recorded(root: &Root, plan: &Plan<'_>, took: Option<Duration>) -> Option<String> {
    let loader = Syscall::of(plan).to_string();
    let error = report::history::staged(root, plan.handoff, plan.entry, &loader, took).err()?;
    Some(format!(
        "`nextkernel report` will not know how long the load took: its history cannot be written: {}",
        InWords(&error)
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::header;
    use crate::machine::hypervisor::Hypervisor;
    use crate::machine::scratch::Scratch;
    use crate::request::stage::{LineFrom, Target};
    use nix::sys::signal::{self, Signal};

    const BOTH: Option<Calls> = Some(Calls { file: true, segments: true, loads_into_cma: false });

    fn files(kernel: &str) -> Target {
        Target::Files { kernel: kernel.into(), initrds: Vec::new() }
    }

    /// A machine on which a kernel of 1024 bytes, which unpacks to 32 MiB, can be staged without a test load.
    fn machine() -> (Scratch, StageRequest) {
        let scratch = Scratch::new();
        let kernel = header::tests::image(&[(0x202, b"HdrS"), (0x260, &(32_u32 << 20).to_le_bytes())]);
        std::fs::write(scratch.root.path("/vmlinuz"), kernel).unwrap();
        scratch.put("/dev/urandom", "12345678");
        let request = StageRequest {
            target: files("/vmlinuz"),
            line: LineFrom::Given("root=x".to_owned()),
            skips_test_load: true,
            ..StageRequest::default()
        };
        (scratch, request)
    }

    #[test]
    fn from_where_no_jump_is_possible_nothing_is_staged() {
        let scratch = Scratch::new();
        scratch.put("/sys/hypervisor/type", "xen\n");
        scratch.put("/sys/hypervisor/guest_type", "PV\n");
        assert!(matches!(
            stage(&scratch.root, &StageRequest::default(), BOTH),
            Err(Error::Order(order::Error::NoJump(Hypervisor::XenPv)))
        ));
    }

    #[test]
    fn a_file_that_is_not_there_is_said_to_be_so_before_it_is_asked_for_a_command_line() {
        let (scratch, request) = machine();
        let without =
            |kernel: &str| StageRequest { target: files(kernel), line: LineFrom::Entry, ..request.clone() };
        let refused = |kernel| stage(&scratch.root, &without(kernel), BOTH).unwrap_err().to_string();
        assert!(refused("/missing").starts_with("the kernel /missing cannot be read: "));
        assert!(refused("/vmlinuz").starts_with("/vmlinuz says nothing about its command line"));
    }

    #[test]
    fn the_memory_that_a_load_takes_holds_what_the_kernel_is_unpacked_to() {
        let (scratch, late) = machine();
        let request = StageRequest { skips_test_load: false, ..late };
        scratch.put("/proc/meminfo", "MemAvailable: 32769 kB\n");
        let Err(Error::Room(room::Error::NoMemory { need, .. })) = stage(&scratch.root, &request, BOTH)
        else {
            unreachable!()
        };
        // The copy, the file as the kernel reads it, and the segment.
        assert_eq!(need, 1024 + 1024 + (32 << 20));
        let late = StageRequest { skips_test_load: true, ..request };
        assert!(stage(&scratch.root, &late, BOTH).is_ok());
    }

    #[test]
    fn the_handoff_that_is_returned_is_the_one_in_the_plan() {
        let (scratch, request) = machine();
        let Staged { handoff, .. } = stage(&scratch.root, &request, BOTH).unwrap();
        let text = Directory::plan_text(&scratch.root).unwrap().unwrap();
        assert_eq!(Plan::parse(&text).unwrap().handoff, handoff);
    }

    #[test]
    fn the_mark_of_an_interrupted_stage_outlives_one_that_fails_while_anything_is_loaded() {
        let (scratch, request) = machine();
        let mark = scratch.root.path("/run/nextkernel/plan.new");
        for (loaded, stays) in [("1\n", true), ("0\n", false)] {
            scratch.put("/run/nextkernel/plan.new", "");
            scratch.put("/sys/kernel/kexec_loaded", loaded);
            scratch.put("/proc/meminfo", "MemAvailable: 0 kB\n");
            assert!(matches!(
                stage(&scratch.root, &request, BOTH),
                Err(Error::Room(room::Error::NoMemory { .. }))
            ));
            assert_eq!(mark.exists(), stays, "{loaded}");
        }
    }

    #[test]
    fn an_image_that_stays_loaded_is_told_from_one_that_was_never_taken() {
        let refusal = || test_load::tests::refusal("unload");
        let (take, refuse) = (|| Ok(Duration::ZERO), || Err(Error::Refused { error: refusal() }));
        let (unload, keep) = (|| Ok(()), || Err(refusal()));
        let none = None::<fn() -> Result<Duration, Error>>;
        let stays = loaded(Some(take), Some(keep)).unwrap_err().to_string();
        assert!(stays.ends_with("`nextkernel unstage` unloads it"), "{stays}");
        for refused in [loaded(Some(refuse), Some(unload)), loaded(none, Some(keep))] {
            assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        }
        assert!(loaded(Some(take), Some(unload)).is_ok_and(|took| took.is_some()));
        assert!(loaded(none, None::<fn() -> _>).is_ok_and(|took| took.is_none()));
    }

    #[test]
    fn who_interrupts_is_heard_between_two_steps_and_nothing_half_copied_is_left() {
        let (scratch, request) = machine();
        let outer = Deferred::begin(&scratch.root);
        assert!(outer.check().is_ok());
        signal::raise(Signal::SIGTERM).unwrap();
        let ended = stage(&scratch.root, &request, BOTH).unwrap_err().to_string();
        assert!(ended.starts_with("SIGTERM came while"), "{ended}");
        let left = std::fs::read_dir(scratch.root.path("/run/nextkernel")).unwrap().count();
        assert_eq!(left, 1, "the lock alone");
        assert!(outer.check().is_ok());
        scratch.put("/proc/self/status", "SigIgn:\t0000000000004000\n");
        signal::raise(Signal::SIGTERM).unwrap();
        assert!(stage(&scratch.root, &request, BOTH).is_ok(), "it is ignored here");
        assert!(outer.check().is_err());
    }
}
