//! The files of a staged set: an entry's kernel and its initrds, joined, as they were copied or thawed; and for the
//! direct loader what it takes beside them.

use std::fs::File;
use std::io::Write;

use nextkernel_plan::{Direct, Image, List, Segment, limits};
use thiserror::Error;

use crate::image::header::Header;
use crate::loading::decompress::{self, Asked, Thawed, why};
use crate::loading::loader::Loader;
use crate::loading::prepare::memory_map::Range;
use crate::loading::prepare::parts::{self, Parts, Prepared};
use crate::loading::prepare::{self};
use crate::loading::refusal;
use crate::machine::memory;
use crate::machine::root::Root;
use crate::staging::directory::{self, Folder, NewSet};
use crate::staging::extra::Extra;
use crate::staging::images::{self, Source};
use crate::words::size::Size;

/// Room in /run for what is no image: the plan, what the direct loader takes, and what else is written there while it is
/// staged.
pub const SPARE: u64 = 1 << 20;

/// What a file is called in a set that is thawed into another, and goes then.
const FROZEN: &str = "frozen";

/// What the file with the parameters is called until it is written.
const WRITTEN: &str = "written";

/// What is to be made.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The kernel.
    pub kernel: &'a Source,
    /// The initrds that are joined.
    pub initrds: &'a [Source],
    /// What is added to them.
    pub extra: &'a Extra,
    /// The command line.
    pub line: &'a str,
    /// What loads it.
    pub loader: Loader,
    /// What it becomes where the kernel cannot be thawed.
    pub unthawed: Loader,
    /// Whether the kernel is thawed.
    pub thaws_kernel: bool,
    /// Whether the initrd is.
    pub thaws_initrd: bool,
}

/// Why it is not made.
#[derive(Debug, Error)]
pub enum Error {
    /// No image.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// A file.
    #[error(transparent)]
    Folder(#[from] directory::Error),
    /// Thawing outgrows what there is.
    #[error(
        "--thaw: the {what} is {} packed, and unpacked more than {}, which is all the room in /run and memory there is \
         for it; leave --thaw out, free some (`nextkernel unstage`), or enlarge /run (mount -o remount,size=SIZE /run)",
        Size(*.packed), Size(*.most)
    )]
    Outgrows {
        /// Kernel or initrd.
        what: &'static str,
        /// Its size before.
        packed: u64,
        /// The room, in bytes.
        most: u64,
    },
    /// Thawing fails.
    #[error("--thaw: the {what} is not thawed: {why}; leave --thaw out")]
    Thaw {
        /// Kernel or initrd.
        what: &'static str,
        /// Why.
        why: why::Why,
    },
    /// It is more than can be loaded.
    #[error("{0}")]
    TooLarge(String),
    /// It cannot be loaded by segments.
    #[error(transparent)]
    Prepare(#[from] parts::Error),
    /// More than a plan holds.
    #[error(
        "the kernel cannot be loaded by segments: it takes more segments than kexec_load; stage with --loader verified"
    )]
    TooMany,
}

/// The sizes of what is to be made, in bytes, as far as the files tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The kernel's copy.
    pub kernel: u64,
    /// The initrd's.
    pub initrd: u64,
    /// The thawed kernel, where it is to be thawed; at most that much.
    pub thawed: Option<u64>,
    /// Memory that the kernel takes once it is loaded.
    pub takes: u64,
    /// Whether the initrd is written a second time.
    pub initrd_twice: bool,
    /// What loads it.
    loader: Loader,
}

impl Order<'_> {
    /// Its sizes. A packed initrd is taken to stay as large as it is: most do not tell.
    pub fn sizes(&self) -> Result<Sizes, images::Error> {
        let initrd = images::initrd_size(self.initrds, self.extra)?;
        let (kernel, header) = (self.kernel.unpacked_size()?, self.kernel.header());
        let takes = header.takes(kernel);
        let thawed = Some(takes).filter(|_| self.thaws_kernel && matches!(header, Header::Bz(_)));
        let initrd_twice = self.thaws_initrd && initrd > 0;
        Ok(Sizes { kernel, initrd, thawed, takes, initrd_twice, loader: self.loader })
    }
}

impl Sizes {
    /// Room in /run that making it takes, at its fullest.
    #[must_use]
    pub fn room(&self) -> u64 {
        let staged = self.thawed.unwrap_or(self.kernel);
        let thawing = self.thawed.map_or(0, |thawed| thawed.saturating_add(self.kernel));
        let initrd = if self.initrd_twice { self.initrd.saturating_mul(2) } else { self.initrd };
        staged.saturating_add(initrd).max(thawing).saturating_add(SPARE)
    }

    /// Memory that the segments take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.takes.saturating_add(self.initrd)
    }

    /// Memory that a load takes: the verified loader reads the files whole before it fills the segments
    /// (`kimage_file_alloc_init`, `kernel/kexec_file.c`), the direct one is shown them.
    #[must_use]
    pub fn to_load(&self) -> u64 {
        let read = match self.loader {
            Loader::Verified => self.kernel.saturating_add(self.initrd),
            Loader::Direct => 0,
        };
        self.memory().saturating_add(read)
    }
}

/// What was made.
pub struct Made {
    /// The kernel.
    pub kernel: images::Kernel,
    /// The initrd.
    pub initrd: Option<File>,
    /// What the direct loader takes beside them, where that is to load it.
    pub direct: Option<Beside>,
    /// What a person should know of it.
    pub notes: Vec<String>,
    thawed: Option<Thawed>,
}

impl Made {
    /// Has the direct loader load it elsewhere: these ranges are left alone as far as that can be, the worst first. If that
    /// fails nothing changes.
    pub fn move_away(&mut self, place: Place<'_>, order: &Order<'_>, avoided: &[Range]) -> Result<(), Error> {
        let files = (&self.kernel.copy, self.initrd.as_ref());
        self.direct = Some(beside(place, order, files, self.thawed.as_ref(), avoided)?);
        Ok(())
    }

    /// Memory that a load takes, as [`Sizes::to_load`].
    #[must_use]
    pub fn to_load(&self) -> u64 {
        let verified = || refusal::Image::of(&self.kernel.copy, self.initrd.as_ref(), 0).to_load();
        self.direct.as_ref().map_or_else(verified, Beside::memory)
    }
}

/// What the direct loader takes beside kernel and initrd.
pub struct Beside {
    /// The file of the set.
    pub parameters: File,
    prepared: Prepared,
}

impl Beside {
    /// As a plan says it.
    pub fn plan<'a>(&self, parameters: Image<'a>) -> Result<Direct<'a>, Error> {
        let Prepared { start, segments, cmdline, seeds, .. } = &self.prepared;
        Ok(Direct {
            parameters,
            start: *start,
            segments: list(segments)?,
            cmdline: *cmdline,
            seeds: list(seeds)?,
        })
    }

    /// What goes where.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        self.prepared.segments.iter().copied()
    }

    /// Memory that the segments take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        Segment::memory(self.segments())
    }
}

fn list<T: Copy, const N: usize>(items: &[T]) -> Result<List<T, N>, Error> {
    let mut list = List::new();
    for item in items {
        list.push(*item).map_err(|_| Error::TooMany)?;
    }
    Ok(list)
}

/// Where it is made.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The system.
    pub root: &'a Root,
    /// The folder.
    pub folder: &'a Folder,
    /// The set.
    pub set: &'a NewSet,
}

impl Place<'_> {
    /// Bytes that can still be written, and be had without killing anything.
    fn left(&self) -> Result<u64, directory::Error> {
        let available = memory::available(self.root).unwrap_or(u64::MAX);
        Ok(self.folder.room()?.min(available).saturating_sub(SPARE))
    }
}

/// Makes it; `between` is asked between two steps whether to go on.
pub fn make<E: From<Error>>(
    place: Place<'_>,
    order: &Order<'_>,
    between: impl Fn() -> Result<(), E>,
) -> Result<Made, E> {
    let mut notes = Vec::new();
    let (kernel, thawed) = kernel(place, order, &mut notes)?;
    between()?;
    let initrd = initrd(place, order, &mut notes)?;
    between()?;
    let loader = if order.thaws_kernel && thawed.is_none() { order.unthawed } else { order.loader };
    let direct = match loader {
        Loader::Direct => {
            let files = (&kernel.copy, initrd.as_ref());
            Some(beside(place, order, files, thawed.as_ref(), &[])?)
        }
        Loader::Verified => None,
    };
    notes.extend(direct.iter().flat_map(|direct| direct.prepared.notes.clone()));
    Ok(Made { kernel, initrd, direct, notes, thawed })
}

/// Copies the kernel, and thaws it. One that cannot be thawed is staged as it is.
fn kernel(
    place: Place<'_>,
    order: &Order<'_>,
    notes: &mut Vec<String>,
) -> Result<(images::Kernel, Option<Thawed>), Error> {
    let for_initrd = images::initrd_size(order.initrds, order.extra)?;
    let staged = images::kernel(place.set, order.kernel, place.left()?.saturating_sub(for_initrd))?;
    staged.see_that_it_is_whole(order.kernel, !order.thaws_kernel)?;
    if !order.thaws_kernel {
        return Ok((staged, None));
    }
    place.set.rename("kernel", FROZEN)?;
    let (path, copy) = place.set.create("kernel")?;
    let most = place.left()?.saturating_sub(for_initrd);
    let asked = Asked { root: place.root, cmdline: order.line, most };
    match decompress::kernel(&staged.copy, &copy, &asked) {
        Ok(thawed) => {
            drop(copy);
            place.set.remove(FROZEN)?;
            let copy = File::open(&path).map_err(|error| images::Error::Unwritable { path, error })?;
            notes.push(grown("kernel", size(&staged.copy), size(&copy)));
            Ok((images::Kernel::made(copy), Some(thawed)))
        }
        Err(why::Why::NoRoom) => Err(Error::Outgrows { what: "kernel", packed: size(&staged.copy), most }),
        Err(why @ why::Why::Unfit(_)) => {
            // Where it was not unpacked, or not to its end, it is now.
            staged.see_that_it_is_whole(order.kernel, true)?;
            notes.push(format!("--thaw: the kernel is staged as it is: {why}"));
            place.set.rename(FROZEN, "kernel")?;
            Ok((staged, None))
        }
        Err(why) => Err(Error::Thaw { what: "kernel", why }),
    }
}

/// Joins the initrds, and thaws what comes out.
fn initrd(place: Place<'_>, order: &Order<'_>, notes: &mut Vec<String>) -> Result<Option<File>, Error> {
    let joined = match images::initrd(place.root, place.set, order.initrds, order.extra)? {
        Some(joined) if order.thaws_initrd => joined,
        joined => {
            joined.iter().try_for_each(images::Joined::see_that_it_is_whole)?;
            return Ok(joined.map(|joined| joined.copy));
        }
    };
    place.set.rename("initrd", FROZEN)?;
    let (path, copy) = place.set.create("initrd")?;
    let most = place.left()?;
    let thawed = match decompress::initrd(&joined.copy, &copy, most) {
        Ok(thawed) => thawed,
        Err(why::Why::NoRoom) => {
            return Err(Error::Outgrows { what: "initrd", packed: size(&joined.copy), most });
        }
        Err(why::Why::Damaged { at, why }) => return Err(joined.is_damaged(at, why).into()),
        Err(why) => return Err(Error::Thaw { what: "initrd", why }),
    };
    drop(copy);
    place.set.remove(FROZEN)?;
    if thawed.thawed > 0 {
        notes.push(grown("initrd", size(&joined.copy), thawed.size));
    }
    if thawed.is_disk {
        notes.push("--thaw: the initrd is a disk, and stays as it is".to_owned());
    }
    Ok(Some(File::open(&path).map_err(|error| images::Error::Unwritable { path, error })?))
}

fn grown(what: &str, packed: u64, thawed: u64) -> String {
    format!(
        "the {what} is thawed: {} are {} now, in /run and again when it is loaded",
        Size(packed),
        Size(thawed)
    )
}

/// Prepares the load, and writes what the next kernel is told into the set.
fn beside(
    place: Place<'_>,
    order: &Order<'_>,
    (kernel, initrd): (&File, Option<&File>),
    thawed: Option<&Thawed>,
    avoided: &[Range],
) -> Result<Beside, Error> {
    let cmdline_room = order.line.len() + limits::RECORD_MAX + 1;
    let prepared = prepare::segments(&Parts {
        root: place.root,
        kernel,
        thawed,
        initrd,
        cmdline: order.line,
        cmdline_room: cmdline_room as u64,
        avoided,
    });
    let prepared = prepared.map_err(|error| match error {
        parts::Error::TooLarge(why) if order.thaws_kernel => {
            Error::TooLarge(format!("{why}, or leave --thaw out"))
        }
        error => Error::Prepare(error),
    })?;
    // Beside one that may be there already.
    let (path, mut file) = place.set.create(WRITTEN)?;
    let written = file.write_all(&prepared.parameters);
    drop(file);
    let parameters = written.and_then(|()| File::open(&path));
    let parameters = parameters.map_err(|error| directory::Error::Io { path, error });
    let parameters = parameters.inspect_err(|_| {
        let _ = place.set.remove(WRITTEN);
    })?;
    place.set.rename(WRITTEN, "parameters")?;
    Ok(Beside { parameters, prepared })
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use nextkernel_plan::{Area, HandoffId, Part, Segment};
    use std::fs;
    use std::path::Path;

    /// A whole archive of one empty file's worth, and as somebody compresses it.
    fn archive() -> (Vec<u8>, Vec<u8>) {
        let mut archive = Vec::new();
        crate::image::cpio::end(&mut archive).unwrap();
        archive.resize(8192, 0);
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&archive).unwrap();
        (archive, packed.finish().unwrap())
    }

    /// What is made of a kernel that is none and this initrd; and the names and sizes in the set.
    fn made(scratch: &Scratch, change: impl Fn(&mut Order<'_>)) -> (Result<Made, Error>, Vec<(String, u64)>) {
        scratch.put("/dev/urandom", "12345678");
        scratch.put("/k", "kernel");
        fs::write(scratch.root.path("/i"), archive().1).unwrap();
        let open = |what, path: &str| Source::open(&scratch.root, what, &Path::new(path).into()).unwrap();
        let (kernel, initrds, extra) = (open("kernel", "/k"), [open("initrd", "/i")], Extra::default());
        let mut order = Order {
            kernel: &kernel,
            initrds: &initrds,
            extra: &extra,
            line: "root=x",
            loader: Loader::Verified,
            unthawed: Loader::Verified,
            thaws_kernel: false,
            thaws_initrd: true,
        };
        change(&mut order);
        let folder = Folder::open(&scratch.root).unwrap();
        let set = folder.new_set(HandoffId(1)).unwrap();
        let made = make(Place { root: &scratch.root, folder: &folder, set: &set }, &order, || Ok(()));
        let files = fs::read_dir(folder.path("0000000000000001")).unwrap().map(|file| {
            let file = file.unwrap();
            (file.file_name().to_string_lossy().into_owned(), file.metadata().unwrap().len())
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        (made, files)
    }

    #[test]
    fn an_initrd_is_thawed_in_its_place_and_how_much_it_grew_is_told() {
        let scratch = Scratch::new();
        let (made, files) = made(&scratch, |_| {});
        let made = made.unwrap();
        assert_eq!(files, [("initrd".to_owned(), 8192), ("kernel".to_owned(), 6)]);
        assert_eq!(size(made.initrd.as_ref().unwrap()), 8192);
        assert!(
            matches!(made.notes.as_slice(), [note] if note.starts_with("the initrd is thawed: ")
            && note.contains("are 8192 bytes now")),
            "{:?}",
            made.notes
        );
    }

    #[test]
    fn a_kernel_that_cannot_be_thawed_is_staged_as_it_is_for_the_loader_that_is_left() {
        let scratch = Scratch::new();
        let (made, files) = made(&scratch, |order| {
            (order.loader, order.thaws_kernel, order.thaws_initrd) = (Loader::Direct, true, false);
        });
        let made = made.unwrap();
        assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["initrd", "kernel"]);
        assert!(made.direct.is_none());
        assert_eq!(
            fs::read_to_string(scratch.root.path("/k")).unwrap().len() as u64,
            size(&made.kernel.copy)
        );
        assert!(matches!(made.notes.as_slice(), [note] if note.contains("the kernel is staged as it is: ")));
    }

    #[test]
    fn what_outgrows_room_or_memory_is_told_with_both_sizes() {
        let scratch = Scratch::new();
        scratch.put("/proc/meminfo", "MemAvailable: 1028 kB\n");
        let (made, _) = made(&scratch, |_| {});
        let why = made.err().unwrap().to_string();
        assert!(why.contains("the initrd is ") && why.contains("unpacked more than 4096 bytes"), "{why}");
    }

    #[test]
    fn what_is_thawed_takes_room_for_both_until_the_other_goes() {
        let sizes = Sizes {
            kernel: 10,
            initrd: 40,
            thawed: None,
            takes: 60,
            initrd_twice: false,
            loader: Loader::Verified,
        };
        assert_eq!((sizes.room() - SPARE, sizes.memory(), sizes.to_load()), (50, 100, 150));
        let thawed = Sizes { thawed: Some(60), initrd_twice: true, loader: Loader::Direct, ..sizes };
        assert_eq!((thawed.room() - SPARE, thawed.to_load()), (140, 100));
        let alone = Sizes { initrd: 0, initrd_twice: false, ..thawed };
        assert_eq!(alone.room() - SPARE, 70);
    }

    #[test]
    fn what_is_prepared_is_said_in_the_plan_unless_it_is_more_than_a_plan_holds() {
        let parameters = Image { name: "p", size: 9, stamp: None };
        let area = Area { offset: 0, size: 9 };
        let segment = Segment { part: Part::Parameters, bytes: area, at: 4096, takes: 4096 };
        let beside = |count: usize| Beside {
            parameters: File::open("/dev/null").unwrap(),
            prepared: Prepared {
                parameters: Vec::new(),
                start: 7,
                segments: vec![segment; count],
                cmdline: area,
                seeds: vec![area],
                notes: Vec::new(),
            },
        };
        let direct = beside(2).plan(parameters).unwrap();
        assert_eq!((direct.start, direct.segments.iter().count(), direct.seeds.iter().count()), (7, 2, 1));
        assert_eq!(beside(2).memory(), 8192);
        assert!(matches!(beside(limits::SEGMENTS_MAX + 1).plan(parameters), Err(Error::TooMany)));
    }
}
