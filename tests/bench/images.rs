//! Images to hand over to: Debian's kernel, and initrds of real size whose /init reports its start.

use bed::host::paths::vm_directory;
use bed::host::scratch::Scratch;
use bed::host::{command, programs};
use bed::image::{self, Image};
use bed::initramfs::cpio::Cpio;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file to hand over, as it is and decompressed.
pub struct Pair {
    /// The file as Debian makes it.
    pub packed: PathBuf,
    /// The decompressed content.
    pub plain: PathBuf,
}

/// All images.
pub struct Images {
    /// Directory with all of them.
    pub directory: PathBuf,
    /// bzImage, and the ELF file in it.
    pub kernel: Pair,
    /// Initrd of some 40 MB.
    pub small: Pair,
    /// The same initrd with Debian's own /init, which boots a whole Debian.
    pub debians: Pair,
    /// Initrd of some 200 MB.
    pub large: Pair,
}

/// Header fields with the place of a bzImage's payload (Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Magic number of Debian's compression of kernel and initrd (RFC 8878, 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

impl Images {
    /// Makes the images if they do not exist yet: some three minutes, with packages from Debian's mirror.
    pub fn make() -> Result<Images, String> {
        let files = Image::Debian13.files()?;
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/initrds");
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(image::hash(include_bytes!("images.rs"), &recipe)?);
        include_bytes!("../arrived.c").hash(&mut hasher);
        let directory = files.made(&format!("bench-{:016x}", hasher.finish()));
        let pair =
            |packed: &str, plain: &str| Pair { packed: directory.join(packed), plain: directory.join(plain) };
        let images = Images {
            directory: directory.clone(),
            kernel: pair("vmlinuz", "vmlinux"),
            small: pair("small.img", "small.cpio"),
            debians: pair("debians.img", "debians.cpio"),
            large: pair("large.img", "large.cpio"),
        };
        if directory.exists() {
            return Ok(images);
        }
        eprintln!("bench: no images yet: making them (three minutes)");
        let part = vm_directory().join("bench.part");
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&part))?;
        fs::create_dir_all(&part).map_err(|e| format!("{}: {e}", part.display()))?;
        let tree = part.join("tree");
        command::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(files.builder()).arg(&tree))?;
        let script = fs::read_to_string(&recipe).map_err(|e| format!("{}: {e}", recipe.display()))?;
        command::run(
            Command::new("unshare").arg("--mount").arg("chroot").arg(&tree).args(["sh", "-c", &script]),
        )?;
        let last = our_init()?;
        for (name, from, last) in
            [("small", "small", &last[..]), ("debians", "small", &[]), ("large", "large", &last)]
        {
            let (packed, plain) = initrds(&read(&tree.join(format!("{from}.img")))?, last, &tree)?;
            write(&part.join(format!("{name}.img")), &packed)?;
            write(&part.join(format!("{name}.cpio")), &plain)?;
        }
        let kernel = read(&files.kernel())?;
        write(&part.join("vmlinux"), &unpacked(payload(&kernel)?, &tree)?)?;
        write(&part.join("vmlinuz"), &kernel)?;
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&tree))?;
        fs::rename(&part, &directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        Ok(images)
    }
}

/// Returns a file's size in MB.
pub fn megabytes(file: &Path) -> Result<f64, String> {
    #[allow(clippy::cast_precision_loss, reason = "no file is so large")]
    fs::metadata(file).map(|data| data.len() as f64 / 1e6).map_err(|e| format!("{}: {e}", file.display()))
}

/// Returns an archive with an /init that reports its start, in place of Debian's.
fn our_init() -> Result<Vec<u8>, String> {
    let mut archive = Cpio::default();
    archive.device("/dev/console", 5, 1);
    archive.file("/init", 0o755, &programs::arrived()?);
    Ok(archive.finish())
}

/// Returns an initrd of Debian's with this archive at its end, as it is and decompressed.
fn initrds(debians: &[u8], last: &[u8], root: &Path) -> Result<(Vec<u8>, Vec<u8>), String> {
    let end = end_of_plain(debians);
    let (early, rest) = debians.split_at_checked(end).ok_or("no initrd of Debian's")?;
    let joined = |parts: [&[u8]; 3]| {
        let mut all = Vec::new();
        for part in parts {
            all.extend(part);
            // The kernel accepts an archive only at a multiple of four.
            all.resize(all.len().next_multiple_of(4), 0);
        }
        all
    };
    Ok((joined([early, rest, last]), joined([early, &unpacked(rest, root)?, last])))
}

/// Returns the offset at which the uncompressed archives end.
fn end_of_plain(initrd: &[u8]) -> usize {
    let starts = |at: usize, with: &[u8]| initrd.get(at..).is_some_and(|rest| rest.starts_with(with));
    let mut at = 0;
    while starts(at, b"070701") {
        let field = |from: usize| {
            let digits =
                initrd.get(at + from..at + from + 8).and_then(|digits| std::str::from_utf8(digits).ok());
            digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or(0)
        };
        let (size, name) = (field(54), field(94));
        at = (at + 110 + name).next_multiple_of(4) + size.next_multiple_of(4);
        while initrd.get(at) == Some(&0) {
            at += 1;
        }
    }
    at
}

/// Returns the compressed payload of a bzImage.
fn payload(kernel: &[u8]) -> Result<&[u8], String> {
    let number = |at: usize| {
        let bytes: Option<[u8; 4]> = kernel.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
    };
    let sectors = usize::from(kernel.get(SETUP_SECTORS).copied().unwrap_or(0));
    let start = (sectors + 1) * 512 + number(PAYLOAD_OFFSET);
    kernel.get(start..start + number(PAYLOAD_LENGTH)).ok_or_else(|| "Debian's kernel is no bzImage".into())
}

/// Decompresses with the image's zstd.
fn unpacked(bytes: &[u8], root: &Path) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(&ZSTD) {
        return Err("Debian does not compress with zstd any more".into());
    }
    let scratch = Scratch::new()?;
    let (from, packed) = (scratch.path("packed"), root.join("packed"));
    write(&from, bytes)?;
    fs::copy(&from, &packed).map_err(|e| format!("{}: {e}", packed.display()))?;
    // The kernel's payload ends with its size, which is not zstd data: zstd fails there, after writing
    // everything before.
    let script = "zstd -dcq /packed >/plain 2>/packed.errors; test -s /plain";
    command::run(Command::new("chroot").arg(root).args(["sh", "-c", script]))?;
    command::run_bytes(Command::new("cat").arg(root.join("plain")))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}
