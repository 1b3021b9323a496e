//! The exitrd: what systemd changes into once all that can be unmounted is, so that the root itself can be closed.
//! Ours is the hook and nothing else; who makes another one carries the hook in it.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use clap::Args;
use nextkernel_hook::scene::exitrd::{HOOKS, MOUNTED_AS};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use thiserror::Error;

use crate::machine::layers::{Layer, Unclosable};
use crate::machine::mounts::Mount;
use crate::machine::root::{HOOK, Root};
use crate::words::errno::InWords;
use crate::words::say;

/// The folder that systemd changes into (systemd-shutdown(8), bootup(7)). systemd leaves alone what is mounted there:
/// it is neither a unit that ends (`fstab_is_extrinsic`, src/shared/fstab-util.c) nor unmounted at the end
/// (`nonunmountable_path`, src/shutdown/umount.c).
pub const FOLDER: &str = "/run/initramfs";

/// What it executes there.
pub const SHUTDOWN: &str = "/run/initramfs/shutdown";

/// What it may grow to: the hook, and a second one while that is replaced.
const SIZE: &str = "mode=0755,size=2m";

/// Where it is changed into, and what systemd makes where it is missing (`base_filesystem_create`,
/// src/shared/base-filesystem.c).
const FOLDERS: [&str; 9] = ["proc", "sys", "dev", "run", "oldroot", "usr", "var", "etc", "root"];

/// What an initramfs leaves there that is nobody's exitrd, each a name or the beginning of one: logs and stamps of
/// initramfs-tools' and dracut's.
const LEFT_OVER: [&str; 6] = ["fsck", "initramfs.debug", "init.log", "log", "state", "rdsosreport.txt"];

/// What fills it on `NixOS`, where nothing is mounted before (nixos/modules/system/boot/systemd/shutdown.nix).
const NIXOS_UNIT: &str = "/etc/systemd/system/generate-shutdown-ramfs.service";

/// Keep an exitrd ready that is the hook alone, so that the root is closed before the next kernel starts
///
/// With systemd. At the end of a shutdown systemd changes into it; the hook then unmounts the root, takes the
/// encrypted volumes, LVM and arrays below it apart, and carries out what was asked for. It lies in memory, and is
/// gone after a boot: `systemctl enable --now nextkernel-exitrd` keeps it ready. Where an initramfs generator makes
/// an exitrd, that one carries the hook instead.
#[derive(Args, Debug, Default)]
pub struct Wish {
    /// Take it away again, if it is ours
    #[arg(long)]
    remove: bool,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum Error {
    /// Not root.
    #[error("{FOLDER} belongs to root; run this with sudo")]
    NotRoot,
    /// Another init.
    #[error("PID 1 is not systemd, and no other init changes into an exitrd; nothing was done")]
    OtherInit,
    /// There is nothing to put in.
    #[error(
        "{HOOK} is missing, empty or not executable, and it is what the exitrd is made of; install it again"
    )]
    NoHook,
    /// It would not be able to.
    #[error(
        "/ lies on {}, which the hook alone cannot close; use the exitrd of your initramfs generator with our module \
         in it (initramfs/), or none: the root is then synced and read-only at the jump",
        .0.in_words()
    )]
    Unclosable(Unclosable),
    /// Somebody else's.
    #[error("{FOLDER} is {0}")]
    Theirs(Whose),
    /// Nothing to remove.
    #[error("there is no exitrd of nextkernel's at {FOLDER}: nothing was done")]
    NotOurs,
    /// A call.
    #[error("{what}: {}", InWords(.error))]
    Call {
        /// What was tried.
        what: String,
        /// What the kernel answered.
        error: io::Error,
    },
}

/// Who makes an exitrd there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// dracut, at each shutdown.
    Dracut,
    /// mkinitcpio, at each shutdown.
    Mkinitcpio,
    /// NixOS, at each shutdown.
    Nixos,
    /// Nobody knows; a name that lies there.
    Unknown(String),
}

impl std::fmt::Display for Whose {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whose::Dracut => out.write_str(
                "dracut's: put the hook into its exitrd with our dracut module (initramfs/dracut), or, for ours \
                 instead, remove what lies there",
            ),
            Whose::Mkinitcpio => out.write_str(
                "mkinitcpio's: put the hook into its exitrd with our install hook (initramfs/mkinitcpio), or, for \
                 ours instead, mask mkinitcpio-generate-shutdown-ramfs.service and remove what lies there",
            ),
            Whose::Nixos => out.write_str(
                "NixOS's: put the hook into its exitrd with our module (initramfs/nixos), or, for ours instead, set \
                 systemd.shutdownRamfs.enable = false",
            ),
            Whose::Unknown(name) => write!(
                out,
                "somebody else's: {name} lies there, and is not known here; put the hook into that exitrd, or, for \
                 ours instead, remove it"
            ),
        }
    }
}

/// What is at /run/initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that would be an exitrd, then or later.
    Nothing,
    /// Ours; and whether the hook in it is the one that is installed.
    Ours {
        /// It is.
        is_current: bool,
    },
    /// Somebody else's.
    Theirs(Whose),
}

impl Found {
    /// Looks.
    #[must_use]
    pub fn look(root: &Root) -> Found {
        let mounts = Mount::all(root);
        let mounted = Mount::at(&mounts, Path::new(FOLDER));
        if mounted.is_some_and(is_ours) {
            return Found::Ours { is_current: is_current(root) };
        }
        let is_nixos = root.path("/etc/NIXOS").exists();
        if is_nixos && (mounted.is_some() || root.path(NIXOS_UNIT).exists()) {
            return Found::Theirs(Whose::Nixos);
        }
        let below =
            mounts.iter().find(|mount| mount.point.starts_with(FOLDER) && mount.point != Path::new(FOLDER));
        let there = |name: &str| root.path(FOLDER).join(name).exists();
        if there("mkinitcpio-shutdown.conf") {
            return Found::Theirs(Whose::Mkinitcpio);
        }
        if there(".need_shutdown") || (there("bin/sh") && there("lib/dracut")) || there("usr/lib/dracut") {
            return Found::Theirs(Whose::Dracut);
        }
        let names = fs::read_dir(root.path(FOLDER)).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut strange: Vec<_> =
            names.filter(|name| !LEFT_OVER.iter().any(|known| name.starts_with(known))).collect();
        strange.sort();
        let strange = strange.into_iter().map(|name| format!("{FOLDER}/{name}")).next();
        let strange = strange.or_else(|| below.map(|mount| mount.point.display().to_string()));
        strange.map_or(Found::Nothing, |name| Found::Theirs(Whose::Unknown(name)))
    }
}

/// Whether an exitrd will be changed into as things stand, and what with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// It is not there, or not yet.
    Missing,
    /// systemd passes it over in silence, for it lies on this mount, which is noexec.
    Noexec(String),
    /// systemd passes it over in silence, for nobody may execute it.
    NotExecutable,
    /// It is; and whether it carries the hook.
    Yes {
        /// It does.
        carries: bool,
    },
}

impl Runs {
    /// Looks.
    #[must_use]
    pub fn look(root: &Root) -> Runs {
        let Ok(found) = root.path(SHUTDOWN).metadata() else { return Runs::Missing };
        let mounts = Mount::all(root);
        let mount = Mount::over(&mounts, Path::new(SHUTDOWN));
        if let Some(mount) = mount.filter(|mount| mount.is_noexec()) {
            return Runs::Noexec(mount.point.display().to_string());
        }
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Runs::NotExecutable;
        }
        let ours = Mount::at(&mounts, Path::new(FOLDER)).is_some_and(is_ours);
        Runs::Yes { carries: ours || HOOKS.iter().any(|path| is_program(&root.path(in_words(path)))) }
    }
}

/// A path of the hook's.
fn in_words(path: &CStr) -> &str {
    path.to_str().unwrap_or_default()
}

fn is_ours(mount: &Mount) -> bool {
    mount.kind == "tmpfs" && mount.source == Path::new(MOUNTED_AS)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.len() > 0 && it.permissions().mode() & 0o111 != 0)
}

fn is_current(root: &Root) -> bool {
    let whole = |path| fs::read(root.path(path)).ok();
    let ours = root.path(SHUTDOWN);
    is_program(&ours) && whole(SHUTDOWN).is_some_and(|ours| whole(HOOK) == Some(ours))
}

/// Keeps it ready, or takes it away, and says so.
pub fn run(root: &Root, wish: &Wish) -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let folder = root.path(FOLDER);
    let call = |what: &str, done: nix::Result<()>| {
        done.map_err(|errno| Error::Call { what: what.to_owned(), error: errno.into() })
    };
    if wish.remove {
        if !matches!(Found::look(root), Found::Ours { .. }) {
            return Err(Error::NotOurs);
        }
        call("our exitrd cannot be unmounted", umount2(&folder, MntFlags::empty()))?;
        say::say(format_args!("there is no exitrd of nextkernel's at {FOLDER} any more"));
        return Ok(());
    }
    match needed(root)? {
        Needed::Nothing => say::say(format_args!("the exitrd at {FOLDER} is ready: nothing to do")),
        Needed::Hook => {
            put_hook(root)?;
            say::say(format_args!("the exitrd at {FOLDER} has the hook that is installed now"));
        }
        Needed::All => {
            at(&folder, DirBuilder::new().recursive(true).mode(0o755).create(&folder))?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            let mounted = mount(Some(MOUNTED_AS), &folder, Some("tmpfs"), flags, Some(SIZE));
            call(&format!("a tmpfs cannot be mounted on {FOLDER}"), mounted)?;
            // One that is not whole must not be changed into.
            fill(root).inspect_err(|_| {
                let _ = umount2(&folder, MntFlags::empty());
            })?;
            say::say(format_args!("the exitrd at {FOLDER} is ready: at a shutdown the hook closes the root"));
        }
    }
    Ok(())
}

/// What is missing.
#[derive(Debug, PartialEq, Eq)]
enum Needed {
    Nothing,
    Hook,
    All,
}

/// What is missing, or why there can be none.
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

fn fill(root: &Root) -> Result<(), Error> {
    for name in FOLDERS {
        let path = root.path(FOLDER).join(name);
        at(&path, DirBuilder::new().mode(0o755).create(&path))?;
    }
    put_hook(root)
}

/// Under another name first: what systemd finds is whole.
fn put_hook(root: &Root) -> Result<(), Error> {
    let (hook, new, path) = (root.path(HOOK), root.path(FOLDER).join("shutdown.new"), root.path(SHUTDOWN));
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
    use crate::machine::scratch::Scratch;

    const PLAIN: &str = "22 1 8:1 / / ro - ext4 /dev/sda1 ro\n23 22 0:20 / /run rw,noexec - tmpfs tmpfs rw\n";
    const WITH_OURS: &str =
        "30 23 0:40 / /run/initramfs rw,nosuid,nodev shared:9 - tmpfs nextkernel rw,size=2048k\n";

    fn executable(scratch: &Scratch, path: &str, text: &str) {
        scratch.put(path, text);
        fs::set_permissions(scratch.root.path(path), Permissions::from_mode(0o755)).unwrap();
    }

    /// A machine that could have one.
    fn machine() -> Scratch {
        let scratch = Scratch::new();
        executable(&scratch, HOOK, "the hook");
        scratch.folder("/run/systemd/system");
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
        scratch.folder(FOLDER);
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Hook);
        fill(&scratch.root).unwrap();
        assert_eq!(needed(&scratch.root).unwrap(), Needed::Nothing);
        let mut names: Vec<_> =
            fs::read_dir(scratch.root.path(FOLDER)).unwrap().map(|it| it.unwrap().file_name()).collect();
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
            scratch.put(&format!("{FOLDER}/{name}"), "");
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
            scratch.put(&format!("{FOLDER}/{path}"), "");
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
