//! The files of an image set: an entry's kernel and its joined initrds, copied or decompressed, and the
//! parameters that a load with `kexec_load` takes in addition.

use std::fs::File;
use std::io::Write;

use nextkernel_plan::{Direct, Image, List, Segment, limits};
use thiserror::Error;

use crate::loading::decompress::failure::Failure;
use crate::loading::decompress::{self, Asked, Decompressed};
use crate::loading::prepare;
use crate::loading::prepare::parts::{self, Parts, Prepared};
use crate::loading::prepare::range::Range;
use crate::loading::refusal;
use crate::loading::syscall::Syscall;
use crate::machine::memory;
use crate::machine::root::Root;
use crate::staging::contents::{Contents, SPARE};
use crate::staging::copy;
use crate::staging::directory::{self, Directory, NewSet};
use crate::staging::source;
use crate::words::size::Size;

/// Temporary name of a file that is being decompressed; the file is removed afterwards.
const COMPRESSED: &str = "frozen";

/// Temporary name of the parameters until they are written.
const WRITTEN: &str = "written";

/// The reason why the set is not made.
#[derive(Debug, Error)]
pub enum Error {
    /// An image cannot be copied.
    #[error(transparent)]
    Image(#[from] source::Error),
    /// A file in /run/nextkernel cannot be read or written.
    #[error(transparent)]
    Directory(#[from] directory::Error),
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
    Decompress {
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

/// The set that was made.
pub struct Made {
    /// The kernel.
    pub kernel: copy::Kernel,
    /// The initrd, if there is one.
    pub initrd: Option<File>,
    /// The parameters for `kexec_load`, if that syscall is to load the set.
    pub direct: Option<Beside>,
    /// Notes for the user.
    pub notes: Vec<String>,
    decompressed: Option<Decompressed>,
}

impl Made {
    /// Prepares the load by segments again, so that it avoids these ranges as far as possible, the worst first.
    /// Changes nothing if that fails.
    pub fn move_away(
        &mut self,
        place: Place<'_>,
        contents: &Contents,
        avoided: &[Range],
    ) -> Result<(), Error> {
        let files = (&self.kernel.copy, self.initrd.as_ref());
        self.direct = Some(beside(place, contents, files, self.decompressed.as_ref(), avoided)?);
        Ok(())
    }

    /// Returns the memory that a load takes, as `Sizes::to_load` does.
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
    pub directory: &'a Directory,
    /// The new set.
    pub set: &'a NewSet,
}

impl Place<'_> {
    /// Returns how many bytes can still be written, limited by the memory that is available without killing
    /// anything.
    fn left(&self) -> Result<u64, directory::Error> {
        let available = memory::available(self.root).unwrap_or(u64::MAX);
        Ok(self.directory.room()?.min(available).saturating_sub(SPARE))
    }
}

/// Makes the set. `between` is called between two steps, and decides whether to go on. `for_initrd` is the size of
/// the joined initrd, in bytes.
pub fn make<E: From<Error>>(
    place: Place<'_>,
    contents: &Contents,
    for_initrd: u64,
    between: impl Fn() -> Result<(), E>,
) -> Result<Made, E> {
    let mut notes = Vec::new();
    let (kernel, decompressed) = kernel(place, contents, for_initrd, &mut notes)?;
    between()?;
    let initrd = initrd(place, contents, &mut notes)?;
    between()?;
    let loader = if contents.decompresses_kernel && decompressed.is_none() {
        contents.if_compressed
    } else {
        contents.loader
    };
    let direct = match loader {
        Syscall::SegmentLoad => {
            let files = (&kernel.copy, initrd.as_ref());
            Some(beside(place, contents, files, decompressed.as_ref(), &[])?)
        }
        Syscall::FileLoad => None,
    };
    notes.extend(direct.iter().flat_map(|direct| direct.prepared.notes.clone()));
    Ok(Made { kernel, initrd, direct, notes, decompressed })
}

/// Copies the kernel, and decompresses it if requested. A kernel that cannot be decompressed is staged as it
/// is.
fn kernel(
    place: Place<'_>,
    contents: &Contents,
    for_initrd: u64,
    notes: &mut Vec<String>,
) -> Result<(copy::Kernel, Option<Decompressed>), Error> {
    let staged = copy::kernel(place.set, &contents.kernel, place.left()?.saturating_sub(for_initrd))?;
    staged.see_that_it_is_whole(&contents.kernel, !contents.decompresses_kernel)?;
    if !contents.decompresses_kernel {
        return Ok((staged, None));
    }
    place.set.rename("kernel", COMPRESSED)?;
    let (path, copy) = place.set.create("kernel")?;
    let most = place.left()?.saturating_sub(for_initrd);
    let asked = Asked { root: place.root, cmdline: contents.line.as_str(), most };
    match decompress::kernel(&staged.copy, &copy, &asked) {
        Ok(decompressed) => {
            drop(copy);
            place.set.remove(COMPRESSED)?;
            let copy = File::open(&path).map_err(|error| source::Error::Unwritable { path, error })?;
            notes.push(grown("kernel", size(&staged.copy), size(&copy)));
            Ok((copy::Kernel::made(copy), Some(decompressed)))
        }
        Err(Failure::NoRoom) => Err(Error::Outgrows { what: "kernel", packed: size(&staged.copy), most }),
        Err(why @ Failure::Unfit(_)) => {
            // Decompression did not check the payload to its end, so check it now.
            staged.see_that_it_is_whole(&contents.kernel, true)?;
            notes.push(format!("--thaw: the kernel is staged as it is: {why}"));
            place.set.rename(COMPRESSED, "kernel")?;
            Ok((staged, None))
        }
        Err(why) => Err(Error::Decompress { what: "kernel", why }),
    }
}

/// Joins the initrds, and decompresses the result if requested.
fn initrd(place: Place<'_>, contents: &Contents, notes: &mut Vec<String>) -> Result<Option<File>, Error> {
    let joined = match copy::initrd(place.root, place.set, &contents.initrds, &contents.extra)? {
        Some(joined) if contents.decompresses_initrd => joined,
        joined => {
            joined.iter().try_for_each(copy::Joined::see_that_it_is_whole)?;
            return Ok(joined.map(|joined| joined.copy));
        }
    };
    place.set.rename("initrd", COMPRESSED)?;
    let (path, copy) = place.set.create("initrd")?;
    let most = place.left()?;
    let decompressed = match decompress::initrd(&joined.copy, &copy, most) {
        Ok(decompressed) => decompressed,
        Err(Failure::NoRoom) => {
            return Err(Error::Outgrows { what: "initrd", packed: size(&joined.copy), most });
        }
        Err(Failure::Damaged { at, why }) => return Err(joined.is_damaged(at, why).into()),
        Err(why) => return Err(Error::Decompress { what: "initrd", why }),
    };
    drop(copy);
    place.set.remove(COMPRESSED)?;
    if decompressed.decompressed > 0 {
        notes.push(grown("initrd", size(&joined.copy), decompressed.size));
    }
    if decompressed.is_disk {
        notes.push("--thaw: the initrd is a disk, and stays as it is".to_owned());
    }
    Ok(Some(File::open(&path).map_err(|error| source::Error::Unwritable { path, error })?))
}

fn grown(what: &str, packed: u64, decompressed: u64) -> String {
    format!(
        "the {what} is thawed: {} are {} now, in /run and again when it is loaded",
        Size(packed),
        Size(decompressed)
    )
}

/// Prepares a load with `kexec_load`, and writes the parameters for the next kernel into the set.
fn beside(
    place: Place<'_>,
    contents: &Contents,
    (kernel, initrd): (&File, Option<&File>),
    decompressed: Option<&Decompressed>,
    avoided: &[Range],
) -> Result<Beside, Error> {
    let cmdline_room = contents.line.as_str().len() + limits::RECORD_MAX + 1;
    let prepared = prepare::segments(&Parts {
        root: place.root,
        kernel,
        decompressed,
        initrd,
        cmdline: contents.line.as_str(),
        cmdline_room: cmdline_room as u64,
        avoided,
    });
    let prepared = prepared.map_err(|error| match error {
        parts::Error::TooLarge(why) if contents.decompresses_kernel => {
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
    use crate::image::cmdline::Line;
    use crate::machine::scratch::Scratch;
    use crate::staging::extra::Extra;
    use crate::staging::source::Source;
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
    fn made(scratch: &Scratch, change: impl Fn(&mut Contents)) -> (Result<Made, Error>, Vec<(String, u64)>) {
        scratch.put("/dev/urandom", "12345678");
        scratch.put("/k", "kernel");
        fs::write(scratch.root.path("/i"), archive().1).unwrap();
        let open = |what, path: &str| Source::open(&scratch.root, what, &Path::new(path).into()).unwrap();
        let mut contents = Contents {
            kernel: open("kernel", "/k"),
            initrds: vec![open("initrd", "/i")],
            extra: Extra::default(),
            line: Line::new("root=x").unwrap(),
            loader: Syscall::FileLoad,
            if_compressed: Syscall::FileLoad,
            decompresses_kernel: false,
            decompresses_initrd: true,
        };
        change(&mut contents);
        let directory = Directory::open(&scratch.root).unwrap();
        let set = directory.new_set(HandoffId(1)).unwrap();
        let place = Place { root: &scratch.root, directory: &directory, set: &set };
        let made = make(place, &contents, contents.sizes().unwrap().initrd, || Ok(()));
        let files = fs::read_dir(directory.path("0000000000000001")).unwrap().map(|file| {
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
        let (made, files) = made(&scratch, |contents| {
            (contents.loader, contents.decompresses_kernel, contents.decompresses_initrd) =
                (Syscall::SegmentLoad, true, false);
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
