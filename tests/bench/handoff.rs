//! Measures the time that a person waits for in a handoff, for each method: from the old system's end to the
//! next system's first instruction, with as much work as possible done before.

use crate::images::{Images, Pair};
use bed::guest::shutdown::{Boots, Ended, Shutdown};
use bed::harness::Test;
use bed::host::paths::installed;
use bed::host::programs;
use bed::host::scratch::Scratch;
use bed::image::Image;
use bed::machine::setup::{Architecture, Setup, Starts};
use bed::machine::{End, Machine, with_last_lines};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The next kernel's command line. Quiet, because the serial console is not to be measured.
pub const LINE: &str = "console=ttyS0 quiet";

/// The slowest method takes 40 G instructions, and the host may be busy.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Path of the hook, where systemd-shutdown runs it.
const HOOK: &str = "/usr/lib/systemd/system-shutdown/nextkernel";

/// The file of a pair that is handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Packed,
    Plain,
}
use As::{Packed, Plain};

impl As {
    fn of(self, pair: &Pair) -> &Path {
        match self {
            Packed => &pair.packed,
            Plain => &pair.plain,
        }
    }
}

/// A method of handing over.
pub struct Method {
    /// Name for the table.
    pub name: &'static str,
    by: By,
}

enum By {
    /// Options of kexec(8), and the forms of kernel and initrd given to it.
    Kexec(&'static str, As, As),
    /// Options of `nextkernel stage`.
    Nextkernel(&'static str),
    /// QEMU itself starts the kernel, without a handoff.
    Qemu(As, As),
}
use By::{Kexec, Nextkernel, Qemu};

/// Methods to compare with: the one in common use, and the next system without any handoff.
pub const USUAL: usize = 0;
pub const FLOOR: usize = 11;

/// All methods.
pub const METHODS: [Method; 12] = [
    Method { name: "`kexec -s`", by: Kexec("-s", Packed, Packed) },
    Method { name: "`kexec -c`", by: Kexec("-c", Packed, Packed) },
    Method { name: "`kexec -c -i`", by: Kexec("-c -i", Packed, Packed) },
    Method {
        name: "`kexec -c -i --args-linux`, kernel decompressed by hand",
        by: Kexec("-c -i --args-linux", Plain, Packed),
    },
    Method { name: "the same, initrd too", by: Kexec("-c -i --args-linux", Plain, Plain) },
    Method { name: "nextkernel as it comes", by: Nextkernel("") },
    Method { name: "nextkernel `--loader direct`", by: Nextkernel("--loader direct") },
    Method { name: "nextkernel `--thaw`", by: Nextkernel("--thaw") },
    Method { name: "nextkernel `--preload no`", by: Nextkernel("--preload no") },
    Method { name: "nextkernel `--thaw --preload no`", by: Nextkernel("--thaw --preload no") },
    Method { name: "no handoff: QEMU starts the kernel", by: Qemu(Packed, Packed) },
    Method { name: "the same, both decompressed by hand", by: Qemu(Plain, Plain) },
];

/// Costs of one method.
pub struct Taken {
    /// Instructions while the system still runs: kexec's load, or the whole of `nextkernel stage`.
    pub before: f64,
    /// Instructions from `kexec -e`, or from the hook's first line, to the next system's first instruction.
    pub waits: f64,
    /// Peak memory of the loading program, in kilobytes.
    pub program: Option<f64>,
    /// Largest loss of the system's memory while loading, in kilobytes.
    pub system: Option<f64>,
}

/// Measures this method with this initrd, on a machine with `memory` MiB.
pub fn measure(
    method: &Method,
    images: &Images,
    initrd: &Pair,
    memory: u32,
    name: &str,
) -> Result<Taken, String> {
    let test = Test { name: format!("bench.{name}"), image: Image::Debian13 };
    let _ = fs::remove_file(test.log());
    match method.by {
        Kexec(options, kernel, as_initrd) => {
            let mut guest = shutdown(&test, "poweroff", as_initrd.of(initrd), memory)?;
            guest
                .host_file("/handed", 0o644, kernel.of(&images.kernel))?
                .builders_program("/usr/sbin/kexec")?;
            let _ = write!(
                guest.scenario,
                "count load kexec {options} -l /handed --initrd=/initrd --command-line='{LINE}'\ncount jump\n"
            );
            let ended = guest.run()?;
            let [load, program, system] = counted(&ended, "load")?;
            let waits = arrived(&ended)? - number(ended.line("leaves ")?, "leaves ")?;
            Ok(Taken { before: load, waits, program: Some(program), system: Some(system) })
        }
        Nextkernel(options) => {
            let mut guest = hook_shutdown(&test, &initrd.packed, memory)?;
            let _ = write!(
                guest.scenario,
                "count stage nextkernel stage --kernel /kernel --initrd /initrd --cmdline '{LINE}' {options}\n\
                 test -e /run/nextkernel/plan || poweroff -f\ncount clock\n"
            );
            let ended = guest.run()?;
            let [before, program, system] = counted(&ended, "stage")?;
            let waits = arrived(&ended)? - logged(&ended, "nextkernel: restart on a panic")?;
            Ok(Taken { before, waits, program: Some(program), system: Some(system) })
        }
        Qemu(kernel, as_initrd) => {
            let waits = started(&test, kernel.of(&images.kernel), as_initrd.of(initrd), memory)?;
            Ok(Taken { before: 0.0, waits, program: None, system: None })
        }
    }
}

/// Returns the guest of the first system, with the initrd.
fn shutdown(test: &Test, verb: &str, initrd: &Path, memory: u32) -> Result<Shutdown, String> {
    let mut guest = Shutdown::new(test, verb);
    guest.host_file("/initrd", 0o644, initrd)?;
    guest.file("/usr/bin/count", 0o755, programs::count()?);
    (guest.memory, guest.counting, guest.limit) = (memory, true, LIMIT);
    // The images are larger than those a restored guest can be given.
    (guest.real, guest.boots) = (true, Boots::Each);
    Ok(guest)
}

/// Returns a guest that ends by the hook.
pub fn hook_shutdown(test: &Test, initrd: &Path, memory: u32) -> Result<Shutdown, String> {
    let mut guest = shutdown(test, "kexec", initrd, memory)?;
    let installed = installed();
    guest.host_file(HOOK, 0o755, &installed.join(HOOK.trim_start_matches('/')))?;
    guest.host_file("/usr/bin/nextkernel", 0o755, &installed.join("usr/bin/nextkernel"))?;
    Ok(guest)
}

/// Returns the instructions from the firmware's first one to the system's first one.
fn started(test: &Test, kernel: &Path, initrd: &Path, memory: u32) -> Result<f64, String> {
    let setup = Setup {
        architecture: Architecture::X86_64,
        starts: Starts::Kernel { kernel, initrd, cmdline: LINE },
        memory,
        counting: true,
        disks: &[],
        args: &[],
        waits: false,
        log: &test.log(),
    };
    let mut machine = Machine::start(&setup, Scratch::new()?)?;
    let end = machine.await_end(LIMIT)?;
    let ended = Ended { end, console: machine.console.text(), agent: String::new(), real: true };
    arrived(&ended)
}

fn arrived(ended: &Ended) -> Result<f64, String> {
    ended.expect(End::PoweredOff)?;
    number(ended.line("arrived ")?, "arrived ")
}

/// Returns the numbers that `count` printed after a name.
pub fn counted(ended: &Ended, name: &str) -> Result<[f64; 3], String> {
    let line = ended.line(&format!("counted {name} "))?;
    let mut numbers = line.split_whitespace().skip(2).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    match (next(), next(), next()) {
        (Some(instructions), Some(program), Some(system)) => Ok([instructions, program, system]),
        _ => Err(with_last_lines(&format!("{line:?} is not what count prints"), &ended.console)),
    }
}

/// Returns the time from one line of the kernel log to another.
pub fn between(ended: &Ended, first: &str, second: &str) -> Result<f64, String> {
    Ok(stamp(ended.line(second)?)? - stamp(ended.line(first)?)?)
}

/// Returns the counter's value at this line of the kernel log, computed from the line that records the counter
/// itself.
fn logged(ended: &Ended, text: &str) -> Result<f64, String> {
    let known = ended.line("count: counter ")?;
    Ok(number(known, "counter ")? + stamp(ended.line(text)?)? - stamp(known)?)
}

/// Returns a line's time stamp, in ticks of the counter: nanoseconds.
fn stamp(line: &str) -> Result<f64, String> {
    let seconds = line.trim_start().strip_prefix('[').and_then(|line| line.split(']').next());
    let seconds: Option<f64> = seconds.and_then(|seconds| seconds.trim().parse().ok());
    seconds.map(|seconds| seconds * 1e9).ok_or_else(|| format!("{line:?} has no time stamp"))
}

fn number(line: &str, behind: &str) -> Result<f64, String> {
    let digits = line.split(behind).nth(1).map(str::trim);
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| format!("no number behind {behind:?}: {line:?}"))
}
