//! `--extra PATH[:NAME]`: files that are added to the next initrd, such as keys, credentials and network settings.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::image::cpio::{self, Member};
use crate::machine::root::Root;
use crate::machine::swap;
use crate::words::errno::{self, InWords};

/// Maximum number of files that are added; more are better made an initrd of their own.
const MEMBERS_MAX: usize = 4096;

/// The reason why a file cannot be added.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("--extra: {} cannot be read: {}; a ':' stands between a path and its name in the initrd", .path.display(), InWords(.error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The name is not usable in an initrd.
    #[error("--extra: {name:?} is no name for a file in an initrd; give it as PATH:NAME, without '..'")]
    NoName {
        /// The name as given.
        name: PathBuf,
    },
    /// The file is not a regular file, directory or symbolic link.
    #[error("--extra: {} is a {what}, and only files, folders and symbolic links can be added; leave it out", .path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// Its type.
        what: &'static str,
    },
    /// The file is larger than an archive holds.
    #[error("--extra: {} is larger than 4 GiB, which an initrd's archive cannot hold; leave it out", .0.display())]
    TooLarge(PathBuf),
    /// There are too many files.
    #[error(
        "--extra: these are more than {MEMBERS_MAX} files; make an initrd of them, and give it with --initrd"
    )]
    TooMany,
    /// The file was written to while it was copied.
    #[error("--extra: {} changed while it was copied; stage again when it is complete", .0.display())]
    Changed(PathBuf),
    /// The copy cannot be written.
    #[error("{} cannot be written: {}", .path.display(), InWords(.error))]
    Unwritable {
        /// The copy.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A secret could be written to an unencrypted swap.
    #[error(
        "--extra: {swap} is swap and not encrypted, and a key in /run could be written there; swapoff {swap}, encrypt \
         it (crypttab(5)), or leave --extra out",
        swap = .0.display()
    )]
    Swap(PathBuf),
}

/// The files that are added, in order.
#[derive(Debug, Default)]
pub struct Extra(Vec<Added>);

#[derive(Debug)]
struct Added {
    /// The file with the content.
    path: PathBuf,
    member: Member,
    content: Content,
}

#[derive(Debug)]
enum Content {
    None,
    /// The content of the file with this inode and this time of its last change.
    File(u64, (i64, i64)),
    /// The target of a symbolic link.
    Link(Vec<u8>),
}

impl Extra {
    /// Finds the files to add: for each `PATH[:NAME]` the file itself, or a directory with everything in it.
    /// Keeps modes, owners and times. Refuses files that would be lost or could reach a disk.
    pub fn find(root: &Root, requests: &[impl AsRef<OsStr>]) -> Result<Extra, Error> {
        let mut extra = Extra::default();
        if requests.is_empty() {
            return Ok(extra);
        }
        if let Some(swap) = swap::readable(root) {
            return Err(Error::Swap(swap));
        }
        let mut directories = BTreeSet::new();
        for request in requests {
            let (path, name) = parted(request.as_ref())?;
            // If a link was named, its target is meant.
            let found = fs::metadata(root.path(&path));
            let found = found.map_err(|error| Error::Unreadable { path: path.clone(), error })?;
            let (name, links) = followed(root, name, found.is_dir());
            for (link, leads) in links {
                extra.lead_to(root, &link, &mut directories)?;
                extra.link(link, leads, &mut directories)?;
            }
            extra.lead_to(root, &name, &mut directories)?;
            extra.add(root, &path, &name, &found)?;
        }
        Ok(extra)
    }

    /// Returns whether there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many bytes of an initrd the files take.
    #[must_use]
    pub fn length(&self) -> u64 {
        let members = self.0.iter().map(|added| added.member.length());
        if self.is_empty() { 0 } else { members.sum::<u64>() + cpio::end_length() }
    }

    /// Appends the files as an archive.
    pub(crate) fn append_to(&self, root: &Root, to: &mut File, copy: &Path) -> Result<(), Error> {
        let unwritable = |error| Error::Unwritable { path: copy.to_path_buf(), error };
        for (number, added) in (1..).zip(&self.0) {
            added.member.write(number, to).map_err(unwritable)?;
            match &added.content {
                Content::None => {}
                Content::Link(leads) => io::Write::write_all(to, leads).map_err(unwritable)?,
                Content::File(inode, changed) => {
                    let unreadable = |error| Error::Unreadable { path: added.path.clone(), error };
                    let mut file = root.open(&added.path).map_err(unreadable)?;
                    let is_same = |found: Metadata| (found.ino(), time(&found)) == (*inode, *changed);
                    let before = is_same(file.metadata().map_err(unreadable)?);
                    // Reading one more byte detects a file that grew.
                    let size = u64::from(added.member.size);
                    let copied = io::copy(&mut (&mut file).take(size), to).map_err(|error| {
                        if errno::is_out_of_room(&error) { unwritable(error) } else { unreadable(error) }
                    })?;
                    let is_whole = copied == size && file.read(&mut [0]).map_err(unreadable)? == 0;
                    if !before || !is_whole || !is_same(file.metadata().map_err(unreadable)?) {
                        return Err(Error::Changed(added.path.clone()));
                    }
                }
            }
            cpio::padding(added.member.size.into(), to).map_err(unwritable)?;
        }
        if self.is_empty() { Ok(()) } else { cpio::end(to).map_err(unwritable) }
    }

    /// Adds the directories above a name, with the attributes that they have on this system, if they exist
    /// here.
    fn lead_to(&mut self, root: &Root, name: &Path, done: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let above: Vec<_> = above(name).collect();
        for directory in above.into_iter().rev() {
            if !done.insert(directory.to_path_buf()) {
                continue;
            }
            let bytes = directory.as_os_str().as_bytes();
            let member = match fs::symlink_metadata(root.path(directory)) {
                Ok(found) if found.is_dir() => member(bytes, &found, 0),
                _ => Member::directory(bytes, 0o755),
            };
            self.push(Added { path: directory.to_path_buf(), member, content: Content::None })?;
        }
        Ok(())
    }

    /// Adds a link that was followed. It is owned by root, because a directory that stays in its place gets its
    /// owner.
    fn link(&mut self, link: PathBuf, leads: OsString, done: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        if !done.insert(link.clone()) {
            return Ok(());
        }
        let size = u32::try_from(leads.len()).map_err(|_| Error::TooLarge(link.clone()))?;
        let name = link.as_os_str().as_bytes().to_vec();
        let member = Member { name, mode: libc::S_IFLNK | 0o777, size, ..Member::default() };
        self.push(Added { path: link, member, content: Content::Link(leads.into_vec()) })
    }

    fn add(&mut self, root: &Root, path: &Path, name: &Path, found: &Metadata) -> Result<(), Error> {
        let unreadable = |error| Error::Unreadable { path: path.to_path_buf(), error };
        let bytes = name.as_os_str().as_bytes();
        let kind = found.file_type();
        let (size, content) = if kind.is_dir() {
            (0, Content::None)
        } else if kind.is_symlink() {
            let leads = fs::read_link(root.path(path)).map_err(unreadable)?.into_os_string();
            (leads.len() as u64, Content::Link(leads.as_bytes().to_vec()))
        } else if kind.is_file() {
            (found.len(), Content::File(found.ino(), time(found)))
        } else {
            return Err(Error::Special { path: path.to_path_buf(), what: special(found) });
        };
        let size = u32::try_from(size).map_err(|_| Error::TooLarge(path.to_path_buf()))?;
        self.push(Added { path: path.to_path_buf(), member: member(bytes, found, size), content })?;
        if kind.is_dir() {
            let files = fs::read_dir(root.path(path)).map_err(unreadable)?;
            // One name too many is enough to see that there are too many.
            let left = MEMBERS_MAX - self.0.len();
            let names = files.take(left + 1).map(|entry| entry.map(|entry| entry.file_name()));
            let names = names.collect::<Result<BTreeSet<_>, _>>().map_err(unreadable)?;
            if names.len() > left {
                return Err(Error::TooMany);
            }
            for file in names {
                let path = path.join(&file);
                let found = fs::symlink_metadata(root.path(&path));
                let found = found.map_err(|error| Error::Unreadable { path: path.clone(), error })?;
                self.add(root, &path, &name.join(&file), &found)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, added: Added) -> Result<(), Error> {
        if !Member::can_be_named(&added.member.name) {
            return Err(Error::NoName { name: added.path });
        }
        if self.0.len() == MEMBERS_MAX {
            return Err(Error::TooMany);
        }
        self.0.push(added);
        Ok(())
    }
}

/// Splits an argument into the path and the name in the initrd, which has no leading `/`. Without a name the
/// path itself is the name. A name that ends with `/` is a directory, in which the file keeps its own name.
fn parted(request: &OsStr) -> Result<(PathBuf, PathBuf), Error> {
    let mut parts = request.as_bytes().splitn(2, |byte| *byte == b':').map(OsStr::from_bytes);
    let given = Path::new(parts.next().unwrap_or_default());
    let unreadable = |error| Error::Unreadable { path: given.to_path_buf(), error };
    let path = std::path::absolute(given).map_err(unreadable)?;
    let name = match parts.next().map(Path::new) {
        None => path.clone(),
        Some(directory) if directory.as_os_str().as_bytes().ends_with(b"/") => {
            directory.join(path.file_name().unwrap_or_default())
        }
        Some(name) => name.to_path_buf(),
    };
    let climbs = name.components().any(|part| part == Component::ParentDir);
    let plain = plain(&name);
    if climbs || plain.as_os_str().is_empty() { Err(Error::NoName { name }) } else { Ok((path, plain)) }
}

/// Follows the links in a name. Returns the resulting name, and the links on the way with their targets. The
/// kernel replaces a file that has the same name but another type, so a directory `lib` would remove the link
/// of that name, and with it the way to everything behind it. Therefore links are followed as on this system,
/// and are added, so that the original name exists as well.
fn followed(root: &Root, mut name: PathBuf, is_directory: bool) -> (PathBuf, Vec<(PathBuf, OsString)>) {
    let mut links = Vec::new();
    // The limit also ends a loop of links (`MAXSYMLINKS`, include/linux/namei.h).
    for _ in 0..40 {
        let own = Some(name.as_path()).filter(|_| is_directory);
        let directories: Vec<_> = own.into_iter().chain(above(&name)).collect();
        let link = directories
            .iter()
            .rev()
            .find_map(|directory| Some((*directory, fs::read_link(root.path(directory)).ok()?)));
        let Some((directory, leads)) = link else { return (name, links) };
        if !is_of_merged_usr(directory) {
            links.push((directory.to_path_buf(), leads.clone().into_os_string()));
        }
        let behind = name.strip_prefix(directory).unwrap_or(&name);
        name = plain(&directory.parent().unwrap_or(Path::new("")).join(leads).join(behind));
    }
    (name, Vec::new())
}

/// Returns whether this directory of programs or libraries is one that a merged /usr replaces by a link. An
/// initrd has its own links, perhaps of another system, where they lead elsewhere; without them none of its
/// programs would start.
fn is_of_merged_usr(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default().as_bytes();
    let is_one = matches!(name, b"bin" | b"sbin") || name.starts_with(b"lib");
    is_one && [Path::new(""), Path::new("usr")].contains(&directory.parent().unwrap_or(Path::new("")))
}

/// Returns the directories above a name, the lowest first.
fn above(name: &Path) -> impl Iterator<Item = &Path> {
    name.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty())
}

/// Returns a path relative to the root, with `.` and `..` resolved.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir => plain = PathBuf::new(),
            Component::ParentDir => drop(plain.pop()),
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn member(name: &[u8], found: &Metadata, size: u32) -> Member {
    // The archive's field cannot hold a time before 1970 or after 2106.
    let mtime = u32::try_from(found.mtime().max(0)).unwrap_or(u32::MAX);
    Member { name: name.to_vec(), mode: found.mode(), uid: found.uid(), gid: found.gid(), mtime, size }
}

fn time(found: &Metadata) -> (i64, i64) {
    (found.ctime(), found.ctime_nsec())
}

fn special(found: &Metadata) -> &'static str {
    match found.mode() & libc::S_IFMT {
        libc::S_IFIFO => "pipe",
        libc::S_IFSOCK => "socket",
        _ => "device",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::cpio::tests::read;
    use crate::machine::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    fn archive(scratch: &Scratch, requests: &[&str]) -> Result<Vec<(Member, Vec<u8>)>, Error> {
        let extra = Extra::find(&scratch.root, requests)?;
        scratch.put("/copy", "");
        let copy = scratch.root.path("/copy");
        let mut file = File::options().append(true).open(&copy).unwrap();
        extra.append_to(&scratch.root, &mut file, &copy)?;
        let bytes = fs::read(copy).unwrap();
        assert_eq!(bytes.len() as u64, extra.length());
        Ok(read(&mut &bytes[..]).unwrap())
    }

    fn names(scratch: &Scratch, requests: &[&str]) -> String {
        let members = archive(scratch, requests).unwrap();
        let names = members.iter().map(|(member, _)| String::from_utf8(member.name.clone()).unwrap());
        names.collect::<Vec<_>>().join(" ")
    }

    fn refusal(scratch: &Scratch, request: &str) -> String {
        archive(scratch, &[request]).unwrap_err().to_string()
    }

    #[test]
    fn a_file_keeps_its_mode_owner_and_time_and_so_do_the_folders_above_it() {
        let scratch = Scratch::new();
        scratch.put("/etc/keys/root.key", "secret");
        let permissions = |path: &str, mode| {
            fs::set_permissions(scratch.root.path(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        permissions("/etc/keys/root.key", 0o640);
        permissions("/etc/keys", 0o710);
        let times =
            fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(86400));
        File::open(scratch.root.path("/etc/keys/root.key")).unwrap().set_times(times).unwrap();
        let found = fs::metadata(scratch.root.path("/etc/keys/root.key")).unwrap();
        let members = archive(&scratch, &["/etc/keys/root.key"]).unwrap();
        let [(etc, _), (keys, _), (key, content)] = <[_; 3]>::try_from(members).unwrap();
        assert_eq!((etc.name.as_slice(), keys.name.as_slice()), (&b"etc"[..], &b"etc/keys"[..]));
        assert_eq!(keys.mode, libc::S_IFDIR | 0o710);
        assert_eq!((key.name.as_slice(), content.as_slice()), (&b"etc/keys/root.key"[..], &b"secret"[..]));
        assert_eq!((key.mode, key.mtime), (libc::S_IFREG | 0o640, 86400));
        assert_eq!((key.uid, key.gid), (found.uid(), found.gid()));
    }

    #[test]
    fn a_name_says_where_it_lies_and_each_folder_is_made_once() {
        let scratch = Scratch::new();
        scratch.put("/a", "1");
        scratch.put("/b", "2");
        assert_eq!(names(&scratch, &["/a"]), "a");
        assert_eq!(names(&scratch, &["/a:/x/y", "/b:x/./z"]), "x x/y x/z");
        assert_eq!(names(&scratch, &["/a:/x/", "/b:y/z/"]), "x x/a y y/z y/z/b");
        let members = archive(&scratch, &["/a:new/a"]).unwrap();
        assert_eq!(members.first().map(|(directory, _)| directory.mode), Some(libc::S_IFDIR | 0o755));
    }

    #[test]
    fn a_folder_comes_with_all_that_is_in_it_and_links_in_it_are_links() {
        let scratch = Scratch::new();
        scratch.put("/keys/deep/b", "2");
        scratch.put("/keys/a", "1");
        std::os::unix::fs::symlink("../nowhere", scratch.root.path("/keys/link")).unwrap();
        assert_eq!(
            names(&scratch, &["/keys:/etc/keys"]),
            "etc etc/keys etc/keys/a etc/keys/deep etc/keys/deep/b etc/keys/link"
        );
        let members = archive(&scratch, &["/keys"]).unwrap();
        let (link, leads) = members.last().unwrap();
        assert_eq!((link.mode & libc::S_IFMT, leads.as_slice()), (libc::S_IFLNK, &b"../nowhere"[..]));
    }

    #[test]
    fn what_is_named_by_a_link_is_what_it_leads_to() {
        let scratch = Scratch::new();
        scratch.put("/run/resolv.conf", "nameserver");
        scratch.link("/etc/resolv.conf", "/run/resolv.conf");
        let members = archive(&scratch, &["/etc/resolv.conf"]).unwrap();
        assert_eq!(members.last().map(|(_, content)| content.as_slice()), Some(&b"nameserver"[..]));
    }

    #[test]
    fn a_link_on_the_way_is_followed_and_never_replaced() {
        let scratch = Scratch::new();
        scratch.put("/usr/lib/firmware/a", "1");
        std::os::unix::fs::symlink("usr/lib", scratch.root.path("/lib")).unwrap();
        std::os::unix::fs::symlink("/usr", scratch.root.path("/sys")).unwrap();
        assert_eq!(names(&scratch, &["/lib/firmware/a"]), "usr usr/lib usr/lib/firmware usr/lib/firmware/a");
        assert_eq!(names(&scratch, &["/usr/lib/firmware/a:/lib/b"]), "usr usr/lib usr/lib/b");
        assert_eq!(names(&scratch, &["/usr/lib/firmware/a:/sys/lib/b"]), "sys usr usr/lib usr/lib/b");
        assert!(names(&scratch, &["/lib"]).starts_with("usr usr/lib usr/lib/firmware"));
        std::os::unix::fs::symlink("round", scratch.root.path("/round")).unwrap();
        assert!(archive(&scratch, &["/usr/lib/firmware/a:round/b"]).is_ok());
    }

    #[test]
    fn a_link_that_was_followed_is_added_and_leads_to_what_it_leads_to_here() {
        let scratch = Scratch::new();
        scratch.put("/persist/keys/root.key", "1");
        scratch.put("/usr/lib/x/a", "1");
        for (link, leads) in [
            ("/etc", ""),
            ("/etc/keys", "../p/keys"),
            ("/p", "persist"),
            ("/usr/lib64", "lib"),
            ("/sbin", "bin"),
        ] {
            let path = scratch.root.path(link);
            if leads.is_empty() {
                fs::create_dir(path).unwrap();
            } else {
                std::os::unix::fs::symlink(leads, path).unwrap();
            }
        }
        let members = archive(&scratch, &["/etc/keys/root.key"]).unwrap();
        let seen: Vec<_> = members.iter().map(|(member, _)| String::from_utf8_lossy(&member.name)).collect();
        assert_eq!(seen, ["etc", "etc/keys", "p", "persist", "persist/keys", "persist/keys/root.key"]);
        let links = members.iter().filter(|(member, _)| member.mode == libc::S_IFLNK | 0o777);
        let links: Vec<_> = links.map(|(link, leads)| (link.uid, leads.as_slice())).collect();
        assert_eq!(links, [(0, &b"../p/keys"[..]), (0, b"persist")]);
        // A link is added once, however many names lead through it.
        assert_eq!(
            names(&scratch, &["/etc/keys", "/etc/keys/root.key:/p/keys/2"]),
            "etc etc/keys p persist persist/keys persist/keys/root.key persist/keys persist/keys/2"
        );
        // The links of a merged /usr are the initrd's own.
        assert_eq!(names(&scratch, &["/usr/lib64/x/a"]), "usr usr/lib usr/lib/x usr/lib/x/a");
        assert_eq!(names(&scratch, &["/usr/lib/x/a:/sbin/a"]), "bin bin/a");
        // A loop of links leads nowhere.
        std::os::unix::fs::symlink("round", scratch.root.path("/round")).unwrap();
        assert_eq!(names(&scratch, &["/usr/lib/x/a:/round/a"]), "round round/a");
    }

    #[test]
    fn more_files_than_are_added_are_refused() {
        let scratch = Scratch::new();
        scratch.directory("/many");
        let file = |number: usize| scratch.root.path(format!("/many/{number}"));
        (0..MEMBERS_MAX - 1).for_each(|number| drop(File::create(file(number)).unwrap()));
        let find = || Extra::find(&scratch.root, &["/many"]);
        assert_eq!(find().unwrap().0.len(), MEMBERS_MAX);
        File::create(file(MEMBERS_MAX)).unwrap();
        assert!(matches!(find(), Err(Error::TooMany)));
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_cannot_be_written() {
        let scratch = Scratch::new();
        scratch.put("/a", "12345");
        let extra = Extra::find(&scratch.root, &["/a"]).unwrap();
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let sentence =
            extra.append_to(&scratch.root, &mut full, Path::new("/run/copy")).unwrap_err().to_string();
        assert!(sentence.starts_with("/run/copy cannot be written: No space"), "{sentence}");
        // Nothing is mapped at address 0, so reading fails with EIO.
        fs::remove_file(scratch.root.path("/a")).unwrap();
        scratch.link("/a", "/mem");
        std::os::unix::fs::symlink("/proc/self/mem", scratch.root.path("/mem")).unwrap();
        let copy = scratch.root.path("/copy");
        let added = extra.append_to(&scratch.root, &mut File::create(&copy).unwrap(), &copy);
        let sentence = added.unwrap_err().to_string();
        assert!(sentence.contains("/a cannot be read: I/O error"), "{sentence}");
    }

    #[test]
    fn what_cannot_be_added_is_refused_by_name() {
        let scratch = Scratch::new();
        scratch.put("/a", "1");
        scratch.directory("/keys");
        nix::unistd::mkfifo(&scratch.root.path("/keys/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refusal(&scratch, "/missing").contains("/missing cannot be read"));
        assert!(refusal(&scratch, "/keys").contains("/keys/pipe is a pipe"));
        for name in ["/a:", "/a:../b", "/a:x/../b", "/a:.", "/a:/TRAILER!!!", "/"] {
            assert!(refusal(&scratch, name).contains("is no name"), "{name}");
        }
        let long = format!("/a:{}", "b/".repeat(2050));
        assert!(refusal(&scratch, &long).contains("is no name"));
    }

    #[test]
    fn nothing_is_added_where_it_could_reach_a_disk() {
        let scratch = Scratch::new();
        scratch.put("/a", "1");
        scratch.put("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n");
        assert!(refusal(&scratch, "/a").contains("swapoff /dev/sda2"));
        assert!(Extra::find(&scratch.root, &[""; 0]).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_changes_before_it_is_copied_is_not_added() {
        let scratch = Scratch::new();
        scratch.put("/a", "12345");
        let extra = Extra::find(&scratch.root, &["/a"]).unwrap();
        let copy = scratch.root.path("/copy");
        for (text, same) in [("12345", false), ("123456", false), ("1", false)] {
            fs::remove_file(scratch.root.path("/a")).unwrap();
            scratch.put("/other", "takes the place of the inode");
            scratch.put("/a", text);
            let added = extra.append_to(&scratch.root, &mut File::create(&copy).unwrap(), &copy);
            assert_eq!(added.is_ok(), same, "{text}");
        }
    }
}
