//! All entries there are, and the one that would be booted.

use std::path::Path;

use crate::entries::default::ByDefault;
use crate::entries::entry::{Entry, EntryKind, Error};
use crate::entries::found::Found;
use crate::entries::in_charge::{self, InCharge};
use crate::entries::systemd_boot::{self, Loader};
use crate::entries::tries::Tries;
use crate::entries::{bls, convention, extlinux, grub, nixos, partition, subvolume, uki};
use crate::machine::attach::Attached;
use crate::machine::root::Root;
use crate::request::conf::Conf;
use crate::request::once::Once;
use crate::words::errno::InWords;

/// All entries there are, and the one that would be booted, with remarks.
#[derive(Debug)]
pub struct Survey {
    /// The boot loader in charge, if it is a known one.
    pub loader: Option<String>,
    /// The entries: the boot loader's in its order, then generations of NixOS, then kernels by convention.
    pub entries: Vec<Entry>,
    /// Entries for other machines, which are not shown.
    pub(crate) foreign: Vec<Entry>,
    /// The entry that would be booted, or why that is unknown.
    pub default: Result<ByDefault, Error>,
    /// Remarks on the entries, for the user.
    pub notes: Vec<String>,
}

/// The answer of the boot loader in charge.
pub(crate) struct Told {
    pub(crate) loader: Option<String>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) default: Result<ByDefault, Error>,
    /// Whether its menu includes the entries of loader/entries.
    pub(crate) has_bls: bool,
}

/// Returns an error if the next full reboot takes another btrfs subvolume, and so another menu than the one
/// read here. It does not apply to an entry that names the root's subvolume itself. Only root can ask for the
/// default subvolume. For other users a failure is not reported, because listing entries is harmless and only
/// root stages.
pub(crate) fn other_snapshot(
    root: &Root,
    in_charge: &Result<InCharge, Error>,
    notes: &mut Vec<String>,
) -> Option<Error> {
    let path = match in_charge {
        Ok(InCharge::SystemdBoot) | Err(_) => return None,
        Ok(InCharge::Grub(menu) | InCharge::Extlinux(menu)) => menu.as_path(),
        Ok(InCharge::Nobody) => Path::new("/boot"),
    };
    let asked = subvolume::other_than_default(root, path);
    if let Some(error) = asked.as_ref().err().filter(|_| nix::unistd::geteuid().is_root()) {
        let why = InWords(error);
        notes.push(format!("warning: whether / is in btrfs's default subvolume cannot be told: {why}"));
    }
    let (current, default) = asked.ok()??;
    Some(Error::OtherSnapshot { path: path.to_path_buf(), current, default })
}

impl Survey {
    /// Finds the entries. Unmounted file systems that they are on are mounted for this process only.
    #[must_use]
    pub fn of(root: &Root, conf: &Conf) -> Survey {
        let (mut attached, mut notes) = (Attached::new(root), Vec::new());
        // The reason why the next entry cannot be known, whatever the boot loader says.
        let mut blind: Option<Error> = None;
        let loader = Loader::find(root).unwrap_or_else(|error| {
            blind = Some(error.into());
            None
        });
        attached.of_fstab();
        let extended = loader.as_ref().map_or(Ok(()), |loader| loader.attach(root, &mut attached));
        let in_charge = in_charge::find(root, conf.boot_loader);
        let by_systemd_boot = in_charge == Ok(InCharge::SystemdBoot);
        let hidden = attached.hidden.clone().map(Error::Attach);
        blind = blind.or(if by_systemd_boot { extended.err().map(Error::Attach) } else { hidden.clone() });
        let partitions = partition::find(root, &mut notes);
        let mut found = Vec::new();
        for partition in &partitions {
            let is_its = |loader: &Loader| loader.reads(root, &partitions, partition);
            if by_systemd_boot && !loader.as_ref().is_none_or(is_its) {
                continue;
            }
            let with_profiles = loader.as_ref().is_none_or(|loader| loader.with_profiles);
            let images = |notes: &mut Vec<String>| uki::found::read(root, partition, with_profiles, notes);
            for read in [bls::read(root, partition, by_systemd_boot, &mut notes), images(&mut notes)] {
                match read {
                    Ok(read) => found.extend(read),
                    Err(error) if by_systemd_boot => blind = blind.or(Some(error)),
                    Err(error) => notes.push(error.to_string()),
                }
            }
        }
        let with_counters = loader.as_ref().is_some_and(|loader| loader.with_counters);
        // The sort is stable: of two equal entries the ESP's stays first, as in systemd-boot.
        found.sort_by(|a, b| a.compare(b, with_counters));
        let generations = nixos::all(root);
        let mut installed = convention::all(root);
        if hidden.is_some() {
            // These kernels are on the file system beneath the mount point, because the one that belongs there
            // could not be mounted.
            for entry in &mut installed {
                entry.reason.clone_from(&hidden);
            }
        }
        let other = other_snapshot(root, &in_charge, &mut notes);
        let told = match in_charge {
            Ok(InCharge::SystemdBoot) => {
                let default = loader.as_ref().ok_or(Error::NoVariables).and_then(|loader| {
                    let conf = systemd_boot::Conf::read(root, loader.esp(&partitions)?)?;
                    loader.choose(&conf, &found, &mut notes)
                });
                Told {
                    loader: loader.map(|loader| loader.info),
                    entries: Vec::new(),
                    default,
                    has_bls: false,
                }
            }
            Ok(InCharge::Grub(menu)) => of_grub(root, &mut attached, &menu),
            Ok(InCharge::Extlinux(menu)) => of_extlinux(root, &mut attached, &menu),
            Ok(InCharge::Nobody) => {
                notes.extend(in_charge::others(root).iter().map(|path| {
                    let path = path.display();
                    format!(
                        "warning: {path} is a boot loader's, and what that would boot is not read from it"
                    )
                }));
                let unread = found.iter().find(|found| found.offered && conf.boot_loader.is_none());
                let default = match (unread, nixos::default(root, &generations)) {
                    (Some(unread), _) => Err(Error::Unread(unread.entry.in_full())),
                    (None, Some(system)) => Ok(ByDefault::always(system, "the system profile of NixOS")),
                    (None, None) => convention::default(root, &installed)
                        .map(|entry| ByDefault::always(entry, "by the distribution's convention")),
                };
                Told { loader: None, entries: Vec::new(), default, has_bls: false }
            }
            Err(error) => Told { loader: None, entries: Vec::new(), default: Err(error), has_bls: false },
        };
        if told.has_bls {
            found.retain(|found| found.entry.kind != EntryKind::Bls);
        }
        notes.append(&mut attached.notes);
        let marked = |entry: Entry| Entry { aside: attached.covers(&entry.kernel.path), ..entry };
        let default = match (blind.map_or(told.default, Err), other) {
            (Ok(default), Some(other)) if !default.names_its_root(root) => Err(other),
            (default, _) => default,
        };
        let default = default.map(|default| ByDefault { entry: marked(default.entry), ..default });
        let (foreign, shown): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.foreign);
        let shown = shown.into_iter().map(|found| found.entry);
        let entries = told.entries.into_iter().chain(shown).chain(generations).chain(installed);
        Survey {
            loader: told.loader,
            entries: entries.map(marked).collect(),
            foreign: foreign.into_iter().map(|found: Found| marked(found.entry)).collect(),
            default,
            notes,
        }
    }

    /// Returns the entry that a name means: the path or the name of its file, with or without ending and
    /// counters, or else the version of a kernel by convention. Fails if it cannot be staged.
    pub fn named(&self, name: &str) -> Result<Entry, Error> {
        self.find(name)?.clone().stageable()
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Entry, Error> {
        let all = || self.entries.iter().chain(&self.foreign);
        let stem = |name: &str| bls::stem(&name.to_ascii_lowercase()).to_owned();
        let file =
            |entry: &Entry| entry.from.as_ref().and_then(|from| Some(from.file_name()?.to_str()?.to_owned()));
        let asked = stem(name);
        let (bare, _) = Tries::parse(&asked);
        let is_version = |entry: &Entry| entry.kind == EntryKind::Convention;
        // A closer match counts first.
        let ways: [&dyn Fn(&Entry) -> bool; 8] = [
            &|entry| entry.from.as_deref() == Some(Path::new(name)),
            &|entry| file(entry).is_some_and(|file| file.eq_ignore_ascii_case(name)),
            &|entry| !is_version(entry) && entry.id == name,
            &|entry| !is_version(entry) && entry.id.eq_ignore_ascii_case(name),
            &|entry| file(entry).is_some_and(|file| stem(&file) == asked),
            &|entry| !is_version(entry) && stem(&entry.id) == bare,
            &|entry| !is_version(entry) && entry.aliases.iter().any(|alias| alias == name),
            &|entry| is_version(entry) && entry.id == name,
        ];
        for way in ways {
            let fit: Vec<_> = all().filter(|entry| way(entry)).collect();
            match fit.as_slice() {
                [] => {}
                [one] => return Ok(one),
                // The name of an image's file means the image's first profile.
                [first, others @ ..] if first.is_first_profile_of(others) => return Ok(first),
                several => {
                    let fit = several.iter().map(|entry| entry.in_full()).collect();
                    return Err(Error::Ambiguous { name: name.to_owned(), fit });
                }
            }
        }
        let others = self.entries.iter().map(|entry| entry.id.clone()).collect();
        Err(Error::Unknown { name: name.to_owned(), others })
    }
}

/// Reads GRUB's menu and the entry that it boots next.
pub(crate) fn of_grub(root: &Root, attached: &mut Attached, config: &Path) -> Told {
    let loader = Some(format!("GRUB, with {}", config.display()));
    let menu = match grub::found::Menu::read(root, attached, config) {
        Ok(menu) => menu,
        Err(error) => return Told { loader, entries: Vec::new(), default: Err(error), has_bls: false },
    };
    let default = menu.next().map(|(entry, why, once)| ByDefault {
        entry: entry.clone(),
        why,
        once: once.then(|| Once::Grub(menu.one_shot.clone().unwrap_or_default())),
    });
    let entries = menu.entries.into_iter().map(|(_, entry)| entry).collect();
    Told { loader, entries, default, has_bls: menu.has_bls }
}

/// Reads the menu of U-Boot or syslinux and the entry that they boot next.
pub(crate) fn of_extlinux(root: &Root, attached: &mut Attached, config: &Path) -> Told {
    let loader = Some(format!("U-Boot or syslinux, with {}", config.display()));
    match extlinux::found::Menu::read(root, attached, config) {
        Ok(menu) => {
            let default = menu.next().map(|(entry, why)| ByDefault::always(entry, why));
            Told { loader, entries: menu.entries, default, has_bls: false }
        }
        Err(error) => Told { loader, entries: Vec::new(), default: Err(error), has_bls: false },
    }
}
