//! arm64 guests: a kernel, and an initramfs of Debian's busybox and both programs (`make cross`). PID 1 is a shell
//! that becomes the hook.
//!
//! Debian's own arm64 kernels are built without `CONFIG_KEXEC_FILE` (6.1 to 7.3, the options in their packages), so the
//! one that hands over is built here: from Debian's source, and as small as it works.

use crate::harness::Test;
use crate::image::Image;
use crate::initramfs::{self, Ended, INIT, NEXT_INIT};
use crate::machine::{Architecture, Machine, Scratch, Setup, Starts};
use crate::{built_for, host, host_bytes, vm_folder};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What `make cross` builds for it.
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// Emulated on a busy host.
const LIMIT: Duration = Duration::from_secs(120);

/// Fetches and unpacks packages of another architecture; nothing of them runs.
const FETCH: &str = "mmdebstrap --mode=root --variant=extract --format=directory";

/// The smallest kernel that boots on QEMU's board, runs both programs and loads another one.
const OPTIONS: &str = "\
CONFIG_EXPERT=y
CONFIG_CC_OPTIMIZE_FOR_SIZE=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_PRINTK=y
CONFIG_TTY=y
CONFIG_SERIAL_AMBA_PL011=y
CONFIG_SERIAL_AMBA_PL011_CONSOLE=y
CONFIG_PROC_FS=y
CONFIG_PROC_SYSCTL=y
CONFIG_SYSFS=y
CONFIG_SHMEM=y
CONFIG_TMPFS=y
CONFIG_DEVTMPFS=y
CONFIG_KEXEC_FILE=y
CONFIG_MODULES=y
CONFIG_MODULE_UNLOAD=y
CONFIG_MAGIC_SYSRQ=y
CONFIG_MULTIUSER=y
CONFIG_POSIX_TIMERS=y
CONFIG_HIGH_RES_TIMERS=y
CONFIG_FUTEX=y
CONFIG_EPOLL=y
CONFIG_EVENTFD=y
CONFIG_FILE_LOCKING=y
CONFIG_ADVISE_SYSCALLS=y
CONFIG_BUG=y
";

/// Builds it in `$1`, from the source package unpacked below `$1/source`.
const BUILD: &str = "set -e
    cd \"$1\"
    tar -xf source/usr/src/linux-source-*.tar.xz
    cd linux-source-*
    make='make -s ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-'
    $make KCONFIG_ALLCONFIG=../options allnoconfig
    $make -j2 Image
    cp arch/arm64/boot/Image ../Image
    cd ..
    rm -r source linux-source-*";

/// Whose kernel runs.
pub enum Kernel {
    /// Debian's own, as it is packaged.
    Debian(Image),
    /// The one with a loader.
    Own,
}

/// Where `make cross` has built the programs; where it could not, this says so.
#[must_use]
pub fn built() -> Option<PathBuf> {
    built_for(TARGET)
}

/// Boots `kernel` and runs shell lines as PID 1, and waits for the end. The kernel with a loader is at `/kernel.gz`, an
/// initramfs that says `NEXT KERNEL UP: COMMAND LINE` and powers off at `/next.cpio`.
pub fn run(test: &Test, built: &Path, kernel: &Kernel, scenario: &str) -> Result<Ended, String> {
    let scratch = Scratch::new()?;
    let initrd = scratch.path("initramfs");
    let own = files("arm64-kernel", &[OPTIONS, BUILD], build_own)?.join("Image");
    let trixie = debian(Image::Debian13)?;
    let busybox = read(&trixie.join("busybox"))?;
    let mut cpio = initramfs::with(&busybox, INIT);
    for folder in ["proc", "sys", "run", "tmp"] {
        cpio.folder(folder);
    }
    for program in ["nextkernel", "nextkernel-hook"] {
        cpio.file(&format!("/usr/bin/{program}"), 0o755, &read(&built.join(program))?);
    }
    let mut next = initramfs::with(&busybox, NEXT_INIT);
    next.folder("proc");
    cpio.file("/next.cpio", 0o644, &next.finish());
    cpio.file("/kernel.gz", 0o644, &host_bytes(Command::new("gzip").arg("-1c").arg(&own))?);
    cpio.file("/scenario", 0o644, format!("PATH=/bin:/usr/bin\n{scenario}\n").as_bytes());
    fs::write(&initrd, cpio.finish()).map_err(|e| format!("{}: {e}", initrd.display()))?;
    let kernel = match kernel {
        Kernel::Debian(image) => debian(*image)?.join("vmlinuz"),
        Kernel::Own => own,
    };
    let setup = Setup {
        architecture: Architecture::Arm64,
        starts: Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: "console=ttyAMA0" },
        memory: 512,
        counting: false,
        args: &["-no-reboot".into()],
        log: &test.log(),
    };
    let mut machine = Machine::start(&setup, scratch)?;
    let end = machine.await_end(LIMIT)?;
    Ok(Ended { end, console: machine.console.text(), agent: String::new() })
}

/// Debian's kernel and busybox.
fn debian(image: Image) -> Result<PathBuf, String> {
    let suite = if image == Image::Debian12 { "bookworm" } else { "trixie" };
    files(&format!("arm64-{suite}"), &[FETCH, suite], |part| {
        fetch(suite, "linux-image-arm64,busybox-static", "arm64", &part.join("tree"))?;
        let take = "cp $1/tree/boot/vmlinuz-* $1/vmlinuz; cp $1/tree/usr/bin/busybox $1/ 2>/dev/null \
            || cp $1/tree/bin/busybox $1/; rm -r $1/tree";
        host(Command::new("sh").args(["-ec", take, "sh"]).arg(part)).map(drop)
    })
}

fn build_own(part: &Path) -> Result<(), String> {
    fs::write(part.join("options"), OPTIONS).map_err(|e| format!("{}: {e}", part.display()))?;
    fetch("trixie", "linux-source-6.12", "amd64", &part.join("source"))?;
    host(Command::new("sh").args(["-c", BUILD, "sh"]).arg(part)).map(drop)
}

fn fetch(suite: &str, packages: &str, architecture: &str, tree: &Path) -> Result<(), String> {
    let mut words = FETCH.split(' ');
    let mut mmdebstrap = Command::new(words.next().unwrap_or_default());
    mmdebstrap
        .args(words)
        .arg(format!("--architectures={architecture}"))
        .arg(format!("--include={packages}"));
    host(mmdebstrap.arg(suite).arg(tree).stdin(Stdio::null())).map(drop)
}

/// A folder below target/vm, named for what it is made by, and made first where it is not there yet.
fn files(name: &str, recipe: &[&str], make: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let folder = vm_folder().join(format!("{name}-{:016x}", hasher.finish()));
    let failed = |e| format!("{}: {e}", folder.display());
    fs::create_dir_all(vm_folder()).map_err(failed)?;
    let lock = File::create(vm_folder().join(format!("{name}.lock"))).map_err(failed)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !folder.exists() {
        let part = vm_folder().join(format!("{name}.part"));
        host(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&part))?;
        fs::create_dir_all(&part).map_err(failed)?;
        make(&part)?;
        fs::rename(&part, &folder).map_err(failed)?;
    }
    Ok(folder)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path)
        .map_err(|e| format!("{}: {e} (`make cross` builds both programs for arm64)", path.display()))
}
