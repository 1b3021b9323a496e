//! Guests of other architectures: a kernel, and an initramfs of Debian's busybox and both programs
//! (`make cross`). PID 1 is a shell that becomes the hook.
//!
//! Debian's own kernels for arm64 and riscv64 are built without `CONFIG_KEXEC_FILE` (6.1 to 7.3, by the options
//! in their packages). Therefore this module builds one for arm64 that has it, from Debian's source and as small
//! as possible.

use crate::guest::shutdown::{Ended, INIT};
use crate::harness::Test;
use crate::host::command;
use crate::host::paths::{built_for, vm_directory};
use crate::host::scratch::Scratch;
use crate::image::Image;
use crate::initramfs;
use crate::machine::Machine;
use crate::machine::setup::{Architecture, Setup, Starts};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The time limit of a guest, which is emulated on a busy host.
const LIMIT: Duration = Duration::from_secs(240);

/// The command that fetches and unpacks packages of another architecture. None of their programs is run.
const FETCH: &str = "mmdebstrap --mode=root --variant=extract --format=directory";

/// The options of the smallest kernel that boots on QEMU's board, runs both programs and loads another kernel.
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

/// Builds this kernel in `$1`, from the source package unpacked below `$1/source`.
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

/// The /init of the next system. It prints that the system is up and what its kernel made of the data handed to
/// it, without kernel messages in between. It reboots at the end, because riscv64's board does not report a
/// power-off to QEMU's caller.
const NEXT_INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
dmesg -n 1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
read -r cmdline </proc/cmdline
echo \"NEXT KERNEL UP: $cmdline\"
echo \"processors: $(nproc)\"
dmesg | grep -E 'KASLR enabled|crng init done'
for file in /proc/device-tree/chosen/*; do echo \"chosen: ${file##*/} $(hexdump -ve '1/1 \"%02x\"' $file | cut -c -64)\"; done
grep ' _stext$' /proc/kallsyms
reboot -f
";

/// The kernel of a guest.
#[derive(Clone, Copy)]
pub enum Kernel {
    /// Debian's packaged kernel for arm64, of this image's release.
    Arm64(Image),
    /// Debian 13's packaged kernel for riscv64.
    Riscv64,
    /// Our own kernel for arm64, which has `kexec_file_load`.
    Own,
}

impl Kernel {
    /// Returns the target for which `make cross` builds the programs.
    fn target(self) -> &'static str {
        match self {
            Kernel::Arm64(_) | Kernel::Own => "aarch64-unknown-linux-gnu",
            Kernel::Riscv64 => "riscv64gc-unknown-linux-gnu",
        }
    }

    /// Returns the architecture that QEMU emulates, and the kernel's option for the console there.
    fn machine(self) -> (Architecture, &'static str) {
        match self {
            Kernel::Arm64(_) | Kernel::Own => (Architecture::Arm64, "console=ttyAMA0"),
            Kernel::Riscv64 => (Architecture::Riscv64, "console=ttyS0"),
        }
    }

    /// Returns the kernel, and a busybox for its architecture.
    fn files(self) -> Result<[PathBuf; 2], String> {
        let of = |tree: PathBuf| [tree.join("vmlinuz"), tree.join("busybox")];
        match self {
            Kernel::Arm64(image) => arm64(image).map(of),
            Kernel::Own => {
                let [_, busybox] = arm64(Image::Debian13).map(of)?;
                Ok([files("arm64-kernel", &[OPTIONS, BUILD], build_own)?.join("Image"), busybox])
            }
            Kernel::Riscv64 => debian("riscv64", "trixie", Some(&without_updates()?)).map(of),
        }
    }

    /// Returns the directory in which `make cross` has built the programs. If there is none, it prints
    /// that they are not tested.
    #[must_use]
    pub fn built(self) -> Option<PathBuf> {
        built_for(self.target())
    }
}

/// Boots `kernel` on this many processors, runs the shell lines of `scenario` as PID 1, and waits for the end.
/// Returns `None` if the programs are not built.
///
/// The same kernel is at `/kernel`, compressed if it is [`Kernel::Own`]. `/next.cpio` is an initramfs that prints
/// `NEXT KERNEL UP: COMMAND LINE` and reboots.
pub fn run(test: &Test, kernel: Kernel, processors: u32, scenario: &str) -> Result<Option<Ended>, String> {
    let Some(built) = kernel.built() else { return Ok(None) };
    let scratch = Scratch::new()?;
    let initrd = scratch.path("initramfs");
    let [image, busybox] = kernel.files()?;
    let busybox = read(&busybox)?;
    let mut cpio = initramfs::with(&busybox, INIT);
    for directory in ["proc", "sys", "run", "tmp", "etc"] {
        cpio.directory(directory);
    }
    for program in ["nextkernel", "nextkernel-hook"] {
        cpio.file(&format!("/usr/bin/{program}"), 0o755, &read(&built.join(program))?);
    }
    let mut next = initramfs::with(&busybox, NEXT_INIT);
    for directory in ["proc", "sys"] {
        next.directory(directory);
    }
    cpio.file("/next.cpio", 0o644, &next.finish());
    let staged = match kernel {
        Kernel::Own => command::run_bytes(Command::new("gzip").arg("-1c").arg(&image))?,
        _ => read(&image)?,
    };
    cpio.file("/kernel", 0o644, &staged);
    cpio.file("/scenario", 0o644, format!("PATH=/bin:/usr/bin\n{scenario}\n").as_bytes());
    fs::write(&initrd, cpio.finish()).map_err(|e| format!("{}: {e}", initrd.display()))?;
    let (architecture, console) = kernel.machine();
    let setup = Setup {
        architecture,
        starts: Starts::Kernel { kernel: &image, initrd: &initrd, cmdline: console },
        memory: 512,
        counting: false,
        disks: &[],
        args: &["-no-reboot".into(), "-smp".into(), processors.to_string()],
        waits: false,
        log: &test.log(),
    };
    let mut machine = Machine::start(&setup, scratch)?;
    let end = machine.await_end(LIMIT)?;
    Ok(Some(Ended { end, console: machine.console.text(), agent: String::new(), real: true }))
}

fn arm64(image: Image) -> Result<PathBuf, String> {
    debian("arm64", if image == Image::Debian12 { "bookworm" } else { "trixie" }, None)
}

/// Returns the source of Debian 13's packages without its updates: for riscv64 there are few updates, and a
/// mirror that is just being updated has too many of them. mmdebstrap has written the sources into the guests'
/// image, the release itself first.
fn without_updates() -> Result<String, String> {
    let list = Image::Debian13.files()?.tree().join("etc/apt/sources.list");
    let text = fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    text.lines().next().map(str::to_owned).ok_or_else(|| format!("{}: nothing is in it", list.display()))
}

/// Returns a directory with Debian's kernel and busybox. On riscv64 Debian names an Image `vmlinux`, like an ELF
/// file.
fn debian(architecture: &str, suite: &str, mirror: Option<&str>) -> Result<PathBuf, String> {
    let packages = format!("linux-image-{architecture},busybox-static");
    files(&format!("{architecture}-{suite}"), &[FETCH, suite, &packages], |part| {
        fetch(suite, &packages, architecture, &part.join("tree"), mirror)?;
        let take = "cp $1/tree/boot/vmlinu[xz]-* $1/vmlinuz; cp $1/tree/usr/bin/busybox $1/ 2>/dev/null \
            || cp $1/tree/bin/busybox $1/; rm -r $1/tree";
        command::run(Command::new("sh").args(["-ec", take, "sh"]).arg(part)).map(drop)
    })
}

fn build_own(part: &Path) -> Result<(), String> {
    fs::write(part.join("options"), OPTIONS).map_err(|e| format!("{}: {e}", part.display()))?;
    fetch("trixie", "linux-source-6.12", "amd64", &part.join("source"), None)?;
    command::run(Command::new("sh").args(["-c", BUILD, "sh"]).arg(part)).map(drop)
}

fn fetch(
    suite: &str,
    packages: &str,
    architecture: &str,
    tree: &Path,
    mirror: Option<&str>,
) -> Result<(), String> {
    let mut words = FETCH.split(' ');
    let mut mmdebstrap = Command::new(words.next().unwrap_or_default());
    mmdebstrap
        .args(words)
        .arg(format!("--architectures={architecture}"))
        .arg(format!("--include={packages}"));
    command::run(mmdebstrap.arg(suite).arg(tree).args(mirror).stdin(Stdio::null())).map(drop)
}

/// Returns a directory below target/vm that is named for a hash of its recipe, and makes it first if it does not
/// exist.
fn files(name: &str, recipe: &[&str], make: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    let directory = vm_directory().join(format!("{name}-{:016x}", hasher.finish()));
    let failed = |e| format!("{}: {e}", directory.display());
    fs::create_dir_all(vm_directory()).map_err(failed)?;
    let lock = File::create(vm_directory().join(format!("{name}.lock"))).map_err(failed)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !directory.exists() {
        let part = vm_directory().join(format!("{name}.part"));
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&part))?;
        fs::create_dir_all(&part).map_err(failed)?;
        make(&part)?;
        fs::rename(&part, &directory).map_err(failed)?;
    }
    Ok(directory)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| {
        format!("{}: {e} (`make cross` builds both programs for other architectures)", path.display())
    })
}
