//! A whole Debian in QEMU, controlled through the agent inside it (`guest/usr/lib/bed/agent`).

use crate::disk::disks::Disks;
use crate::disk::esp;
use crate::harness::{self, Test};
use crate::host::paths::installed;
use crate::host::scratch::Scratch;
use crate::image::Image;
use crate::initramfs::cpio::Cpio;
use crate::machine::feed::Feed;
use crate::machine::setup::{self, Architecture, Setup};
use crate::machine::{End, Machine};
use crate::snapshot;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The limit for a boot, which takes half a minute on an idle host.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// The limit for one command, and for a power-off. It is long because hosts can be busy.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);

/// How many times longer a machine takes that counts its instructions.
const COUNTING_SLOWER: u32 = 8;

/// The log file with the steps of all tests.
const STEPS: &str = "steps";

/// Keeps libraries at fixed addresses: QEMU translates them once, and not for each process (a fifth of a boot).
const FASTER: &str = "norandmaps";

/// The description of a guest to boot.
pub struct Spec {
    /// The image with its disks and its kernel.
    pub image: Image,
    /// Disks to use with the image's kernel, in place of the image's own.
    pub disks: Option<Disks>,
    /// The installed product (`make install DESTDIR=target/vm/installed`), laid over the guest's root after it
    /// has booted.
    pub installed: Option<PathBuf>,
    /// Adds programs to the product.
    pub adds: fn(&mut Cpio) -> Result<(), String>,
    /// How its kernel is started.
    pub starts: Starts,
    /// Additional options for the kernel's command line, if QEMU starts the kernel.
    pub append: String,
    /// Additional arguments for QEMU.
    pub qemu: Vec<String>,
    /// Whether it is really booted. Other guests are restored from a snapshot.
    pub cold: bool,
    /// Whether its time-stamp counter counts instructions. Such a guest is slow, and is really booted.
    pub counting: bool,
    /// The memory in MiB.
    pub memory: u32,
    /// The file in which the console is kept.
    pub log: PathBuf,
}

/// How a guest's kernel is started.
pub enum Starts {
    /// QEMU starts the image's own kernel.
    Qemu,
    /// UEFI starts the boot loader among these files of an EFI system partition, which is on a disk of its own.
    Uefi(PathBuf),
    /// A BIOS starts the boot loader on this disk. The disk's first partition takes the place of the image's
    /// /boot.
    Bios(PathBuf),
}

/// A running guest.
pub struct Guest {
    /// The boot that answers at present.
    pub boot: Boot,
    machine: Machine,
    agent: Feed,
    /// How much of the agent's and of the console's text has been processed.
    agent_read: usize,
    console_read: usize,
    resets: usize,
    commands: usize,
    /// The factor by which its time limits for commands and boots are extended.
    slower: u32,
    /// The test's name.
    name: String,
}

/// One start of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Boot {
    /// `uname -r`.
    pub release: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Firmware resets since the previous start: 0 after kexec, 1 after a reboot.
    pub resets: usize,
}

impl Boot {
    /// Returns whether the previous kernel jumped to this one, without the firmware.
    #[must_use]
    pub fn jumped(&self) -> bool {
        self.resets == 0
    }
}

/// The result of a command in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The exit status, as in `$?`.
    pub status: u8,
    /// Standard output and standard error together.
    pub output: String,
}

impl Spec {
    /// Describes the usual guest of a test, with the product installed.
    #[must_use]
    pub fn new(test: &Test) -> Self {
        Self {
            image: test.image,
            disks: None,
            installed: Some(installed()),
            adds: |_| Ok(()),
            starts: Starts::Qemu,
            append: test.image.append().into(),
            qemu: Vec::new(),
            cold: false,
            counting: false,
            memory: 1024,
            log: test.log(),
        }
    }
}

impl Guest {
    /// Boots a guest, and waits until its agent answers.
    pub fn boot(spec: &Spec) -> Result<Self, String> {
        let mut guest = Self::start(spec)?;
        guest.await_boot()?;
        Ok(guest)
    }

    /// Powers the machine on. [`Guest::await_boot`] comes next.
    pub fn start(spec: &Spec) -> Result<Self, String> {
        let files = spec.image.files()?;
        let scratch = Scratch::new()?;
        let Disks { mut disks, initrd, root, .. } = match &spec.disks {
            Some(disks) => disks.clone(),
            None => Disks {
                disks: vec![spec.image.root(&files)],
                initrd: files.initrd(),
                root: "/dev/vda".into(),
                are_shared: true,
            },
        };
        if !matches!(spec.starts, Starts::Bios(_)) {
            disks.extend(spec.image.boot(&files));
        }
        let mut product = match &spec.installed {
            Some(tree) if !tree.is_dir() => {
                let tree = tree.display();
                return Err(format!("{tree} is not there: `make install DESTDIR={tree}` makes it"));
            }
            Some(tree) => Cpio::of(tree)?,
            None => Cpio::default(),
        };
        (spec.adds)(&mut product)?;
        let release = files.release()?;
        let cmdline = format!(
            "BOOT_IMAGE=/boot/vmlinuz-{release} root={root} rw console=ttyS0 {FASTER} {}",
            spec.append
        );
        let (kernel, disk) = (files.kernel(), scratch.path("esp"));
        let starts = match &spec.starts {
            Starts::Qemu => {
                setup::Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: cmdline.trim_end() }
            }
            Starts::Uefi(tree) => {
                esp::disk(tree, &disk)?;
                setup::Starts::Uefi(&disk)
            }
            Starts::Bios(disk) => setup::Starts::Bios(disk),
        };
        // A usual guest is restored from a snapshot. For another one, a snapshot would serve one boot only, because its
        // devices, boot loader or disks belong to a single test.
        let is_usual = spec.disks.as_ref().is_none_or(|disks| disks.are_shared)
            && spec.qemu.is_empty()
            && matches!(spec.starts, Starts::Qemu)
            && !spec.cold
            && !spec.counting;
        let setup = Setup {
            architecture: Architecture::X86_64,
            starts,
            memory: spec.memory,
            counting: spec.counting,
            disks: &disks,
            args: &spec.qemu,
            waits: true,
            log: &spec.log,
        };
        let mut machine =
            if is_usual { snapshot::restore(&setup, scratch)? } else { Machine::start(&setup, scratch)? };
        machine.give(&product.finish())?;
        let agent = machine.answers.clone();
        Ok(Self {
            boot: Boot::default(),
            machine,
            agent,
            agent_read: 0,
            console_read: 0,
            resets: 0,
            commands: 0,
            slower: if spec.counting { COUNTING_SLOWER } else { 1 },
            name: spec.log.file_stem().unwrap_or_default().to_string_lossy().into(),
        })
    }

    /// Runs a script in the guest, with the usual time limit.
    pub fn run(&mut self, script: &str) -> Result<Ran, String> {
        self.run_within(COMMAND_LIMIT * self.slower, script)
    }

    /// Runs a script in the guest, with this time limit.
    pub fn run_within(&mut self, limit: Duration, script: &str) -> Result<Ran, String> {
        let begun = Instant::now();
        let ran = self.answered_within(limit, script);
        self.note_step(begun, script);
        ran
    }

    /// Records how long a step of a test took. `sort -n target/vm/logs/steps` lists the steps of all tests.
    fn note_step(&self, begun: Instant, what: &str) {
        let line = what.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = line.chars().take(80).collect();
        harness::note(STEPS, &format!("{:6.1} s  {}: {shown}", begun.elapsed().as_secs_f64(), self.name));
    }

    fn answered_within(&mut self, limit: Duration, script: &str) -> Result<Ran, String> {
        self.send(script)?;
        let (begins, ends) = (format!("\n@{} begins\n", self.commands), format!("\n@{} ", self.commands));
        let start = self.agent_read;
        let answer = self.agent.wait(limit, |text| {
            let text = text.get(start..)?;
            if text.contains("\n@ready ") {
                return Some(None);
            }
            let (before, answer) = text.split_once(&begins)?;
            let (output, rest) = answer.split_once(&ends)?;
            let (status, _) = rest.split_once('\n')?;
            let read: usize = [before, &begins, output, &ends, status, "\n"].iter().map(|s| s.len()).sum();
            Some(Some((status.parse().ok()?, output.to_owned(), read)))
        });
        match answer {
            Ok(Some((status, output, read))) => {
                self.agent_read += read;
                Ok(Ran { status, output })
            }
            Ok(None) => Err(self.tell(&format!("the guest booted again while it ran: {script}"))),
            Err(silence) => Err(self.tell(&format!("no answer ({silence:?}) to: {script}"))),
        }
    }

    /// Runs a script that must succeed, and returns its output.
    pub fn ok(&mut self, script: &str) -> Result<String, String> {
        let Ran { status, output } = self.run(script)?;
        if status == 0 {
            return Ok(output);
        }
        Err(self.tell(&format!("{script}: exit status {status}\n{output}")))
    }

    /// Sends a script to the guest and does not wait for it, because the script ends in another kernel.
    pub fn send(&mut self, script: &str) -> Result<(), String> {
        self.commands += 1;
        let message = format!("{} {}\n{script}", self.commands, script.len());
        let sent = self.machine.agent.write_all(message.as_bytes());
        sent.map_err(|e| self.tell(&format!("{script}: cannot be sent: {e}")))
    }

    /// Waits for the agent of the next kernel.
    pub fn await_boot(&mut self) -> Result<Boot, String> {
        let (begun, start) = (Instant::now(), self.agent_read);
        let ready = self.agent.wait(BOOT_LIMIT * self.slower, |text| {
            let text = text.get(start..)?;
            let at = text.find("\n@ready ")? + 1;
            let (line, _) = text.get(at..)?.split_once('\n')?;
            Some((line.to_owned(), at + line.len() + 1))
        });
        let (line, length) = ready.map_err(|silence| self.tell(&format!("no boot ({silence:?})")))?;
        self.agent_read += length;
        let resets = self.machine.monitor.resets();
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "0", release, boot_id] = words.as_slice() else {
            return Err(self.tell(&format!("the product could not be laid over /: {line}")));
        };
        self.boot =
            Boot { release: (*release).into(), boot_id: (*boot_id).into(), resets: resets - self.resets };
        self.resets = resets;
        self.note_step(begun, "the next boot");
        Ok(self.boot.clone())
    }

    /// Waits until the machine goes through its firmware again, which happens at once in a reboot.
    pub fn await_reset(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + COMMAND_LIMIT * self.slower;
        while self.machine.monitor.resets() == self.resets {
            if Instant::now() > deadline {
                return Err(self.tell("it does not restart"));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Waits until the machine is off or halted.
    pub fn await_off(&mut self) -> Result<End, String> {
        match self.machine.await_end(COMMAND_LIMIT * self.slower)? {
            End::TimedOut => Err(self.tell("the machine is not off")),
            end => Ok(end),
        }
    }

    /// Waits for a line of the console that contains `text`, after the lines of earlier waits, and returns it.
    pub fn await_console(&mut self, text: &str) -> Result<String, String> {
        let (begun, start) = (Instant::now(), self.console_read);
        let found = self.machine.console.wait(BOOT_LIMIT * self.slower, |console| {
            let console = console.get(start..)?;
            let at = console.find(text)?;
            let from = console.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
            let (line, _) = console.get(from..)?.split_once('\n')?;
            Some((line.trim_end().to_owned(), from + line.len() + 1))
        });
        let (line, length) = found
            .map_err(|silence| self.tell(&format!("the console does not say {text:?} ({silence:?})")))?;
        self.console_read += length;
        self.note_step(begun, text);
        Ok(line)
    }

    /// Makes the next wait ignore everything that the console has shown so far.
    pub fn skip_console(&mut self) {
        self.console_read = self.machine.console.text().len();
    }

    /// Returns everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.machine.console.text()
    }

    /// Returns the underlying machine, with its live console and its monitor.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Returns an error message with the console's last lines.
    #[must_use]
    pub fn tell(&self, what: &str) -> String {
        self.machine.tell(what)
    }
}
