//! The exitrd: the directory that systemd changes its root to at the end of a shutdown.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nextkernel_hook::scene::exitrd::{HOOKS, MOUNTED_AS};

use crate::machine::mounts::Mount;
use crate::machine::root::{HOOK, Root};

/// The directory that systemd changes its root to (systemd-shutdown(8), bootup(7)). systemd does not touch a
/// mount there: it is neither stopped as a unit (`fstab_is_extrinsic`, src/shared/fstab-util.c) nor unmounted
/// at the end (`nonunmountable_path`, src/shutdown/umount.c).
pub const DIRECTORY: &str = "/run/initramfs";

/// The program in it that systemd executes.
pub const SHUTDOWN: &str = "/run/initramfs/shutdown";

/// Files that an initramfs leaves there without being an exitrd: logs and stamps of initramfs-tools and
/// dracut. Each is a name, or the beginning of one.
pub(crate) const LEFT_OVER: [&str; 6] =
    ["fsck", "initramfs.debug", "init.log", "log", "state", "rdsosreport.txt"];

/// The unit that fills it on `NixOS` at shutdown; before that, nothing is mounted there
/// (nixos/modules/system/boot/systemd/shutdown.nix).
pub(crate) const NIXOS_UNIT: &str = "/etc/systemd/system/generate-shutdown-ramfs.service";

/// The program that makes an exitrd there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// dracut, at each shutdown.
    Dracut,
    /// mkinitcpio, at each shutdown.
    Mkinitcpio,
    /// NixOS, at each shutdown.
    Nixos,
    /// An unknown program; a path found there.
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
    /// No exitrd, neither now nor at shutdown.
    Nothing,
    /// The exitrd of `nextkernel exitrd`.
    Ours {
        /// Whether the hook in it is the installed one.
        is_current: bool,
    },
    /// The exitrd of another program.
    Theirs(Whose),
}

impl Found {
    /// Looks at /run/initramfs.
    #[must_use]
    pub fn look(root: &Root) -> Found {
        let mounts = Mount::all(root);
        let mounted = Mount::at(&mounts, Path::new(DIRECTORY));
        if mounted.is_some_and(is_ours) {
            return Found::Ours { is_current: is_current(root) };
        }
        let is_nixos = root.path("/etc/NIXOS").exists();
        if is_nixos && (mounted.is_some() || root.path(NIXOS_UNIT).exists()) {
            return Found::Theirs(Whose::Nixos);
        }
        let below = mounts
            .iter()
            .find(|mount| mount.point.starts_with(DIRECTORY) && mount.point != Path::new(DIRECTORY));
        let there = |name: &str| root.path(DIRECTORY).join(name).exists();
        if there("mkinitcpio-shutdown.conf") {
            return Found::Theirs(Whose::Mkinitcpio);
        }
        if there(".need_shutdown") || (there("bin/sh") && there("lib/dracut")) || there("usr/lib/dracut") {
            return Found::Theirs(Whose::Dracut);
        }
        let names = fs::read_dir(root.path(DIRECTORY)).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut strange: Vec<_> =
            names.filter(|name| !LEFT_OVER.iter().any(|known| name.starts_with(known))).collect();
        strange.sort();
        let strange = strange.into_iter().map(|name| format!("{DIRECTORY}/{name}")).next();
        let strange = strange.or_else(|| below.map(|mount| mount.point.display().to_string()));
        strange.map_or(Found::Nothing, |name| Found::Theirs(Whose::Unknown(name)))
    }
}

/// Whether systemd would change into an exitrd as things are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// There is no exitrd, or not yet.
    Missing,
    /// systemd silently skips the exitrd, because it is on this mount, which is noexec.
    Noexec(String),
    /// systemd silently skips the exitrd, because it is not executable.
    NotExecutable,
    /// systemd would change into the exitrd.
    Yes {
        /// Whether the exitrd carries the hook.
        carries: bool,
    },
}

impl Runs {
    /// Looks at the exitrd's program, its mount and its hook.
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
        let ours = Mount::at(&mounts, Path::new(DIRECTORY)).is_some_and(is_ours);
        Runs::Yes { carries: ours || HOOKS.iter().any(|path| is_program(&root.path(in_words(path)))) }
    }
}

/// Returns one of the hook's paths as a string.
pub(crate) fn in_words(path: &CStr) -> &str {
    path.to_str().unwrap_or_default()
}

pub(crate) fn is_ours(mount: &Mount) -> bool {
    mount.kind == "tmpfs" && mount.source == Path::new(MOUNTED_AS)
}

pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.len() > 0 && it.permissions().mode() & 0o111 != 0)
}

pub(crate) fn is_current(root: &Root) -> bool {
    let whole = |path| fs::read(root.path(path)).ok();
    let ours = root.path(SHUTDOWN);
    is_program(&ours) && whole(SHUTDOWN).is_some_and(|ours| whole(HOOK) == Some(ours))
}
