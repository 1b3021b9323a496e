//! The generations of NixOS: links in the system profile, each to a whole system with its kernel, initrd,
//! `init` and `kernel-params` (NixOS manual, "Rolling Back Configuration Changes").

use std::fs;
use std::path::{Path, PathBuf};

use crate::entries::entry::{Entry, EntryKind, Error};
use crate::machine::root::Root;

/// The system profile. `system` is the generation that is booted by default; `system-N-link` is generation N.
const PROFILES: &str = "/nix/var/nix/profiles";

/// Returns every generation, the newest first.
pub fn all(root: &Root) -> Vec<Entry> {
    let links = fs::read_dir(root.path(PROFILES)).into_iter().flatten().flatten();
    let names = links.filter_map(|link| link.file_name().into_string().ok());
    let mut numbers: Vec<u64> =
        names.filter_map(|name| name.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.iter().rev().filter_map(|number| generation(root, *number)).collect()
}

/// Returns the generation that the profile points to.
pub fn default<'a>(root: &Root, all: &'a [Entry]) -> Option<&'a Entry> {
    let meant = fs::read_link(root.path(PROFILES).join("system")).ok()?;
    let name = meant.file_name()?.to_str()?.strip_suffix("-link")?.to_owned();
    all.iter().find(|entry| entry.id == name)
}

/// Returns `None` if the generation cannot be booted: its system, its kernel or its parameters are missing.
fn generation(root: &Root, number: u64) -> Option<Entry> {
    let link = Path::new(PROFILES).join(format!("system-{number}-link"));
    let system = fs::read_link(root.path(&link)).ok()?;
    let target = |name: &str| {
        let path = fs::read_link(root.path(&system).join(name)).ok()?;
        Some(if path.is_absolute() { path } else { system.join(path) })
    };
    let kernel = target("kernel")?;
    let parameters = fs::read_to_string(root.path(&system).join("kernel-params")).ok()?;
    let options = format!("init={} {}", system.join("init").display(), parameters.trim());
    let initrds: Vec<PathBuf> = target("initrd").into_iter().collect();
    let secrets = system.join("append-initrd-secrets");
    // A script that makes another initrd. Only the boot loader's installer runs it (boot.initrd.secrets).
    let reason = root.path(&secrets).exists().then(|| Error::Unsupported {
        from: link.clone(),
        what: "has secrets that its boot loader's installer adds to the initrd (append-initrd-secrets)"
            .to_owned(),
    });
    let version = fs::read_to_string(root.path(&system).join("nixos-version")).ok();
    Some(Entry {
        title: version.as_ref().map(|version| format!("NixOS {}", version.trim())),
        version: version.map(|version| version.trim().to_owned()),
        initrds: initrds.into_iter().map(Into::into).collect(),
        cmdline: Some(options.trim_end().to_owned()),
        from: Some(link),
        // The name of this generation among the entries that NixOS writes for systemd-boot.
        aliases: vec![format!("nixos-generation-{number}")],
        reason,
        ..Entry::new(EntryKind::Nixos, format!("system-{number}"), kernel)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_generation_is_an_entry_and_the_profile_tells_which_is_booted() {
        let scratch = Scratch::new();
        let link = |path: &str, to: &str| {
            let path = scratch.root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(to, path).unwrap();
        };
        for number in [9, 10] {
            let system = format!("/nix/store/s{number}");
            link(&format!("{PROFILES}/system-{number}-link"), &system);
            link(&format!("{system}/kernel"), "/nix/store/k/bzImage");
            link(&format!("{system}/initrd"), "/nix/store/i/initrd");
            scratch.put(&format!("{system}/kernel-params"), "loglevel=4 root=x\n");
            scratch.put(&format!("{system}/nixos-version"), "26.05");
        }
        link(&format!("{PROFILES}/system-11-link"), "/nix/store/gone");
        link(&format!("{PROFILES}/system"), "system-9-link");
        let all = all(&scratch.root);
        assert_eq!(all.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["system-10", "system-9"]);
        let entry = default(&scratch.root, &all).unwrap();
        assert_eq!(entry.id, "system-9");
        assert_eq!(entry.kernel.path, Path::new("/nix/store/k/bzImage"));
        assert_eq!(entry.cmdline.as_deref(), Some("init=/nix/store/s9/init loglevel=4 root=x"));
        scratch.put("/nix/store/s10/append-initrd-secrets", "#!");
        let reason = self::all(&scratch.root).remove(0).reason.unwrap().to_string();
        assert!(reason.contains("append-initrd-secrets"), "{reason}");
    }
}
