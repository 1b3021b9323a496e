//! One QEMU process: its console, its monitor, and how it ended.

use crate::feed::{Feed, Silence};
use crate::host;
use crate::monitor::{Monitor, Picture};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, process};

/// QEMU has no more to do before it connects than to open its disks; a busy host may read them first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// With QEMU's own, large cache of translations the boot after a reset is half as fast: every page
/// that held code before is invalidated one by one (33 s against 19 s, Debian 12).
const TCG: &str = "tcg,thread=multi,tb-size=128";
/// One instruction is one nanosecond, and so one tick of the time-stamp counter, whatever the host does; idle time
/// is skipped.
const COUNTING: [&str; 4] = ["-accel", "tcg,thread=single,tb-size=128", "-icount", "shift=0,sleep=off"];
/// With a disk it takes as long as it takes: the host answers in its own time, and skipped would be whatever is waited for beside.
const COUNTING_WITH_DISKS: [&str; 4] =
    ["-accel", "tcg,thread=single,tb-size=128", "-icount", "shift=0,sleep=on"];
/// UEFI, from Debian's package ovmf. Its variables last over resets, as disks do, and not longer.
const OVMF: [&str; 4] = [
    "-drive",
    "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
    "-drive",
    "if=pflash,unit=1,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd",
];
/// The same with Secure Boot and Microsoft's keys; nobody but the firmware can write these variables.
const SECURE_BOOT: [&str; 6] = [
    "-machine",
    "q35,smm=on",
    "-global",
    "driver=cfi.pflash01,property=secure,value=on",
    "-drive",
    "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
];
/// What a guest says on ttyS1 when it waits for its files (`tests/restored.c`), and how long it may take until then.
pub const WAITS: &str = "@waits";
const WAITING_LIMIT: Duration = Duration::from_secs(240);
/// The most that a guest is given: modules of a large driver, and a kernel; where it is not restored, what is measured, too.
const CHANNEL_SIZE: usize = 64 << 20;
const LARGE_CHANNEL_SIZE: usize = 256 << 20;
/// The files of a machine that was saved: its memory; its devices; its console up to then.
const MEMORY: &str = "memory";
const STATE: &str = "state";
const CONSOLE: &str = "console";
/// The console's end that an error shows.
const LAST_LINES: usize = 40;

/// What is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// A PC.
    X86_64,
    /// QEMU's own board, described by a device tree. It has one serial port, and so no [`Machine::agent`].
    Arm64,
    /// The same.
    Riscv64,
}

impl Architecture {
    /// QEMU for it, and the least that it must be told. The newest processor checks every pointer that a function
    /// returns to, which takes the most time when emulated.
    fn qemu(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["qemu-system-x86_64", "-cpu", "max"],
            Self::Arm64 => &["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"],
            Self::Riscv64 => &["qemu-system-riscv64", "-machine", "virt"],
        }
    }
}

/// What the firmware starts.
#[derive(Clone, Copy)]
pub enum Starts<'a> {
    /// A kernel that QEMU hands it.
    Kernel {
        /// It.
        kernel: &'a Path,
        /// Its initrd.
        initrd: &'a Path,
        /// Its command line.
        cmdline: &'a str,
    },
    /// The boot loader on a disk's EFI system partition. The firmware is UEFI's then.
    Uefi(&'a Path),
    /// The same under Secure Boot, with these variables of the firmware's.
    Verified(&'a Path, &'a Path),
    /// The boot loader in a disk's first sector.
    Bios(&'a Path),
}

/// What to start.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// What is emulated.
    pub architecture: Architecture,
    /// What the firmware starts.
    pub starts: Starts<'a>,
    /// MiB of memory.
    pub memory: u32,
    /// Whether the time-stamp counter counts instructions.
    pub counting: bool,
    /// Disks, in their order. What is written to them lasts over resets, and not longer.
    pub disks: &'a [PathBuf],
    /// More for QEMU.
    pub args: &'a [String],
    /// Whether it waits in `tests/restored.c` until [`Machine::give`] gives it its files.
    pub waits: bool,
    /// The console is appended to this file.
    pub log: &'a Path,
}

/// A running machine. It dies with this value, and with the *thread* that started it: keep both
/// together.
pub struct Machine {
    child: Child,
    /// Everything on ttyS0.
    pub console: Feed,
    /// Events and commands.
    pub monitor: Monitor,
    /// What is written to ttyS1.
    pub agent: UnixStream,
    /// Everything that the guest writes to ttyS1.
    pub answers: Feed,
    scratch: Scratch,
    is_restored: bool,
}

/// Where a machine's memory and disks are.
enum Holds<'a> {
    /// Gone with the machine.
    Nothing,
    /// In this folder, which is being made, to be saved.
    Making(&'a Path),
    /// As they were saved in this folder, which stays as it is.
    Saved(&'a Path),
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Power off.
    PoweredOff,
    /// The firmware would boot again; only seen with `-no-reboot`.
    Reset,
    /// "System halted", with the power on.
    Halted,
    /// It still ran at the deadline.
    TimedOut,
}

impl Machine {
    /// Starts QEMU, and the firmware; the scratch folder can hold files of the caller.
    pub fn start(setup: &Setup, scratch: Scratch) -> Result<Self, String> {
        let mut machine = Self::run(setup, scratch, &Holds::Nothing)?;
        machine.monitor.command("cont")?;
        Ok(machine)
    }

    /// Starts a machine that will be saved in this folder, by [`Machine::save`].
    pub fn start_for_saving(setup: &Setup, scratch: Scratch, folder: &Path) -> Result<Self, String> {
        for (number, disk) in setup.disks.iter().enumerate() {
            let mut create = Command::new("qemu-img");
            create
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                .arg(disk)
                .arg(overlay(folder, number));
            host(&mut create)?;
        }
        let mut machine = Self::run(setup, scratch, &Holds::Making(folder))?;
        machine.monitor.command("cont")?;
        Ok(machine)
    }

    /// Saves a machine that waits for its files, and ends it.
    pub fn save(mut self, folder: &Path) -> Result<(), String> {
        self.await_waiting()?;
        self.monitor.save(&folder.join(STATE)).map_err(|error| self.tell(&error))?;
        let console = folder.join(CONSOLE);
        fs::write(&console, self.console.text()).map_err(|e| format!("{}: {e}", console.display()))?;
        self.monitor.command("quit")?;
        self.child.wait().map(drop).map_err(|e| format!("QEMU: {e}"))
    }

    /// Starts QEMU with what [`Machine::save`] saved of a machine with the same setup. It goes on when it is given its
    /// files.
    pub fn restore(setup: &Setup, scratch: Scratch, folder: &Path) -> Result<Self, String> {
        Self::run(setup, scratch, &Holds::Saved(folder))
    }

    /// Gives the guest its files, and lets it go on.
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
            Holds::Saved(folder) => fs::read_to_string(folder.join(CONSOLE))
                .and_then(|text| append(setup.log, &text).map(|()| text))
                .map_err(|e| format!("{}: {e}", folder.display()))?,
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
        if let Holds::Saved(folder) = holds {
            monitor.restore(&folder.join(STATE))?;
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

    /// Waits until the machine is off or halted; at the deadline it is [`End::TimedOut`].
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

    /// What is on the screen.
    pub fn picture(&mut self) -> Result<Picture, String> {
        let file = self.scratch.path("screen");
        let drawn = self.monitor.screendump(&file).and_then(|()| Picture::read(&file));
        drawn.map_err(|error| self.tell(&error))
    }

    /// A failure with the last lines of the console and what QEMU itself complained about.
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

/// A failure with the end of a console.
#[must_use]
pub fn with_last_lines(what: &str, console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
    format!("{what}\n--- the console's last lines ---\n{}", last.join("\n"))
}

/// QEMU with all that it is told.
fn qemu(setup: &Setup, scratch: &Scratch, holds: &Holds) -> Result<Command, String> {
    let chardev = |name: &str| format!("socket,id={name},path={}", scratch.path(name).display());
    let mut qemu = Command::new("setpriv");
    // A test that is killed takes its machines along.
    qemu.args(["--pdeathsig", "KILL"]).args(setup.architecture.qemu()).arg("-S");
    // KVM is for those who know that theirs works (research: here it hangs).
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
            Holds::Making(folder) => (overlay(folder, number), "format=qcow2,cache=unsafe"),
            Holds::Saved(folder) => (overlay(folder, number), "format=qcow2,snapshot=on"),
        };
        qemu.arg("-drive").arg(format!("file={},{how},if=virtio", file.display()));
    }
    // Disks among these come after those above: the first one is /dev/vda.
    qemu.args(setup.args);
    if setup.waits {
        let channel = scratch.path("channel");
        let size = if matches!(holds, Holds::Nothing) { LARGE_CHANNEL_SIZE } else { CHANNEL_SIZE };
        let made = File::create(&channel).and_then(|file| file.set_len(size as u64));
        made.map_err(|e| format!("{}: {e}", channel.display()))?;
        // Shared memory would have to lie where it was when it was saved. What is written to the file is seen all the
        // same, for the guest never writes there.
        let memory =
            format!("memory-backend-file,id=channel,share=off,size={size},mem-path={}", channel.display());
        // At an address of its own: those of a test's devices stay as they are.
        qemu.args(["-object", &memory, "-device", "ivshmem-plain,memdev=channel,master=on,addr=0x1f"]);
    }
    if let Holds::Making(folder) | Holds::Saved(folder) = holds {
        // What is written to memory that is not shared stays with the machine that wrote it.
        let share = if matches!(holds, Holds::Making(_)) { "on" } else { "off" };
        let (size, file) = (setup.memory, folder.join(MEMORY));
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

/// The writes to a disk of a machine that was saved.
fn overlay(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("disk.{number}"))
}

/// Randomness of the host, in hexadecimal digits.
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

/// The disk that the firmware looks at first. What is written to it lasts over resets, and not longer.
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

/// A folder in the system's temporary one (socket paths must be short), removed with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    pub fn new() -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("nextkernel-bed.{}.{count}", process::id()));
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
