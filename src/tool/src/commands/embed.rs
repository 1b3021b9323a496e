//! The embed command: a next kernel inside an initramfs. This is for boards and kiosks whose first kernel only
//! starts another one, or must not depend on anything that has to be mounted.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use nextkernel_plan::{Image, Malformed, On, Plan, limits};
use thiserror::Error;

use crate::entries;
use crate::entries::entry;
use crate::image::cmdline::{self, Line};
use crate::machine::root::Root;
use crate::request::choices::SyscallChoice;
use crate::staging::copy;
use crate::staging::directory::{self, NewSet};
use crate::staging::extra::{self, Extra};
use crate::staging::plan::{self, NoRandom};
use crate::staging::source::{self, Source};
use crate::words::errno::InWords;
use crate::words::say;

/// Write a plan and its images into FOLDER, for an initramfs that has nextkernel-hook as its /init
///
/// FOLDER becomes /nextkernel of that initramfs. Its kernel starts the hook as PID 1, and the hook starts what is
/// embedded, at once. Nothing is loaded now, and nothing of this machine is looked at: neither /etc/nextkernel.conf
/// nor its GPUs. On a machine where something is staged, too, that comes first.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// A folder that does not exist yet
    #[arg(id = "folder", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// The kernel, as a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: PathBuf,
    /// An initrd, as a file; several are joined in the order given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 1..)]
    initrd: Vec<PathBuf>,
    /// Add a file or a folder to the initrd, as `nextkernel stage` does
    #[arg(long, value_name = "PATH[:NAME]", value_hint = ValueHint::AnyPath)]
    extra: Vec<OsString>,
    /// The embedded kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    cmdline: String,
    /// Of `nextkernel stage`, and refused here with the reason
    #[arg(long, hide = true)]
    loader: Option<SyscallChoice>,
    #[arg(long, hide = true)]
    thaw: bool,
}

/// A reason why nothing was written.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory cannot be made or used.
    #[error("{}: {}; name a folder that does not exist yet, in one that does", .path.display(), InWords(.error))]
    Directory {
        /// The directory, or a file in it.
        path: PathBuf,
        /// The answer of the kernel.
        error: io::Error,
    },
    /// The kernel or an initrd cannot be found.
    #[error(transparent)]
    Entry(#[from] entry::Error),
    /// The command line is invalid.
    #[error(transparent)]
    CommandLine(#[from] cmdline::Error),
    /// An image cannot be copied.
    #[error(transparent)]
    Image(#[from] source::Error),
    /// No id could be generated.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// A file of `--extra` cannot be added.
    #[error(transparent)]
    Extra(#[from] extra::Error),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] directory::Error),
    /// The memory of the machine that will run the embedded kernel is unknown.
    #[error(
        "--loader direct is refused: what lies where in memory is worked out on the machine that runs, and an embedded \
         kernel starts on another, or in another boot; there the kernel's own kexec_file_load is needed"
    )]
    Direct,
    /// A decompressed kernel would start at the same address at every boot.
    #[error(
        "--thaw is refused: a thawed kernel lies at a random address, and what is embedded would have the same one at \
         every boot; leave it out"
    )]
    Thaw,
    /// The plan would be malformed.
    #[error("the plan would be malformed: {0}; a shorter path of the kernel is needed")]
    Unwritable(Malformed),
}

/// Writes the plan and its images, and prints the next step.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    if arguments.loader == Some(SyscallChoice::Direct) {
        return Err(Error::Direct);
    }
    if arguments.thaw {
        return Err(Error::Thaw);
    }
    let entry = entries::explicit(root, &arguments.kernel, &arguments.initrd)?;
    let line = Line::new(&arguments.cmdline)?;
    let (kernel, initrds) = Source::of(root, &entry.kernel, &entry.initrds)?;
    let extra = Extra::find(root, &arguments.extra)?;
    copy::initrd_size(&initrds, &extra)?;
    let handoff = plan::new_id(root)?;

    let set = NewSet::at(&arguments.directory)
        .map_err(|error| Error::Directory { path: arguments.directory.clone(), error })?;
    let staged = copy::kernel(&set, &kernel, u64::MAX)?;
    staged.see_that_it_is_whole(&kernel, true)?;
    let initrd = copy::initrd(root, &set, &initrds, &extra)?;
    initrd.iter().try_for_each(copy::Joined::see_that_it_is_whole)?;
    let io = |error| Error::Directory { path: arguments.directory.clone(), error };
    // The files of an initramfs have a new inode and change time at every boot.
    let image = |name, size| Image { name, size, stamp: None };
    let kernel_size = staged.copy.metadata().map_err(io)?.len();
    let initrd_size = initrd.map(|joined| joined.copy.metadata()).transpose().map_err(io)?;
    let plan = Plan {
        staged_at: plan::now(),
        // Unless the kernel's command line names a verb, the hook as PID 1 reboots, and that is what this plan
        // is for.
        on: On::KexecAndReboot,
        initrd: initrd_size.map(|found| image("initrd", found.len())),
        ..Plan::bare(handoff, name(&arguments.kernel), image("kernel", kernel_size), line.as_str())
    };
    let text = plan.to_string();
    Plan::parse(text.as_bytes()).map_err(Error::Unwritable)?;
    let (path, mut file) = set.create("plan")?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| Error::Directory { path, error })?;
    set.keep();
    say::say(format_args!(
        "{} is embedded in {}: make that /nextkernel of an initramfs whose /init is nextkernel-hook",
        name(&arguments.kernel),
        arguments.directory.display()
    ));
    Ok(())
}

/// Returns the name of the kernel in the plan: the path as given, or its end if it is too long.
fn name(kernel: &std::path::Path) -> &str {
    let path = kernel.to_str().unwrap_or("kernel");
    let fits = |at: &usize| path.len() - at <= limits::ENTRY_MAX && path.is_char_boundary(*at);
    (0..path.len()).find(fits).and_then(|at| path.get(at..)).unwrap_or("kernel")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    fn arguments(scratch: &Scratch) -> Arguments {
        Arguments {
            directory: scratch.root.path("/board"),
            kernel: "/vmlinuz".into(),
            initrd: vec!["/one".into(), "/two".into()],
            extra: Vec::new(),
            cmdline: "console=ttyS0".to_owned(),
            ..Arguments::default()
        }
    }

    fn machine() -> Scratch {
        let scratch = Scratch::new();
        scratch.put("/vmlinuz", "a kernel, which the next kernel will be the judge of");
        for name in ["/one", "/two"] {
            std::fs::write(scratch.root.path(name), crate::image::archive::tests::entry("a", b"b", None))
                .unwrap();
        }
        std::os::unix::fs::symlink("/dev/urandom", scratch.root.path("/dev/urandom")).unwrap_or_else(|_| {
            scratch.put("/dev/urandom", "12345678");
        });
        scratch
    }

    #[test]
    fn what_is_embedded_is_known_by_its_size_alone_and_covers_a_restart() {
        let scratch = machine();
        run(&scratch.root, &arguments(&scratch)).unwrap();
        let text = std::fs::read(scratch.root.path("/board/plan")).unwrap();
        let plan = Plan::parse(&text).unwrap();
        assert_eq!(plan.kernel.stamp, None);
        assert_eq!(plan.initrd.map(|initrd| (initrd.name, initrd.size)), Some(("initrd", 236)));
        assert!(plan.on.covers(nextkernel_plan::Verb::Reboot) && plan.entry == "/vmlinuz");
        assert_eq!(std::fs::read(scratch.root.path("/board/initrd")).unwrap().len(), 236);
    }

    #[test]
    fn what_is_there_is_never_written_over_and_what_failed_leaves_nothing() {
        let scratch = machine();
        scratch.directory("/board");
        let refused = run(&scratch.root, &arguments(&scratch)).unwrap_err().to_string();
        assert!(refused.contains("/board: ") && refused.contains("does not exist yet"), "{refused}");
        std::fs::remove_dir(scratch.root.path("/board")).unwrap();
        let long = Arguments { cmdline: "x".repeat(5000), ..arguments(&scratch) };
        assert!(run(&scratch.root, &long).is_err());
        std::fs::remove_file(scratch.root.path("/two")).unwrap();
        assert!(run(&scratch.root, &arguments(&scratch)).is_err());
        assert!(!scratch.root.path("/board").exists());
    }

    #[test]
    fn what_only_the_machine_that_runs_can_work_out_is_not_embedded() {
        let scratch = machine();
        let direct = Arguments { loader: Some(SyscallChoice::Direct), ..arguments(&scratch) };
        assert!(matches!(run(&scratch.root, &direct), Err(Error::Direct)));
        assert!(matches!(
            run(&scratch.root, &Arguments { thaw: true, ..arguments(&scratch) }),
            Err(Error::Thaw)
        ));
        assert!(!scratch.root.path("/board").exists());
        let verified = Arguments { loader: Some(SyscallChoice::Verified), ..arguments(&scratch) };
        assert!(run(&scratch.root, &verified).is_ok());
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        let long = format!("/{}/é/vmlinuz", "x".repeat(300));
        assert!(name(long.as_ref()).ends_with("/é/vmlinuz"));
        assert!(name(long.as_ref()).len() <= limits::ENTRY_MAX);
        assert_eq!(name("/boot/vmlinuz".as_ref()), "/boot/vmlinuz");
    }
}
