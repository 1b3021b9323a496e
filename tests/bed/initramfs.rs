//! Night guests: Debian's kernel and an initramfs in which PID 1 becomes the real systemd-shutdown.
//! They begin where the filesystems are gone, and take seconds.

use crate::Made;
use crate::cpio::Cpio;
use crate::harness::Test;
use crate::holder;
use crate::host;
use crate::image::{Files, Image};
use crate::machine::{self, Architecture, End, Machine, Scratch, Setup, Starts};
use crate::modules::Modules;
use crate::monitor::Picture;
use crate::shim;
use crate::snapshot;
use crate::stub;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SHUTDOWN: &str = "/usr/lib/systemd/systemd-shutdown";

/// What systemd-shutdown opens only when it needs it, since version 262 or before.
const OPENED_LATER: &str = "/usr/lib/x86_64-linux-gnu/libmount.so.1";

/// Links into /usr, as Debian has them; systemd 252 looks for hooks in /lib.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// /scenario comes with a test's files. It is sourced: it may also exec what shall be PID 1 instead.
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

/// The system to arrive in: says so, without the kernel in between, and powers off.
pub(crate) const NEXT_INIT: &str = "#!/bin/busybox sh
/bin/busybox dmesg -n 1
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
    /// Shell lines for PID 1 before it becomes systemd-shutdown. The next kernel is at `/kernel`, an initramfs that says
    /// `NEXT KERNEL UP: COMMAND LINE` and powers off at `/next.cpio`.
    pub scenario: String,
    /// Whether `/kernel` is Debian's own. Else it is the stub ([`stub`]), which says and does the same as that initramfs
    /// a moment after the jump.
    pub real: bool,
    /// Added to the kernel's command line.
    pub append: String,
    /// Added to QEMU's.
    pub qemu: Vec<String>,
    /// MiB.
    pub memory: u32,
    /// Whether its time-stamp counter counts instructions. Then waiting takes no time: the clock goes on at once.
    pub counting: bool,
    /// How it comes to run /init.
    pub boots: Boots,
    /// When to give up; a night takes seconds, but machines are busy.
    pub limit: Duration,
    files: Cpio,
    log: PathBuf,
}

/// How a night comes to run /init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// One of its kind boots, is saved, and is restored for each.
    Once,
    /// It boots: a device of it cannot be restored.
    Each,
    /// It boots by Debian's shim and GRUB, under Secure Boot.
    Verified,
    /// The same, and shim is told to verify nothing.
    Unverified,
}

/// What became of it.
pub struct Ended {
    /// How.
    pub end: End,
    /// Everything on the console.
    pub console: String,
    /// Everything on ttyS1.
    pub agent: String,
    /// Whether the next kernel was Debian's own.
    pub real: bool,
}

impl Night {
    /// A night of a test, with no scenario yet.
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
        self.files.file(&merged(path), mode, bytes.as_ref());
        self
    }

    /// Adds a file of the host.
    pub fn host_file(&mut self, path: &str, mode: u32, from: &Path) -> Result<&mut Self, String> {
        Ok(self.file(path, mode, read(from)?))
    }

    /// Adds a program of the image.
    pub fn program(&mut self, path: &str) -> Result<&mut Self, String> {
        program(&mut self.files, &self.image.files()?.tree(), path)?;
        Ok(self)
    }

    /// Adds a program that no guest has, of the image's builder.
    pub fn builders_program(&mut self, path: &str) -> Result<&mut Self, String> {
        program(&mut self.files, &self.image.files()?.builder(), path)?;
        Ok(self)
    }

    /// Adds a program of another root.
    pub fn program_of(&mut self, root: &Path, path: &str) -> Result<&mut Self, String> {
        program(&mut self.files, root, path)?;
        Ok(self)
    }

    /// Adds modules: the scenario loads them with `modprobe`.
    pub fn modules(&mut self, modules: &Modules) -> &mut Self {
        modules.put(&mut self.files);
        self
    }

    /// Boots, and waits for the end.
    pub fn run(self) -> Result<Ended, String> {
        self.run_beside(|_| Ok(())).map(|(ended, ())| ended)
    }

    /// The same, with a picture of the screen from when the console says this; who said it waits for
    /// a line on ttyS1.
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
            // Lockdown forbids what gives a guest its files later.
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

    /// That the next kernel was handed these bytes as its initrd, which the stub tells.
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

/// All that nights of an image have in common. It is made once in a process.
fn base(image: Image) -> Result<Vec<u8>, String> {
    static MADE: Made = Made::new();
    MADE.get(image.name(), || make_base(image, &image.files()?))
}

fn make_base(of: Image, image: &Files) -> Result<Vec<u8>, String> {
    let mut cpio = with_busybox(INIT)?;
    cpio.file("/usr/bin/restored", 0o755, &holder::restored()?);
    for folder in ["proc", "sys", "run", "tmp", "root", "usr/lib/systemd/system-shutdown"] {
        cpio.folder(folder);
    }
    program(&mut cpio, &image.tree(), SHUTDOWN)?;
    if of == Image::Forky {
        program(&mut cpio, &image.tree(), OPENED_LATER)?;
    }
    cpio.file("/kernel", 0o644, &stub::kernel()?);
    cpio.file("/next.cpio", 0o644, &next()?);
    Ok(cpio.finish())
}

/// The initramfs at `/next.cpio`.
pub fn next() -> Result<Vec<u8>, String> {
    let mut next = with_busybox(NEXT_INIT)?;
    next.folder("proc");
    Ok(next.finish())
}

/// A program of a root, and its libraries.
pub fn program(cpio: &mut Cpio, root: &Path, path: &str) -> Result<(), String> {
    let mut ldd = Command::new("chroot");
    let libraries = host(ldd.arg(root).args(["/usr/bin/ldd", path]))?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([path]) {
        cpio.file(&merged(path), 0o755, &read(&root.join(path.trim_start_matches('/')))?);
    }
    Ok(())
}

/// An initramfs of Debian 13's busybox and this /init, and of what is added.
pub fn with_busybox(init: &str) -> Result<Cpio, String> {
    Ok(with(&read(&Image::Debian13.files()?.busybox())?, init))
}

/// The same with another busybox.
pub(crate) fn with(busybox: &[u8], init: &str) -> Cpio {
    let mut cpio = Cpio::default();
    // The kernel opens PID 1's stdio here, before anything is mounted.
    cpio.device("/dev/console", 5, 1);
    for folder in MERGED {
        cpio.folder(&format!("usr/{folder}"));
        cpio.link(folder, &format!("usr/{folder}"));
    }
    cpio.file("/usr/bin/busybox", 0o755, busybox);
    cpio.link("/usr/bin/sh", "busybox");
    cpio.file("/init", 0o755, init.as_bytes());
    cpio
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
