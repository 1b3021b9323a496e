//! Night guests: Debian's kernel and an initramfs in which PID 1 becomes the real systemd-shutdown.
//! They begin where the filesystems are gone, and take seconds.

use crate::cpio::Cpio;
use crate::harness::Test;
use crate::host;
use crate::image::{Files, Image};
use crate::machine::{self, End, Machine, Scratch, Setup};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";

/// Links into /usr, as Debian has them; systemd 252 looks for hooks in /lib.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// /scenario is sourced: it may also exec what shall be PID 1 instead.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755,nosuid,nodev,noexec tmpfs /run
. /scenario
exec /usr/lib/systemd/systemd-shutdown $VERB --timeout=10000000us --log-level=info --log-target=kmsg
";

/// The system to arrive in: says so, and powers off.
const NEXT_INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
read -r cmdline </proc/cmdline
echo \"NEXT KERNEL UP: $cmdline\"
/bin/busybox poweroff -f
";

/// What a night is made of.
pub struct Night {
    /// Whose kernel and systemd-shutdown.
    pub image: Image,
    /// `reboot`, `poweroff`, `kexec`, `halt`; empty for none.
    pub verb: String,
    /// Shell lines for PID 1 before it becomes systemd-shutdown. The kernel is at `/kernel`, an
    /// initramfs that says `NEXT KERNEL UP: COMMAND LINE` and powers off at `/next.cpio`.
    pub scenario: String,
    /// Added to the kernel's command line.
    pub append: String,
    /// Added to QEMU's.
    pub qemu: Vec<String>,
    /// MiB.
    pub memory: u32,
    /// When to give up; a night takes seconds, but machines are busy.
    pub limit: Duration,
    files: Cpio,
    log: PathBuf,
}

/// What became of it.
pub struct Ended {
    /// How.
    pub end: End,
    /// Everything on the console.
    pub console: String,
}

impl Night {
    /// A night of a test, with no scenario yet.
    #[must_use]
    pub fn new(test: &Test, verb: &str) -> Self {
        Self {
            image: test.image,
            verb: verb.into(),
            scenario: String::new(),
            append: String::new(),
            qemu: Vec::new(),
            memory: 512,
            limit: Duration::from_secs(90),
            files: Cpio::default(),
            log: test.log(),
        }
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.files.file(&merged(path), mode, bytes.as_ref());
        self
    }

    /// Adds a file of the host.
    pub fn host_file(&mut self, path: &str, mode: u32, from: &Path) -> Result<&mut Self, String> {
        Ok(self.file(path, mode, read(from)?))
    }

    /// Boots, and waits for the end.
    pub fn run(mut self) -> Result<Ended, String> {
        let image = self.image.files()?;
        self.file("/scenario", 0o644, format!("VERB={}\n{}\n", self.verb, self.scenario));
        let mut initramfs = base(&image)?;
        initramfs.extend(self.files.finish());
        let scratch = Scratch::new()?;
        let initrd = scratch.path("initramfs");
        fs::write(&initrd, initramfs).map_err(|e| format!("{}: {e}", initrd.display()))?;
        self.qemu.push("-no-reboot".into());
        let mut machine = Machine::start(
            &Setup {
                kernel: &image.kernel(),
                initrd: &initrd,
                cmdline: format!("console=ttyS0 {}", self.append).trim_end(),
                memory: self.memory,
                args: &self.qemu,
                log: &self.log,
            },
            scratch,
        )?;
        let end = machine.await_end(self.limit)?;
        Ok(Ended { end, console: machine.console.text() })
    }
}

impl Ended {
    /// The line of the console with this text; an error shows the console's end.
    pub fn line(&self, text: &str) -> Result<&str, String> {
        self.console
            .lines()
            .find(|line| line.contains(text))
            .ok_or_else(|| self.tell(&format!("the console does not say {text:?}")))
    }

    /// That it ended so.
    pub fn expect(&self, end: End) -> Result<(), String> {
        if self.end == end {
            return Ok(());
        }
        Err(self.tell(&format!("expected {end:?}, but it ended with {:?}", self.end)))
    }

    fn tell(&self, what: &str) -> String {
        machine::with_last_lines(what, &self.console)
    }
}

/// All that nights of an image have in common.
fn base(image: &Files) -> Result<Vec<u8>, String> {
    let mut cpio = with_busybox(INIT)?;
    for folder in ["proc", "sys", "run", "tmp", "root", "usr/lib/systemd/system-shutdown"] {
        cpio.folder(folder);
    }
    let mut ldd = Command::new("chroot");
    let libraries = host(ldd.arg(image.tree()).args(["/usr/bin/ldd", SHUTDOWN]))?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([SHUTDOWN]) {
        cpio.file(&merged(path), 0o755, &read(&image.tree().join(path.trim_start_matches('/')))?);
    }
    cpio.file("/kernel", 0o644, &read(&image.kernel())?);
    let mut next = with_busybox(NEXT_INIT)?;
    next.folder("proc");
    cpio.file("/next.cpio", 0o644, &next.finish());
    Ok(cpio.finish())
}

fn with_busybox(init: &str) -> Result<Cpio, String> {
    let mut cpio = Cpio::default();
    // The kernel opens PID 1's stdio here, before anything is mounted.
    cpio.device("/dev/console", 5, 1);
    for folder in MERGED {
        cpio.folder(&format!("usr/{folder}"));
        cpio.link(folder, &format!("usr/{folder}"));
    }
    cpio.file("/usr/bin/busybox", 0o755, &read(Path::new("/bin/busybox"))?);
    cpio.link("/usr/bin/sh", "busybox");
    cpio.file("/init", 0o755, init.as_bytes());
    Ok(cpio)
}

/// Where a path of a merged /usr is: an archive must not name a symbolic link as a folder, for the
/// kernel would put the folder in its place.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("/usr/{path}"),
        _ => format!("/{path}"),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
