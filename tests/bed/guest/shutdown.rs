//! Shutdown guests: Debian's kernel and an initramfs in which PID 1 becomes the real systemd-shutdown. They begin
//! when the file systems are gone, and take seconds.

use crate::disk::shim;
use crate::harness::Test;
use crate::host::made::Made;
use crate::host::programs;
use crate::host::scratch::Scratch;
use crate::image::{Files, Image};
use crate::initramfs;
use crate::initramfs::cpio::Cpio;
use crate::initramfs::modules::Modules;
use crate::kernel::stub;
use crate::machine::monitor::Picture;
use crate::machine::setup::{Architecture, Setup, Starts};
use crate::machine::{self, End, Machine};
use crate::snapshot;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";

/// A library that systemd-shutdown opens only when it needs it, since version 262 or earlier.
const OPENED_LATER: &str = "/usr/lib/x86_64-linux-gnu/libmount.so.1";

/// /scenario is one of a test's files. It is sourced, so it may also exec another program as PID 1.
pub(crate) const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755,nosuid,nodev,noexec tmpfs /run
[ -e /scenario ] || restored | cpio -idmu --quiet
. /scenario
exec /usr/lib/systemd/systemd-shutdown $VERB --timeout=10000000us --log-level=info --log-target=kmsg
";

/// The description of a shutdown guest.
pub struct Shutdown {
    /// The image that its kernel and systemd-shutdown are from.
    pub image: Image,
    /// The verb of systemd-shutdown: `reboot`, `poweroff`, `kexec` or `halt`; empty for none.
    pub verb: String,
    /// Shell lines that PID 1 runs before it becomes systemd-shutdown. The next kernel is at `/kernel`.
    /// `/next.cpio` is an initramfs that prints `NEXT KERNEL UP: COMMAND LINE` and powers off.
    pub scenario: String,
    /// Whether `/kernel` is Debian's own. Otherwise it is the stub ([`stub`]), which prints and does the same as
    /// that initramfs a moment after the jump.
    pub real: bool,
    /// Additional options for the kernel's command line.
    pub append: String,
    /// Additional arguments for QEMU.
    pub qemu: Vec<String>,
    /// The memory in MiB.
    pub memory: u32,
    /// Whether its time-stamp counter counts instructions. Then waiting takes no time, because the clock skips
    /// idle time.
    pub counting: bool,
    /// How the guest comes to run /init.
    pub boots: Boots,
    /// The time limit. A guest takes seconds, but hosts can be busy.
    pub limit: Duration,
    files: Cpio,
    log: PathBuf,
}

/// How a shutdown guest comes to run /init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// One guest of its kind boots and is saved. Each guest is restored from that snapshot.
    Once,
    /// Each guest boots, because a device of it cannot be restored.
    Each,
    /// Debian's shim and GRUB boot it, under Secure Boot.
    Verified,
    /// Debian's shim and GRUB boot it under Secure Boot, and shim is set to verify nothing.
    Unverified,
}

/// The result of a guest's run.
pub struct Ended {
    /// How the machine ended.
    pub end: End,
    /// Everything on the console.
    pub console: String,
    /// Everything on ttyS1.
    pub agent: String,
    /// Whether the next kernel was Debian's own.
    pub real: bool,
}

impl Shutdown {
    /// Describes the usual guest of a test, with no scenario yet.
    #[must_use]
    pub fn new(test: &Test, verb: &str) -> Self {
        Self {
            image: test.image,
            verb: verb.into(),
            scenario: String::new(),
            real: false,
            append: test.image.append().into(),
            qemu: Vec::new(),
            memory: 512,
            counting: false,
            boots: Boots::Once,
            limit: Duration::from_secs(180),
            files: Cpio::default(),
            log: test.log(),
        }
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.files.file(&initramfs::merged(path), mode, bytes.as_ref());
        self
    }

    /// Adds a file of the host.
    pub fn host_file(&mut self, path: &str, mode: u32, from: &Path) -> Result<&mut Self, String> {
        Ok(self.file(path, mode, read(from)?))
    }

    /// Adds a program of the image.
    pub fn program(&mut self, path: &str) -> Result<&mut Self, String> {
        initramfs::program(&mut self.files, &self.image.files()?.tree(), path)?;
        Ok(self)
    }

    /// Adds a program from the image's builder, which guests do not have otherwise.
    pub fn builders_program(&mut self, path: &str) -> Result<&mut Self, String> {
        initramfs::program(&mut self.files, &self.image.files()?.builder(), path)?;
        Ok(self)
    }

    /// Adds a program of another root.
    pub fn program_of(&mut self, root: &Path, path: &str) -> Result<&mut Self, String> {
        initramfs::program(&mut self.files, root, path)?;
        Ok(self)
    }

    /// Adds modules, which the scenario loads with `modprobe`.
    pub fn modules(&mut self, modules: &Modules) -> &mut Self {
        modules.put(&mut self.files);
        self
    }

    /// Boots the guest, and waits for its end.
    pub fn run(self) -> Result<Ended, String> {
        self.run_beside(|_| Ok(())).map(|(ended, ())| ended)
    }

    /// Boots the guest, takes a picture of the screen when the console says `said`, and waits for the end. The
    /// program that says it waits for a line on ttyS1, which is sent when the picture is taken.
    pub fn run_with_picture(self, said: &str) -> Result<(Ended, Picture), String> {
        let limit = self.limit;
        self.run_beside(|machine| {
            let heard = machine.console.wait(limit, |console| console.contains(said).then_some(()));
            heard.map_err(|_| machine.tell(&format!("the console does not say {said:?}")))?;
            let picture = machine.picture()?;
            machine.agent.write_all(b"\n").map_err(|e| machine.tell(&format!("ttyS1: {e}")))?;
            Ok(picture)
        })
    }

    fn run_beside<T>(
        self,
        act: impl FnOnce(&mut Machine) -> Result<T, String>,
    ) -> Result<(Ended, T), String> {
        let (limit, real) = (self.limit, self.real);
        let mut machine = self.start()?;
        let acted = act(&mut machine)?;
        let end = machine.await_end(limit)?;
        let answers = machine.answers.text();
        let agent =
            answers.split_once(machine::WAITS).map_or(answers.as_str(), |(_, after)| after.trim_start());
        Ok((Ended { end, console: machine.console.text(), agent: agent.into(), real }, acted))
    }

    fn start(mut self) -> Result<Machine, String> {
        let image = self.image.files()?;
        self.file("/scenario", 0o644, format!("VERB={}\n{}\n", self.verb, self.scenario));
        if self.real {
            self.host_file("/kernel", 0o644, &image.kernel())?;
        }
        let (mut initramfs, files) = (base(self.image)?, self.files.finish());
        let scratch = Scratch::new()?;
        let (initrd, disk, kernel) = (scratch.path("initramfs"), scratch.path("esp"), image.kernel());
        let cmdline = format!("console=ttyS0 {}", self.append);
        let variables = scratch.path("variables");
        let by_shim = matches!(self.boots, Boots::Verified | Boots::Unverified);
        let starts = if by_shim {
            // Lockdown forbids the way in which other guests receive their files after the boot.
            initramfs.extend(&files);
            shim::disk(&image, &initramfs, cmdline.trim_end(), &scratch.path("tree"), &disk)?;
            if self.boots == Boots::Verified {
                Starts::Verified(&disk, Path::new(shim::VARIABLES))
            } else {
                let written = fs::write(&variables, shim::without_validation()?);
                written.map_err(|e| format!("{}: {e}", variables.display()))?;
                Starts::Verified(&disk, &variables)
            }
        } else {
            fs::write(&initrd, initramfs).map_err(|e| format!("{}: {e}", initrd.display()))?;
            Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: cmdline.trim_end() }
        };
        self.qemu.push("-no-reboot".into());
        let setup = Setup {
            architecture: Architecture::X86_64,
            starts,
            memory: self.memory,
            counting: self.counting,
            disks: &[],
            args: &self.qemu,
            waits: !by_shim,
            log: &self.log,
        };
        let mut machine = match self.boots {
            Boots::Verified | Boots::Unverified => return Machine::start(&setup, scratch),
            Boots::Each => Machine::start(&setup, scratch)?,
            Boots::Once => snapshot::restore(&setup, scratch)?,
        };
        machine.give(&files)?;
        Ok(machine)
    }
}

impl Ended {
    /// Returns the console's line with this text. An error shows the console's end.
    pub fn line(&self, text: &str) -> Result<&str, String> {
        self.console
            .lines()
            .find(|line| line.contains(text))
            .ok_or_else(|| self.tell(&format!("the console does not say {text:?}")))
    }

    /// Checks that the machine ended in this way.
    pub fn expect(&self, end: End) -> Result<(), String> {
        if self.end == end {
            return Ok(());
        }
        Err(self.tell(&format!("expected {end:?}, but it ended with {:?}", self.end)))
    }

    /// Checks that the next kernel received these bytes as its initrd. The stub reports that; Debian's own kernel
    /// is not checked.
    pub fn handed(&self, initrd: &[u8]) -> Result<(), String> {
        if self.real {
            return Ok(());
        }
        let expected = format!("initrd {} bytes sum {:016x},", initrd.len(), stub::sum(initrd));
        let told = self.line("NEXT KERNEL GOT: ")?;
        if told.contains(&expected) {
            Ok(())
        } else {
            Err(self.tell(&format!("{told}\nexpected: {expected}")))
        }
    }

    fn tell(&self, what: &str) -> String {
        machine::with_last_lines(what, &self.console)
    }
}

/// Returns the initramfs that all shutdown guests of an image have in common. It is made once in a process.
fn base(image: Image) -> Result<Vec<u8>, String> {
    static MADE: Made = Made::new();
    MADE.get(image.name(), || make_base(image, &image.files()?))
}

fn make_base(of: Image, image: &Files) -> Result<Vec<u8>, String> {
    let mut cpio = initramfs::with_busybox(INIT)?;
    cpio.file("/usr/bin/restored", 0o755, &programs::restored()?);
    for directory in ["proc", "sys", "run", "tmp", "root", "usr/lib/systemd/system-shutdown"] {
        cpio.directory(directory);
    }
    initramfs::program(&mut cpio, &image.tree(), SHUTDOWN)?;
    if of == Image::Forky {
        initramfs::program(&mut cpio, &image.tree(), OPENED_LATER)?;
    }
    cpio.file("/kernel", 0o644, &stub::kernel()?);
    cpio.file("/next.cpio", 0o644, &initramfs::next()?);
    Ok(cpio.finish())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
