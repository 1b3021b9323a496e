//! GRUB's menu on this machine: the path of its directory, and the paths at which the files of its entries are
//! seen.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::entries::bls::{self, Keys};
use crate::entries::entry::{Entry, EntryKind, Error, devicetree, missing};
use crate::entries::found;
use crate::entries::grub::choice::{Because, Next, Undecided};
use crate::entries::grub::environment::Environment;
use crate::entries::grub::menu::{Boots, Config, Device, File, Linux, Named};
use crate::entries::grub::order;
use crate::machine::attach::{Attached, POINTS};
use crate::machine::file_systems::Name;
use crate::machine::mounts::Mount;
use crate::machine::root::Root;
use crate::request::once::NEXT_ENTRY;

/// GRUB's directories (GRUB manual, "Installing GRUB using grub-install"); Fedora and openSUSE have the second.
const DIRECTORIES: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// The directories in which `blscfg` looks unless `blsdir` says otherwise. Fedora's looks in the second one,
/// too, if there is nothing in the first.
const BLSDIRS: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];

/// The menu, and the entry that boots next.
#[derive(Debug)]
pub struct Menu {
    /// The path of grub.cfg.
    pub from: PathBuf,
    /// The entries in order, with their numbers.
    pub entries: Vec<(Vec<usize>, Entry)>,
    /// Whether they come from loader/entries.
    pub has_bls: bool,
    /// The value of `next_entry` in grubenv.
    pub one_shot: Option<String>,
    next: Result<Next, Undecided>,
}

/// Limit in bytes for reading a grub.cfg on an ESP to tell its kind.
const ESP_MAX: u64 = 1 << 20;

/// Returns the menus that GRUB may read. UEFI firmware starts GRUB from a directory of the ESP. The grub.cfg
/// there is the menu itself (openEuler, RHEL 8), or calls the one below /boot. That directory may also belong
/// to another system on the same ESP, and then nothing here says which menu is read.
#[must_use]
pub fn configs(root: &Root) -> Vec<PathBuf> {
    let on_esp = if root.path("/sys/firmware/efi").is_dir() { of_esp(root) } else { Vec::new() };
    let below_boot = DIRECTORIES.map(|directory| Path::new(directory).join("grub.cfg"));
    let mut found: Vec<PathBuf> = Vec::new();
    for config in on_esp.into_iter().chain(below_boot).filter(|config| root.path(config).is_file()) {
        // One directory may be a link to the other.
        let is_same =
            |other: &PathBuf| root.path(other).canonicalize().ok() == root.path(&config).canonicalize().ok();
        if !found.iter().any(is_same) {
            found.push(config);
        }
    }
    found
}

/// Returns every grub.cfg on an ESP that is a menu, and does not only call another one.
fn of_esp(root: &Root) -> Vec<PathBuf> {
    let is_menu = |config: &PathBuf| {
        let mut text = Vec::new();
        let read = root.open(config).and_then(|file| file.take(ESP_MAX).read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text);
        let has = |words: &[&str]| text.split_whitespace().any(|word| words.contains(&word));
        // A file that cannot be read may be a menu.
        read.is_err() || has(&["menuentry", "blscfg"]) || !has(&["configfile", "normal", "source", "."])
    };
    let mut menus = on_esp(root);
    menus.retain(is_menu);
    menus
}

/// Returns every grub.cfg in a vendor's directory on an ESP, sorted by name.
#[must_use]
pub fn on_esp(root: &Root) -> Vec<PathBuf> {
    let directories = POINTS.iter().flat_map(|point| {
        let directory = Path::new(point).join("EFI");
        let vendors = fs::read_dir(root.path(&directory)).into_iter().flatten().flatten();
        vendors.map(move |vendor| directory.join(vendor.file_name()).join("grub.cfg"))
    });
    let mut configs: Vec<_> = directories.filter(|config| root.path(config).is_file()).collect();
    configs.sort();
    configs
}

/// Returns the path of grubenv, beside grub.cfg.
#[must_use]
pub fn grubenv(config: &Path) -> PathBuf {
    config.with_file_name("grubenv")
}

impl Menu {
    /// Reads the menu. `attached` mounts the file systems that its entries are on.
    pub fn read(root: &Root, attached: &mut Attached, from: &Path) -> Result<Menu, Error> {
        let beside = |name: &str| contents(root, &from.with_file_name(name));
        let config = contents(root, from)?.unwrap_or_default();
        let (environment, custom, user) = (beside("grubenv")?, beside("custom.cfg")?, beside("user.cfg")?);
        let platform = if root.path("/sys/firmware/efi").is_dir() { "efi" } else { "pc" };
        let files = crate::entries::grub::menu::MenuFiles {
            config: &config,
            environment: environment.as_deref(),
            custom: custom.as_deref(),
            user: user.as_deref(),
            platform: Some(platform),
        };
        let wrong =
            |why: &dyn std::fmt::Display| Error::Menu { path: from.to_path_buf(), why: why.to_string() };
        let config = Config::read(&files).map_err(|error| wrong(&error))?;
        let mut places = Places { root, from, attached };
        let bls = config.blscfg.as_ref().map(|_| places.bls(&config)).transpose()?.unwrap_or_default();
        let named: Vec<_> = bls.iter().map(|(id, title, _)| Named { id, title }).collect();
        let menu = config.entries(&named);
        let next = config.next(&named);
        let entries = menu.into_iter().map(|entry| {
            let place = entry.place.clone();
            (place, places.entry(entry, &bls))
        });
        let entries = entries.collect();
        let environment = environment.as_deref().and_then(|block| Environment::parse(block).ok());
        let one_shot = environment.and_then(|found| found.get(NEXT_ENTRY).map(str::to_owned));
        Ok(Menu { from: from.to_path_buf(), entries, has_bls: config.blscfg.is_some(), one_shot, next })
    }

    /// Returns the entry that GRUB boots next, the setting that decided, and whether that counts only once.
    pub fn next(&self) -> Result<(&Entry, &'static str, bool), Error> {
        let next = self
            .next
            .as_ref()
            .map_err(|undecided| Error::Undecided { path: self.from.clone(), why: undecided.to_string() })?;
        let entry = self.entries.iter().find(|(place, _)| *place == next.place);
        let (_, entry) = entry
            .ok_or_else(|| Error::Undecided { path: self.from.clone(), why: Undecided::Empty.to_string() })?;
        let why = match next.because {
            Because::OneShot => "next_entry in grubenv",
            Because::Saved => "saved_entry in grubenv",
            Because::Default => "'default' in grub.cfg",
            Because::First => "the first in GRUB's menu",
        };
        Ok((entry, why, next.because == Because::OneShot))
    }
}

fn contents(root: &Root, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match root.read_up_to(path, crate::entries::grub::menu::SIZE_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::unreadable(path, &error)),
    }
}

/// Finds the paths at which GRUB's files are seen.
struct Places<'a, 'b> {
    root: &'a Root,
    from: &'a Path,
    attached: &'a mut Attached<'b>,
}

/// An entry of loader/entries: its id, its title, and the result of reading it.
type Bls = (String, String, Result<Entry, String>);

impl Places<'_, '_> {
    fn entry(&mut self, entry: crate::entries::grub::menu::Entry, bls: &[Bls]) -> Entry {
        let aliases = [entry.numbers(), entry.title()].into_iter();
        let aliases = aliases.chain(entry.ids.last().cloned()).chain(entry.titles.last().cloned());
        let (id, title) = (entry.id(), entry.titles.last().cloned());
        // The number comes first, even if another name is the same.
        let mut names: Vec<String> = Vec::new();
        for name in aliases {
            if name != id && !names.contains(&name) {
                names.push(name);
            }
        }
        let from = self.from.to_path_buf();
        let made = match entry.boots {
            Boots::Linux(linux) => self.linux(&id, linux),
            Boots::Bls(number) => match bls.get(number) {
                Some((_, _, Ok(entry))) => Ok(entry.clone()),
                Some((_, _, Err(why))) => Err(Error::Menu { path: from.clone(), why: why.clone() }),
                None => Err(Error::NoEntry),
            },
            Boots::Refused(wrong) => Err(Error::Menu { path: from.clone(), why: wrong.to_string() }),
        };
        let made = made.unwrap_or_else(|reason| Entry::refused(EntryKind::Grub, id.clone(), reason));
        Entry { id, title, aliases: names, from: made.from.clone().or(Some(from)), ..made }
    }

    fn linux(&mut self, id: &str, linux: Linux) -> Result<Entry, Error> {
        let kernel = self.file(&linux.kernel, linux.in_default_subvolume)?;
        let initrds = linux.initrds.iter().map(|file| self.file(file, linux.in_default_subvolume));
        let initrds = initrds.collect::<Result<Vec<_>, _>>()?;
        let mut notes = Vec::new();
        if let Some(file) = linux.devicetree {
            notes.push(devicetree(self.root, self.from, &file.path)?);
        }
        Ok(Entry {
            initrds: initrds.into_iter().map(Into::into).collect(),
            cmdline: Some(linux.options),
            notes,
            reason: missing(self.root, self.from, &kernel),
            ..Entry::new(EntryKind::Grub, id.to_owned(), kernel)
        })
    }

    fn file(&mut self, file: &File, in_default_subvolume: bool) -> Result<PathBuf, Error> {
        let from = self.from;
        let unseen = |why: String| Error::Unseen { from: from.to_path_buf(), path: file.path.clone(), why };
        let name = self.name(&file.device).map_err(unseen)?;
        let path = self.attached.path(&name, &file.path, in_default_subvolume);
        path.map_err(|error| unseen(error.to_string()))
    }

    /// Returns the name that the file system has on this machine.
    fn name(&self, device: &Device) -> Result<Name, String> {
        Ok(match device {
            Device::Uuid(uuid) => Name::Uuid(uuid.clone()),
            Device::Label(label) => Name::Label(label.clone()),
            Device::Holds(path) => Name::Holds(path.clone()),
            Device::Grub => {
                let mounts = Mount::all(self.root);
                let mount = Mount::over(&mounts, self.from);
                Name::Device(mount.ok_or("what GRUB's folder is on cannot be told")?.source.clone())
            }
            Device::Named(name) => {
                return Err(format!("only GRUB can tell which file system ({name}) is"));
            }
        })
    }

    /// Returns the entries of loader/entries, in GRUB's order.
    fn bls(&mut self, config: &Config) -> Result<Vec<Bls>, Error> {
        let Some(blscfg) = &config.blscfg else { return Ok(Vec::new()) };
        let wrong = |why: String| Error::Menu { path: self.from.to_path_buf(), why };
        let blsdir = blscfg.variable("blsdir").map_err(|error| wrong(error.to_string()))?;
        let said = blsdir.filter(|directory| !directory.is_empty()).map(str::to_owned);
        let directories = said.map_or_else(|| BLSDIRS.map(str::to_owned).to_vec(), |said| vec![said]);
        let (mut notes, mut found) = (Vec::new(), None);
        for directory in directories {
            let directory = self.file(&File { device: blscfg.device.clone(), path: directory }, false)?;
            let names = found::names(self.root, &directory, ".conf", &mut notes)?;
            if !names.is_empty() {
                found = Some((directory, names));
                break;
            }
        }
        self.attached.notes.append(&mut notes);
        let nothing =
            || wrong("the menu's entries are to come from loader/entries, and none is there".to_owned());
        let (directory, mut names) = found.ok_or_else(nothing)?;
        names.sort_by(|a, b| order::compare(stem(b), stem(a)));
        let mut found = Vec::new();
        for name in names {
            let file = directory.join(&name);
            let text = bls::text(self.root, &file).map_err(|error| Error::unreadable(&file, &error))?;
            let mut keys = as_grub(&text);
            let title = keys.title.clone().unwrap_or_else(|| stem(&name).to_owned());
            // A file without a kernel makes no entry in the menu.
            if keys.starts.as_ref().is_none_or(|(key, _)| *key != "linux") {
                continue;
            }
            let made = self.bls_entry(blscfg, &file, &name, &mut keys);
            found.push((stem(&name).to_owned(), title, made));
        }
        Ok(found)
    }

    fn bls_entry(
        &mut self,
        blscfg: &crate::entries::grub::menu::Blscfg,
        file: &Path,
        name: &str,
        keys: &mut Keys,
    ) -> Result<Entry, String> {
        let expand = |text: &str| blscfg.expand(text).map_err(|wrong| wrong.to_string());
        // An entry without options gets those in `default_kernelopts`.
        let default = blscfg.variable("default_kernelopts").map_err(|wrong| wrong.to_string())?;
        let options = if keys.options.is_empty() { default.unwrap_or_default() } else { &keys.options };
        keys.options = expand(options)?;
        let early = blscfg.variable("early_initrd").map_err(|wrong| wrong.to_string())?.unwrap_or_default();
        if !early.is_empty() {
            return Err(format!(
                "{} is read with early_initrd = {early}, which is not understood",
                file.display()
            ));
        }
        let mut initrds = Vec::new();
        for initrd in &keys.initrds {
            initrds.extend(expand(initrd)?.split_ascii_whitespace().map(str::to_owned));
        }
        keys.initrds = initrds;
        let device = blscfg.device.clone();
        let (root, mut unseen) = (self.root, None);
        let mut on = |path: &str| {
            let file = File { device: device.clone(), path: path.to_owned() };
            self.file(&file, false).map_err(|error| unseen = Some(error.to_string())).ok()
        };
        let found = bls::one(root, &mut on, file, name, std::mem::take(keys));
        match (unseen, found) {
            (Some(unseen), _) => Err(unseen),
            (None, found) => {
                found.map(|found| found.entry).map_err(|why| format!("{} {why}", file.display()))
            }
        }
    }
}

/// Returns the keys of a file as Fedora's `blscfg` reads them: of most keys the first one counts, quotes are
/// part of a value, and a line without a value, even an empty one, ends the file (`read_entry`, `bls_get_val`).
fn as_grub(bytes: &[u8]) -> Keys {
    let mut keys = Keys::default();
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '\t']));
    for line in lines.filter(|line| !line.starts_with('#')) {
        let parted = line.split_once(' ').or_else(|| line.split_once('\t'));
        let Some((key, value)) = parted.filter(|(_, value)| !value.is_empty()) else { break };
        let value = value.trim_start_matches([' ', '\t']).to_owned();
        match key {
            "title" => drop(keys.title.get_or_insert(value)),
            "version" => drop(keys.version.get_or_insert(value)),
            "linux" => drop(keys.starts.get_or_insert(("linux", value))),
            "options" if keys.options.is_empty() => keys.options = value,
            "initrd" => keys.initrds.push(value),
            "devicetree" => keys.devicetrees.push(value),
            _ => {}
        }
    }
    keys
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".conf").unwrap_or(name)
}
