//! The files of an image set: an entry's kernel and its joined initrds, copied or decompressed, and the
//! parameters that a load with `kexec_load` takes in addition.

use std::fs::File;
use std::io::Write;

use nextkernel_plan::{Direct, Image, List, Segment, limits};
use thiserror::Error;

use crate::image::header::Header;
use crate::loading::decompress::failure::Failure;
use crate::loading::decompress::{self, Asked, Decompressed};
use crate::loading::prepare::parts::{self, Parts, Prepared};
use crate::loading::prepare::range::Range;
use crate::loading::prepare::{self};
use crate::loading::refusal;
use crate::loading::syscall::Syscall;
use crate::machine::memory;
use crate::machine::root::Root;
use crate::staging::directory::{self, Folder, NewSet};
use crate::staging::extra::Extra;
use crate::staging::images::{self, Source};
use crate::words::size::Size;

/// Room in /run for everything but images: the plan, the parameters for `kexec_load`, and what others write there
/// during staging.
pub const SPARE: u64 = 1 << 20;

/// Temporary name of a file that is being decompressed; the file is removed afterwards.
const FROZEN: &str = "frozen";

/// Temporary name of the parameters until they are written.
const WRITTEN: &str = "written";

/// The order for an image set.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The kernel's file.
    pub kernel: &'a Source,
    /// The initrds, which are joined in this order.
    pub initrds: &'a [Source],
    /// Files that are added to them.
    pub extra: &'a Extra,
    /// The next kernel's command line.
    pub line: &'a str,
    /// The syscall that loads the set.
    pub loader: Syscall,
    /// The syscall that loads the set if the kernel cannot be decompressed.
    pub unthawed: Syscall,
    /// Whether to decompress the kernel.
    pub thaws_kernel: bool,
    /// Whether to decompress the initrd.
    pub thaws_initrd: bool,
}

/// The reason why the set is not made.
#[derive(Debug, Error)]
pub enum Error {
    /// An image cannot be copied.
    #[error(transparent)]
    Image(#[from] images::Error),
    /// A file in /run/nextkernel cannot be read or written.
    #[error(transparent)]
    Folder(#[from] directory::Error),
    /// The decompressed image does not fit into memory or /run.
    #[error(
        "--thaw: the {what} is {} packed, and unpacked more than {}, which is all the room in /run and memory there is \
         for it; leave --thaw out, free some (`nextkernel unstage`), or enlarge /run (mount -o remount,size=SIZE /run)",
        Size(*.packed), Size(*.most)
    )]
    Outgrows {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The compressed size in bytes.
        packed: u64,
        /// The room in bytes.
        most: u64,
    },
    /// Decompression fails.
    #[error("--thaw: the {what} is not thawed: {why}; leave --thaw out")]
    Thaw {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// The reason.
        why: Failure,
    },
    /// The image is larger than any that the kernel loads.
    #[error("{0}")]
    TooLarge(String),
    /// The image cannot be loaded by segments.
    #[error(transparent)]
    Prepare(#[from] parts::Error),
    /// The load takes more segments than a plan holds.
    #[error(
        "the kernel cannot be loaded by segments: it takes more segments than kexec_load; stage with --loader verified"
    )]
    TooMany,
}

/// The sizes of the files to be made, in bytes, as far as the originals tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Size of the kernel's copy.
    pub kernel: u64,
    /// Size of the joined initrd.
    pub initrd: u64,
    /// Upper bound of the decompressed kernel's size, if it is to be decompressed.
    pub thawed: Option<u64>,
    /// Memory that the kernel takes once it is loaded.
    pub takes: u64,
    /// Whether the initrd is written a second time, decompressed.
    pub initrd_twice: bool,
    /// The syscall that loads the set.
    loader: Syscall,
}

impl Order<'_> {
    /// Computes the sizes. A compressed initrd counts with its compressed size, because most do not state the
    /// other.
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
    /// Returns the room in /run that making the set takes at its peak.
    #[must_use]
    pub fn room(&self) -> u64 {
        let staged = self.thawed.unwrap_or(self.kernel);
        let thawing = self.thawed.map_or(0, |thawed| thawed.saturating_add(self.kernel));
        let initrd = if self.initrd_twice { self.initrd.saturating_mul(2) } else { self.initrd };
        staged.saturating_add(initrd).max(thawing).saturating_add(SPARE)
    }

    /// Returns the memory that the segments take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.takes.saturating_add(self.initrd)
    }

    /// Returns the memory that a load takes. `kexec_file_load` reads the files whole before it fills the segments
    /// (`kimage_file_alloc_init`, `kernel/kexec_file.c`); `kexec_load` copies from mapped files.
    #[must_use]
    pub fn to_load(&self) -> u64 {
        let read = match self.loader {
            Syscall::FileLoad => self.kernel.saturating_add(self.initrd),
            Syscall::SegmentLoad => 0,
        };
        self.memory().saturating_add(read)
    }
}

/// The set that was made.
pub struct Made {
    /// The kernel.
    pub kernel: images::Kernel,
    /// The initrd, if there is one.
    pub initrd: Option<File>,
    /// The parameters for `kexec_load`, if that syscall is to load the set.
    pub direct: Option<Beside>,
    /// Notes for the user.
    pub notes: Vec<String>,
    thawed: Option<Decompressed>,
}

impl Made {
    /// Prepares the load by segments again, so that it avoids these ranges as far as possible, the worst first.
    /// Changes nothing if that fails.
    pub fn move_away(&mut self, place: Place<'_>, order: &Order<'_>, avoided: &[Range]) -> Result<(), Error> {
        let files = (&self.kernel.copy, self.initrd.as_ref());
        self.direct = Some(beside(place, order, files, self.thawed.as_ref(), avoided)?);
        Ok(())
    }

    /// Returns the memory that a load takes, as [`Sizes::to_load`] does.
    #[must_use]
    pub fn to_load(&self) -> u64 {
        let verified = || refusal::Image::of(&self.kernel.copy, self.initrd.as_ref(), 0).to_load();
        self.direct.as_ref().map_or_else(verified, Beside::memory)
    }
}

/// The parameters that `kexec_load` takes in addition to kernel and initrd.
pub struct Beside {
    /// The file of the set.
    pub parameters: File,
    prepared: Prepared,
}

impl Beside {
    /// Returns the plan's description of the load. Fails if there are more segments than a plan holds.
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

    /// Returns the segments: which bytes go where.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        self.prepared.segments.iter().copied()
    }

    /// Returns the memory that the segments take.
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

/// The place where the set is made.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The root of the system.
    pub root: &'a Root,
    /// /run/nextkernel, locked.
    pub folder: &'a Folder,
    /// The new set.
    pub set: &'a NewSet,
}

impl Place<'_> {
    /// Returns how many bytes can still be written, limited by the memory that is available without killing
    /// anything.
    fn left(&self) -> Result<u64, directory::Error> {
        let available = memory::available(self.root).unwrap_or(u64::MAX);
        Ok(self.folder.room()?.min(available).saturating_sub(SPARE))
    }
}

/// Makes the set. `between` is called between two steps, and decides whether to go on.
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
        Syscall::SegmentLoad => {
            let files = (&kernel.copy, initrd.as_ref());
            Some(beside(place, order, files, thawed.as_ref(), &[])?)
        }
        Syscall::FileLoad => None,
    };
    notes.extend(direct.iter().flat_map(|direct| direct.prepared.notes.clone()));
    Ok(Made { kernel, initrd, direct, notes, thawed })
}

/// Copies the kernel, and decompresses it if requested. A kernel that cannot be decompressed is staged as it
/// is.
fn kernel(
    place: Place<'_>,
    order: &Order<'_>,
    notes: &mut Vec<String>,
) -> Result<(images::Kernel, Option<Decompressed>), Error> {
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
        Err(Failure::NoRoom) => Err(Error::Outgrows { what: "kernel", packed: size(&staged.copy), most }),
        Err(why @ Failure::Unfit(_)) => {
            // Decompression did not check the payload to its end, so check it now.
            staged.see_that_it_is_whole(order.kernel, true)?;
            notes.push(format!("--thaw: the kernel is staged as it is: {why}"));
            place.set.rename(FROZEN, "kernel")?;
            Ok((staged, None))
        }
        Err(why) => Err(Error::Thaw { what: "kernel", why }),
    }
}

/// Joins the initrds, and decompresses the result if requested.
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
        Err(Failure::NoRoom) => {
            return Err(Error::Outgrows { what: "initrd", packed: size(&joined.copy), most });
        }
        Err(Failure::Damaged { at, why }) => return Err(joined.is_damaged(at, why).into()),
        Err(why) => return Err(Error::Thaw { what: "initrd", why }),
    };
    drop(copy);
    place.set.remove(FROZEN)?;
    if thawed.decompressed > 0 {
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

/// Prepares a load with `kexec_load`, and writes the parameters for the next kernel into the set.
fn beside(
    place: Place<'_>,
    order: &Order<'_>,
    (kernel, initrd): (&File, Option<&File>),
    thawed: Option<&Decompressed>,
    avoided: &[Range],
) -> Result<Beside, Error> {
    let cmdline_room = order.line.len() + limits::RECORD_MAX + 1;
    let prepared = prepare::segments(&Parts {
        root: place.root,
        kernel,
        decompressed: thawed,
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
    // The name is temporary because a file of parameters may already exist.
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

    /// Returns an archive without members, padded to 8192 bytes, and the same compressed.
    fn archive() -> (Vec<u8>, Vec<u8>) {
        let mut archive = Vec::new();
        crate::image::cpio::end(&mut archive).unwrap();
        archive.resize(8192, 0);
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&archive).unwrap();
        (archive, packed.finish().unwrap())
    }

    /// Makes a set from a file that is no kernel and from this initrd. Returns the result, and the names and
    /// sizes in the set.
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
            loader: Syscall::FileLoad,
            unthawed: Syscall::FileLoad,
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
            (order.loader, order.thaws_kernel, order.thaws_initrd) = (Syscall::SegmentLoad, true, false);
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
            loader: Syscall::FileLoad,
        };
        assert_eq!((sizes.room() - SPARE, sizes.memory(), sizes.to_load()), (50, 100, 150));
        let thawed = Sizes { thawed: Some(60), initrd_twice: true, loader: Syscall::SegmentLoad, ..sizes };
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
