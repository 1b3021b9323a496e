//! The exitrd: the root that systemd switches to after unmounting everything else, so that the real root itself
//! can be closed. Ours contains only the hook. An initramfs generator that makes its own exitrd adds the hook
//! to it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use clap::Args;
use nextkernel_hook::scene::exitrd::MOUNTED_AS;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use thiserror::Error;

use crate::machine::exitrd::{DIRECTORY, Found, SHUTDOWN, Whose, is_program};
use crate::machine::layers::{Layer, Unclosable};
use crate::machine::root::{HOOK, Root};
use crate::machine::superuser::{NotRoot, see_that_this_is_root};
use crate::words::errno::InWords;
use crate::words::say;

/// The mount options of the exitrd. The size is enough for the hook, and a second one while that is replaced.
const SIZE: &str = "mode=0755,size=2m";

/// The directories in the exitrd. systemd needs them, and would create those that are missing
/// (`base_filesystem_create`, src/shared/base-filesystem.c).
const DIRECTORIES: [&str; 9] = ["proc", "sys", "dev", "run", "oldroot", "usr", "var", "etc", "root"];

/// Keep an exitrd ready that is the hook alone, so that the root is closed before the next kernel starts
///
/// With systemd. At the end of a shutdown systemd changes into it; the hook then unmounts the root, takes the
/// encrypted volumes, LVM and arrays below it apart, and carries out what was asked for. It lies in memory, and is
/// gone after a boot: `systemctl enable --now nextkernel-exitrd` keeps it ready. Where an initramfs generator makes
/// an exitrd, that one carries the hook instead.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Take it away again, if it is ours
    #[arg(long)]
    remove: bool,
}

/// A reason why there is no exitrd.
#[derive(Debug, Error)]
pub enum Error {
    /// The caller is not root.
    #[error(transparent)]
    NotRoot(#[from] NotRoot),
    /// The init is not systemd.
    #[error("PID 1 is not systemd, and no other init changes into an exitrd; nothing was done")]
    OtherInit,
    /// The hook is missing.
    #[error(
        "{HOOK} is missing, empty or not executable, and it is what the exitrd is made of; install it again"
    )]
    NoHook,
    /// The hook alone cannot close the root.
    #[error(
        "/ lies on {}, which the hook alone cannot close; use the exitrd of your initramfs generator with our module \
         in it (initramfs/), or none: the root is then synced and read-only at the jump",
        .0.in_words()
    )]
    Unclosable(Unclosable),
    /// Another program has made an exitrd.
    #[error("{DIRECTORY} is {0}")]
    Theirs(Whose),
    /// There is no exitrd of ours to remove.
    #[error("there is no exitrd of nextkernel's at {DIRECTORY}: nothing was done")]
    NotOurs,
    /// A call failed.
    #[error("{what}: {}", InWords(.error))]
    Call {
        /// The attempted act, or the file.
        what: String,
        /// The answer of the kernel.
        error: io::Error,
    },
}

/// Makes, updates or removes the exitrd, and prints the result.
pub fn run(root: &Root, arguments: &Arguments) -> Result<(), Error> {
    see_that_this_is_root(DIRECTORY)?;
    let directory = root.path(DIRECTORY);
    let call = |what: &str, done: nix::Result<()>| {
        done.map_err(|errno| Error::Call { what: what.to_owned(), error: errno.into() })
    };
    if arguments.remove {
        if !matches!(Found::look(root), Found::Ours { .. }) {
            return Err(Error::NotOurs);
        }
        call("our exitrd cannot be unmounted", umount2(&directory, MntFlags::empty()))?;
        say::say(format_args!("there is no exitrd of nextkernel's at {DIRECTORY} any more"));
        return Ok(());
    }
    match needed(root)? {
        Needed::Nothing => say::say(format_args!("the exitrd at {DIRECTORY} is ready: nothing to do")),
        Needed::Hook => {
            put_hook(root)?;
            say::say(format_args!("the exitrd at {DIRECTORY} has the hook that is installed now"));
        }
        Needed::All => {
            at(&directory, DirBuilder::new().recursive(true).mode(0o755).create(&directory))?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let mounted = mount(Some(MOUNTED_AS), &directory, Some("tmpfs"), flags, Some(SIZE));
            call(&format!("a tmpfs cannot be mounted on {DIRECTORY}"), mounted)?;
            // An incomplete exitrd must not be used.
            fill(root).inspect_err(|_| {
                let _ = umount2(&directory, MntFlags::empty());
            })?;
            say::say(format_args!(
                "the exitrd at {DIRECTORY} is ready: at a shutdown the hook closes the root"
            ));
        }
    }
    Ok(())
}

/// The missing parts of the exitrd.
#[derive(Debug, PartialEq, Eq)]
enum Needed {
    Nothing,
    Hook,
    All,
}

/// Returns the missing parts, or the reason why there can be no exitrd.
fn needed(root: &Root) -> Result<Needed, Error> {
    if !root.runs_systemd() {
        return Err(Error::OtherInit);
    }
    if !is_program(&root.path(HOOK)) {
        return Err(Error::NoHook);
    }
    if let Some(what) = Layer::unclosable(root) {
        return Err(Error::Unclosable(what));
    }
    match Found::look(root) {
        Found::Ours { is_current: true } => Ok(Needed::Nothing),
        Found::Ours { is_current: false } => Ok(Needed::Hook),
        Found::Nothing => Ok(Needed::All),
        Found::Theirs(whose) => Err(Error::Theirs(whose)),
    }
}

/// Fills a new exitrd.
fn fill(root: &Root) -> Result<(), Error> {
    for name in DIRECTORIES {
        let path = root.path(DIRECTORY).join(name);
        at(&path, DirBuilder::new().mode(0o755).create(&path))?;
    }
    put_hook(root)
}

/// Puts the hook into the exitrd. Writes it under another name first, so that systemd finds only a whole one.
fn put_hook(root: &Root) -> Result<(), Error> {
    let (hook, new, path) = (root.path(HOOK), root.path(DIRECTORY).join("shutdown.new"), root.path(SHUTDOWN));
    at(&new, fs::copy(hook, &new))?;
    at(&new, fs::set_permissions(&new, Permissions::from_mode(0o755)))?;
    at(&path, fs::rename(&new, &path))
}

fn at<T>(path: &Path, done: io::Result<T>) -> Result<T, Error> {
    done.map_err(|error| Error::Call { what: path.display().to_string(), error })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::exitrd::{NIXOS_UNIT, Runs, in_words};
    use crate::machine::scratch::Scratch;
    use nextkernel_hook::scene::exitrd::HOOKS;

    const PLAIN: &str = "22 1 8:1 / / ro - ext4 /dev/sda1 ro\n23 22 0:20 / /run rw,noexec - tmpfs tmpfs rw\n";
    const WITH_OURS: &str =
        "30 23 0:40 / /run/initramfs rw,nosuid,nodev shared:9 - tmpfs nextkernel rw,size=2048k\n";

    fn executable(scratch: &Scratch, path: &str, text: &str) {
        scratch.put(path, text);
        fs::set_permissions(scratch.root.path(path), Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns a machine that could have an exitrd.
    fn machine() -> Scratch {
        let scratch = Scratch::new();
        executable(&scratch, HOOK, "the hook");
        scratch.directory("/run/systemd/system");
        scratch.put("/proc/self/mountinfo", PLAIN);
        scratch
    }

    fn refused(scratch: &Scratch) -> String {
        needed(&scratch.root).unwrap_err().to_string()
    }

    #[test]
    fn ours_is_made_where_nothing_is_and_is_renewed_when_the_hook_is() {
        let scratch = machine();
        assert_eq!(needed(&scratch.root).unwrap(), Needed::All);
        scratch.put("/proc/self/mountinfo", &format!("{PLAIN}{WITH_OURS}"));
        scratch.directory(DIRECTORY);
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Hook);
        fill(&scratch.root).unwrap();
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Nothing);
        let mut names: Vec<_> =
            fs::read_dir(scratch.root.path(DIRECTORY)).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["dev", "etc", "oldroot", "proc", "root", "run", "shutdown", "sys", "usr", "var"]);
        executable(&scratch, HOOK, "a newer hook");
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Hook);
        put_hook(&scratch.root).unwrap();
        assert_eq!(fs::read(scratch.root.path(SHUTDOWN)).unwrap(), b"a newer hook");
        assert_eq!(scratch.root.path(SHUTDOWN).metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Nothing);
    }

    #[test]
    fn what_an_initramfs_leaves_behind_is_mounted_over() {
        let scratch = machine();
        for name in ["fsck.log", "fsck-root", "initramfs.debug", "log/x", "init.log"] {
            scratch.put(&format!("{DIRECTORY}/{name}"), "");
        }
        assert_eq!(needed(&scratch.root).unwrap(), Needed::All);
    }

    #[test]
    fn somebody_elses_exitrd_is_left_alone_and_its_maker_named() {
        for (path, named) in [
            (".need_shutdown", "dracut's: put the hook into its exitrd with our dracut module"),
            ("usr/lib/dracut/hooks", "dracut's"),
            ("mkinitcpio-shutdown.conf", "mkinitcpio's"),
            ("shutdown", "somebody else's: /run/initramfs/shutdown lies there"),
            ("live/squashfs", "somebody else's: /run/initramfs/live lies there"),
        ] {
            let scratch = machine();
            scratch.put(&format!("{DIRECTORY}/{path}"), "");
            assert!(refused(&scratch).contains(named), "{path}: {}", refused(&scratch));
        }
        let scratch = machine();
        scratch.put("/etc/NIXOS", "");
        let nixos = WITH_OURS.replace("nextkernel", "tmpfs");
        scratch.put("/proc/self/mountinfo", &format!("{PLAIN}{nixos}"));
        assert!(refused(&scratch).contains("NixOS's"));
    }

    #[test]
    fn nixos_exitrd_is_known_by_its_unit_before_anything_is_mounted() {
        let scratch = machine();
        scratch.put(NIXOS_UNIT, "");
        assert_eq!(Found::look(&scratch.root), Found::Nothing);
        scratch.put("/etc/NIXOS", "");
        assert_eq!(Found::look(&scratch.root), Found::Theirs(Whose::Nixos));
        fs::remove_file(scratch.root.path(NIXOS_UNIT)).unwrap();
        assert_eq!(Found::look(&scratch.root), Found::Nothing);
    }

    #[test]
    fn where_it_would_not_be_run_or_could_not_close_the_root_it_is_refused_with_the_reason() {
        let scratch = machine();
        let root_on =
            |kind: &str| scratch.put("/proc/self/mountinfo", &PLAIN.replace("ext4 /dev/sda1", kind));
        root_on("zfs rpool/ROOT");
        assert!(refused(&scratch).starts_with("/ lies on a ZFS pool"), "{}", refused(&scratch));
        root_on("nfs4 server:/x");
        assert!(refused(&scratch).contains("through NFS4"), "{}", refused(&scratch));
        scratch.put("/proc/self/mountinfo", PLAIN);
        fs::set_permissions(scratch.root.path(HOOK), Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&scratch).contains("not executable"));
        fs::remove_dir_all(scratch.root.path("/run/systemd")).unwrap();
        assert!(refused(&scratch).contains("not systemd"));
    }

    #[test]
    fn whether_systemd_would_change_into_it_is_seen() {
        let scratch = machine();
        assert_eq!(Runs::look(&scratch.root), Runs::Missing);
        scratch.put(SHUTDOWN, "");
        assert_eq!(Runs::look(&scratch.root), Runs::Noexec("/run".to_owned()));
        scratch.put("/proc/self/mountinfo", &PLAIN.replace("rw,noexec", "rw"));
        assert_eq!(Runs::look(&scratch.root), Runs::NotExecutable);
        executable(&scratch, SHUTDOWN, "x");
        assert_eq!(Runs::look(&scratch.root), Runs::Yes { carries: false });
        for path in HOOKS.map(in_words) {
            executable(&scratch, path, "the hook");
            assert_eq!(Runs::look(&scratch.root), Runs::Yes { carries: true }, "{path}");
            fs::remove_file(scratch.root.path(path)).unwrap();
        }
        scratch.put("/proc/self/mountinfo", &format!("{PLAIN}{WITH_OURS}"));
        assert_eq!(Runs::look(&scratch.root), Runs::Yes { carries: true });
    }
}
