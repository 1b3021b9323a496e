//! A whole Debian in QEMU, driven through the agent in it (`guest/usr/lib/bed/agent`).

use crate::cpio::Cpio;
use crate::esp;
use crate::feed::Feed;
use crate::harness::{self, Test};
use crate::image::Image;
use crate::installed;
use crate::machine::{self, Architecture, End, Machine, Scratch, Setup};
use crate::snapshot;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A boot takes half a minute when the host is idle.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// One command, and the way to power off; as for a boot, hosts are busy.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);

/// How much longer a machine takes that counts its instructions, beside another one.
const COUNTING_SLOWER: u32 = 8;

/// The file with the steps of all tests.
const STEPS: &str = "steps";

/// Libraries lie where they lay: QEMU translates them once, and not for each process (a fifth of a boot).
const FASTER: &str = "norandmaps";

/// Which guest to boot.
pub struct Spec {
    /// Its disks and kernel.
    pub image: Image,
    /// Other disks than the image's, for its kernel.
    pub disks: Option<Disks>,
    /// The installed product (`make install DESTDIR=target/vm/installed`), laid over its root when it has booted.
    pub installed: Option<PathBuf>,
    /// Adds programs to that.
    pub adds: fn(&mut Cpio) -> Result<(), String>,
    /// What starts its kernel.
    pub starts: Starts,
    /// Added to the kernel's command line, where QEMU starts it.
    pub append: String,
    /// Added to QEMU's.
    pub qemu: Vec<String>,
    /// Whether it boots before your eyes, where others are restored from a snapshot.
    pub cold: bool,
    /// Whether its time-stamp counter counts instructions: slow, and before your eyes.
    pub counting: bool,
    /// MiB.
    pub memory: u32,
    /// Where the console is kept.
    pub log: PathBuf,
}

/// Disks, and how a kernel finds the root on them.
#[derive(Debug, Clone)]
pub struct Disks {
    /// Them, in their order.
    pub disks: Vec<PathBuf>,
    /// The initrd that QEMU hands to the kernel.
    pub initrd: PathBuf,
    /// What `root=` says.
    pub root: String,
    /// Whether they are several tests', in a folder that is named for what they are made of.
    pub are_shared: bool,
}

/// What starts a guest's kernel.
pub enum Starts {
    /// QEMU, which is handed the image's own.
    Qemu,
    /// UEFI, and the boot loader among these files of an EFI system partition, on a disk of its own.
    Uefi(PathBuf),
    /// A BIOS, and the boot loader on this disk; its first partition takes the place of the image's /boot.
    Bios(PathBuf),
}

/// A running guest.
pub struct Guest {
    /// The boot that answers now.
    pub boot: Boot,
    machine: Machine,
    agent: Feed,
    /// How much of the agent's and the console's text has been dealt with.
    agent_read: usize,
    console_read: usize,
    resets: usize,
    commands: usize,
    /// How much longer than others it may take for everything.
    slower: u32,
    /// The test's name.
    name: String,
}

/// One kernel's arrival.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Boot {
    /// `uname -r`.
    pub release: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Firmware resets since the arrival before: 0 after kexec, 1 after a reboot.
    pub resets: usize,
}

impl Boot {
    /// The kernel before jumped here, past the firmware.
    #[must_use]
    pub fn jumped(&self) -> bool {
        self.resets == 0
    }
}

/// What a command in the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status, as `$?` has it.
    pub status: u8,
    /// stdout and stderr together.
    pub output: String,
}

impl Spec {
    /// The usual guest of a test, with the product installed.
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
    /// Boots, and waits until the agent answers.
    pub fn boot(spec: &Spec) -> Result<Self, String> {
        let mut guest = Self::start(spec)?;
        guest.await_boot()?;
        Ok(guest)
    }

    /// Powers the machine on; [`Guest::await_boot`] is next.
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
                machine::Starts::Kernel { kernel: &kernel, initrd: &initrd, cmdline: cmdline.trim_end() }
            }
            Starts::Uefi(tree) => {
                esp::disk(tree, &disk)?;
                machine::Starts::Uefi(&disk)
            }
            Starts::Bios(disk) => machine::Starts::Bios(disk),
        };
        // Of the others each is booted once: their devices and loaders, or the disks themselves, are one test's.
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

    /// Runs a script in the guest.
    pub fn run(&mut self, script: &str) -> Result<Ran, String> {
        self.run_within(COMMAND_LIMIT * self.slower, script)
    }

    /// The same with a deadline of its own.
    pub fn run_within(&mut self, limit: Duration, script: &str) -> Result<Ran, String> {
        let begun = Instant::now();
        let ran = self.answered_within(limit, script);
        self.note_step(begun, script);
        ran
    }

    /// How long each step of each test took: `sort -n target/vm/logs/steps`.
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

    /// Runs a script that must succeed, and returns what it printed.
    pub fn ok(&mut self, script: &str) -> Result<String, String> {
        let Ran { status, output } = self.run(script)?;
        if status == 0 {
            return Ok(output);
        }
        Err(self.tell(&format!("{script}: exit status {status}\n{output}")))
    }

    /// Hands a script to the guest and does not wait: for what ends in another kernel.
    pub fn send(&mut self, script: &str) -> Result<(), String> {
        self.commands += 1;
        let message = format!("{} {}\n{script}", self.commands, script.len());
        let sent = self.machine.agent.write_all(message.as_bytes());
        sent.map_err(|e| self.tell(&format!("{script}: cannot be sent: {e}")))
    }

    /// Waits for the next kernel's agent.
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

    /// Waits until the machine goes through its firmware again, which follows a restart at once.
    pub fn await_reset(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + COMMAND_LIMIT;
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
        match self.machine.await_end(COMMAND_LIMIT)? {
            End::TimedOut => Err(self.tell("the machine is not off")),
            end => Ok(end),
        }
    }

    /// Waits for a line of the console, after those that were waited for before, and returns it.
    pub fn await_console(&mut self, text: &str) -> Result<String, String> {
        let (begun, start) = (Instant::now(), self.console_read);
        let found = self.machine.console.wait(BOOT_LIMIT, |console| {
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

    /// What is waited for next is not what the console has said so far.
    pub fn skip_console(&mut self) {
        self.console_read = self.machine.console.text().len();
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.machine.console.text()
    }

    /// The machine below: its console as it comes, its monitor.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// A failure with the console's last lines.
    #[must_use]
    pub fn tell(&self, what: &str) -> String {
        self.machine.tell(what)
    }
}
