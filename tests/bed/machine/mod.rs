//! One QEMU process: its console, its monitor, and how it ended.

pub mod feed;
pub mod monitor;
pub mod setup;

use crate::host::command;
use crate::host::scratch::Scratch;
use crate::machine::feed::{Feed, Silence};
use crate::machine::monitor::{Monitor, Picture};
use crate::machine::setup::{Setup, Starts};
use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The limit for QEMU to connect. It only has to open its disks before, but a busy host may first read them.
const START_LIMIT: Duration = Duration::from_secs(60);
/// With QEMU's own, large cache of translations the boot after a reset is half as fast: every page that held code
/// before is invalidated one by one (33 s against 19 s, Debian 12).
const TCG: &str = "tcg,thread=multi,tb-size=128";
/// An instruction takes one nanosecond, and so one tick of the time-stamp counter, whatever the host does. Idle
/// time is skipped.
const COUNTING: [&str; 4] = ["-accel", "tcg,thread=single,tb-size=128", "-icount", "shift=0,sleep=off"];
/// With disks, idle time is not skipped: the host answers in its own time, and meanwhile every other wait in the
/// guest would end at once.
const COUNTING_WITH_DISKS: [&str; 4] =
    ["-accel", "tcg,thread=single,tb-size=128", "-icount", "shift=0,sleep=on"];
/// UEFI, from Debian's package ovmf. Writes to its variables last over resets, as those to disks do, and not
/// longer.
const OVMF: [&str; 4] = [
    "-drive",
    "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
    "-drive",
    "if=pflash,unit=1,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// UEFI with Secure Boot and Microsoft's keys. Only the firmware can write these variables.
const SECURE_BOOT: [&str; 6] = [
    "-machine",
    "q35,smm=on",
    "-global",
    "driver=cfi.pflash01,property=secure,value=on",
    "-drive",
    "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
];
/// The text that a guest prints on ttyS1 when it waits for its files (`tests/restored.c`), and the time limit for
/// it to do so.
pub(crate) const WAITS: &str = "@waits";
const WAITING_LIMIT: Duration = Duration::from_secs(240);
/// The maximum size of the files that a guest is given: modules of a large driver, and a kernel. A guest that is
/// not restored can also be given files for a measurement.
const CHANNEL_SIZE: usize = 64 << 20;
const LARGE_CHANNEL_SIZE: usize = 256 << 20;
/// The files of a saved machine: its memory, its devices, and its console up to then.
const MEMORY: &str = "memory";
const STATE: &str = "state";
const CONSOLE: &str = "console";
/// The number of lines from the console's end that an error shows.
const LAST_LINES: usize = 40;

/// A running machine. It ends with this value, and with the *thread* that started it: keep both together.
pub struct Machine {
    child: Child,
    /// Everything on ttyS0.
    pub console: Feed,
    /// Events and commands.
    pub monitor: Monitor,
    /// The connection to ttyS1, for writing to the guest.
    pub agent: UnixStream,
    /// Everything that the guest writes to ttyS1.
    pub answers: Feed,
    scratch: Scratch,
    is_restored: bool,
}

/// The place of a machine's memory and of the writes to its disks.
enum Holds<'a> {
    /// They are lost when the machine ends.
    Nothing,
    /// In this directory, which is being made in order to save the machine.
    Making(&'a Path),
    /// In this directory, as they were saved. The directory does not change.
    Saved(&'a Path),
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off.
    PoweredOff,
    /// A reset: the firmware would boot again. It is only seen with `-no-reboot`.
    Reset,
    /// "System halted", with the power on.
    Halted,
    /// The machine was still running at the deadline.
    TimedOut,
}

impl Machine {
    /// Starts QEMU and the firmware. The scratch directory can hold files of the caller.
    pub fn start(setup: &Setup, scratch: Scratch) -> Result<Self, String> {
        let mut machine = Self::run(setup, scratch, &Holds::Nothing)?;
        machine.monitor.command("cont")?;
        Ok(machine)
    }

    /// Starts a machine that [`Machine::save`] will save in this directory.
    pub fn start_for_saving(setup: &Setup, scratch: Scratch, directory: &Path) -> Result<Self, String> {
        for (number, disk) in setup.disks.iter().enumerate() {
            let mut create = Command::new("qemu-img");
            create
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(disk)
                .arg(overlay(directory, number));
            command::run(&mut create)?;
        }
        let mut machine = Self::run(setup, scratch, &Holds::Making(directory))?;
        machine.monitor.command("cont")?;
        Ok(machine)
    }

    /// Saves a machine that waits for its files, and ends it.
    pub fn save(mut self, directory: &Path) -> Result<(), String> {
        self.await_waiting()?;
        self.monitor.save(&directory.join(STATE)).map_err(|error| self.tell(&error))?;
        let console = directory.join(CONSOLE);
        fs::write(&console, self.console.text()).map_err(|e| format!("{}: {e}", console.display()))?;
        self.monitor.command("quit")?;
        self.child.wait().map(drop).map_err(|e| format!("QEMU: {e}"))
    }

    /// Starts QEMU with the state that [`Machine::save`] has saved of a machine with the same setup. The machine
    /// continues when it is given its files.
    pub fn restore(setup: &Setup, scratch: Scratch, directory: &Path) -> Result<Self, String> {
        Self::run(setup, scratch, &Holds::Saved(directory))
    }

    /// Gives the guest its files, and lets it continue.
    pub fn give(&mut self, archive: &[u8]) -> Result<(), String> {
        let size = if self.is_restored { CHANNEL_SIZE } else { LARGE_CHANNEL_SIZE };
        if archive.len() + 8 > size {
            return Err(format!("{} bytes of files are too many for the channel", archive.len()));
        }
        let channel = self.scratch.path("channel");
        let length = (archive.len() as u64).to_le_bytes();
        let written = File::options()
            .write(true)
            .open(&channel)
            .and_then(|mut file| file.write_all(&length).and_then(|()| file.write_all(archive)));
        written.map_err(|e| format!("{}: {e}", channel.display()))?;
        if !self.is_restored {
            self.await_waiting()?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let line = format!("{now} {}\n", seed()?);
        self.agent.write_all(line.as_bytes()).map_err(|e| self.tell(&format!("ttyS1: {e}")))?;
        if self.is_restored { self.monitor.command("cont") } else { Ok(()) }
    }

    fn await_waiting(&self) -> Result<(), String> {
        let waits = self.answers.wait(WAITING_LIMIT, |text| text.contains(WAITS).then_some(()));
        waits.map_err(|silence| self.tell(&format!("the guest does not wait for its files ({silence:?})")))
    }

    fn run(setup: &Setup, scratch: Scratch, holds: &Holds) -> Result<Self, String> {
        let [console, monitor, agent] =
            ["console", "monitor", "agent"].map(|name| listen(&scratch.path(name)));
        let (console, monitor, agent) = (console?, monitor?, agent?);
        let errors = scratch.path("errors");
        let stderr = File::create(&errors).map_err(|e| format!("{}: {e}", errors.display()))?;
        let before = match holds {
            Holds::Saved(directory) => fs::read_to_string(directory.join(CONSOLE))
                .and_then(|text| append(setup.log, &text).map(|()| text))
                .map_err(|e| format!("{}: {e}", directory.display()))?,
            _ => String::new(),
        };
        let mut child = qemu(setup, &scratch, holds)?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("setpriv: {e} (tests/prepare installs it and QEMU)"))?;
        let connected = [console, monitor, agent].map(|listener| accept(&listener, &mut child));
        let [Ok(console), Ok(monitor), Ok(agent)] = connected else {
            let _ = (child.kill(), child.wait());
            let said = fs::read_to_string(&errors).unwrap_or_default();
            return Err(format!("QEMU did not start: {}", said.trim()));
        };
        let answers = agent.try_clone().map(Feed::of).map_err(|e| format!("ttyS1: {e}"))?;
        let mut monitor = Monitor::start(monitor)?;
        if let Holds::Saved(directory) = holds {
            monitor.restore(&directory.join(STATE))?;
        }
        Ok(Self {
            child,
            console: Feed::after(before, console),
            monitor,
            agent,
            answers,
            scratch,
            is_restored: matches!(holds, Holds::Saved(_)),
        })
    }

    /// Waits until the machine is off or halted. Returns [`End::TimedOut`] at the deadline.
    pub fn await_end(&mut self, limit: Duration) -> Result<End, String> {
        let deadline = Instant::now() + limit;
        loop {
            let tick = Duration::from_millis(200);
            let halted = |text: &str| text.contains("reboot: System halted").then_some(());
            let closed = match self.console.wait(tick, halted) {
                Ok(()) => return Ok(End::Halted),
                Err(silence) => silence == Silence::Closed,
            };
            let events = self.monitor.events();
            let shutdown = events.iter().find(|event| event.name == "SHUTDOWN");
            match shutdown.map(|event| event.reason.as_str()) {
                Some("guest-shutdown") => return Ok(End::PoweredOff),
                Some("guest-reset") => return Ok(End::Reset),
                Some(reason) => return Err(self.tell(&format!("QEMU ended: {reason}"))),
                None if closed && self.child.try_wait().is_ok_and(|status| status.is_some()) => {
                    return Err(self.tell("QEMU is gone and gave no reason"));
                }
                None if Instant::now() > deadline => return Ok(End::TimedOut),
                None if closed => thread::sleep(tick),
                None => {}
            }
        }
    }

    /// Returns a picture of the screen.
    pub fn picture(&mut self) -> Result<Picture, String> {
        let file = self.scratch.path("screen");
        let drawn = self.monitor.screendump(&file).and_then(|()| Picture::read(&file));
        drawn.map_err(|error| self.tell(&error))
    }

    /// Returns an error message with the last lines of the console and QEMU's own errors.
    #[must_use]
    pub fn tell(&self, what: &str) -> String {
        let qemu = fs::read_to_string(self.scratch.path("errors")).unwrap_or_default();
        with_last_lines(format!("{what}\n{qemu}").trim_end(), &self.console.text())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Returns an error message with the last lines of a console.
#[must_use]
pub fn with_last_lines(what: &str, console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
    format!("{what}\n--- the console's last lines ---\n{}", last.join("\n"))
}

/// Returns QEMU's command with all arguments.
fn qemu(setup: &Setup, scratch: &Scratch, holds: &Holds) -> Result<Command, String> {
    let chardev = |name: &str| format!("socket,id={name},path={}", scratch.path(name).display());
    let mut qemu = Command::new("setpriv");
    // If a test is killed, its machines are killed, too.
    qemu.args(["--pdeathsig", "KILL"]).args(setup.architecture.qemu()).arg("-S");
    // KVM is used only on request, for hosts where it is known to work (research: here it hangs).
    if setup.counting {
        qemu.args(if setup.disks.is_empty() { COUNTING } else { COUNTING_WITH_DISKS });
    } else if env::var("NEXTKERNEL_KVM").is_ok_and(|value| value == "1") {
        qemu.args(["-accel", "kvm"]);
    } else {
        qemu.args(["-accel", TCG]);
    }
    qemu.args(["-smp", "1", "-m", &setup.memory.to_string()])
        .args(["-nodefaults", "-display", "none", "-nic", "none"])
        .arg("-chardev")
        .arg(format!("{},logfile={},logappend=on", chardev("console"), setup.log.display()))
        .args(["-serial", "chardev:console"])
        .args(["-chardev", &chardev("agent"), "-serial", "chardev:agent"])
        .args(["-chardev", &chardev("monitor"), "-mon", "chardev=monitor,mode=control"]);
    for (number, disk) in setup.disks.iter().enumerate() {
        let (file, how) = match holds {
            Holds::Nothing => (disk.clone(), "format=raw,snapshot=on"),
            Holds::Making(directory) => (overlay(directory, number), "format=qcow2,cache=unsafe"),
            Holds::Saved(directory) => (overlay(directory, number), "format=qcow2,snapshot=on"),
        };
        qemu.arg("-drive").arg(format!("file={},{how},if=virtio", file.display()));
    }
    // Disks among these arguments come after those above, of which the first is /dev/vda.
    qemu.args(setup.args);
    if setup.waits {
        let channel = scratch.path("channel");
        let size = if matches!(holds, Holds::Nothing) { LARGE_CHANNEL_SIZE } else { CHANNEL_SIZE };
        let made = File::create(&channel).and_then(|file| file.set_len(size as u64));
        made.map_err(|e| format!("{}: {e}", channel.display()))?;
        // Shared memory would have to lie where it was when the machine was saved. The guest sees what is written
        // to the file all the same, because it never writes there itself.
        let memory =
            format!("memory-backend-file,id=channel,share=off,size={size},mem-path={}", channel.display());
        // The device has an address of its own, so that those of a test's devices stay as they are.
        qemu.args(["-object", &memory, "-device", "ivshmem-plain,memdev=channel,master=on,addr=0x1f"]);
    }
    if let Holds::Making(directory) | Holds::Saved(directory) = holds {
        // Writes to memory that is not shared stay with the machine that made them.
        let share = if matches!(holds, Holds::Making(_)) { "on" } else { "off" };
        let (size, file) = (setup.memory, directory.join(MEMORY));
        let memory =
            format!("memory-backend-file,id=ram,share={share},size={size}M,mem-path={}", file.display());
        qemu.args(["-object", &memory, "-machine", "memory-backend=ram"]);
    }
    if let Holds::Saved(_) = holds {
        qemu.args(["-incoming", "defer"]);
    }
    match setup.starts {
        Starts::Kernel { kernel, initrd, cmdline } => {
            qemu.args([Path::new("-kernel"), kernel, Path::new("-initrd"), initrd]);
            qemu.args(["-append", cmdline]);
        }
        Starts::Uefi(disk) => {
            qemu.args(OVMF).args(first(disk));
        }
        Starts::Verified(disk, variables) => {
            let variables = format!("if=pflash,unit=1,format=raw,snapshot=on,file={}", variables.display());
            qemu.args(SECURE_BOOT).args(["-drive", &variables]).args(first(disk));
        }
        Starts::Bios(disk) => {
            qemu.args(first(disk));
        }
    }
    Ok(qemu)
}

/// Returns the file with the writes of a saved machine to a disk.
fn overlay(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("disk.{number}"))
}

/// Returns randomness from the host, as hexadecimal digits.
fn seed() -> Result<String, String> {
    let half = || {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
        read.map(|()| u128::from_le_bytes(bytes)).map_err(|e| format!("/dev/urandom: {e}"))
    };
    Ok(format!("{:032x}{:032x}", half()?, half()?))
}

fn append(file: &Path, text: &str) -> io::Result<()> {
    File::options().create(true).append(true).open(file)?.write_all(text.as_bytes())
}

/// Returns the arguments for the disk that the firmware looks at first. Writes to it last over resets, and not
/// longer.
fn first(disk: &Path) -> [String; 4] {
    let drive = format!("id=first,if=none,format=raw,snapshot=on,file={}", disk.display());
    let device = "virtio-blk-pci,drive=first,bootindex=0";
    ["-drive".into(), drive, "-device".into(), device.into()]
}

fn listen(path: &Path) -> Result<UnixListener, String> {
    let listener = UnixListener::bind(path).map_err(|e| format!("{}: {e}", path.display()))?;
    listener.set_nonblocking(true).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream, String> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).map_err(|e| e.to_string())?;
            return Ok(stream);
        }
        if !child.try_wait().is_ok_and(|status| status.is_none()) {
            return Err("QEMU ended".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err("QEMU did not connect".into())
}
