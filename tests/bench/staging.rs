//! Measures the cost of staging, compared with that of its parts: in instructions of one guest, and in memory.

use crate::report::write_between;
use bed::guest::shutdown::{Ended, Shutdown};
use bed::harness::Test;
use bed::host::paths::vm_directory;
use bed::host::programs;
use bed::image::Image;
use bed::machine::{End, with_last_lines};
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// Numbers of copies of Debian's initrd, joined to some 40 and 200 MB; the kernel is Debian's, too.
const INITRDS: [u64; 2] = [4, 19];

/// Number of measurements of each: the cost of a load depends on which memory is free.
const ROUNDS: usize = 3;

/// Limit for some 130 G instructions in one run, on a host that may be busy.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// The guest's part, for each initrd. Every load begins with nothing loaded, and with both files copied to /run.
const MEASURE: &str = "
    for member in $(seq SIZE); do cat /member; done >/initrd
    echo SIZE.size $(wc -c </initrd)
    mkdir /run/copies
    for round in $(seq ROUNDS); do
        count SIZE.cp cp /kernel /initrd /run/copies
        count SIZE.kexec kexec -s -l /kernel --initrd=/run/copies/initrd --command-line=x
        kexec -s -u
        rm /run/copies/*
        count SIZE.stage nextkernel stage --kernel /kernel --initrd /initrd --cmdline x
        nextkernel unstage
        count SIZE.copy nextkernel stage --kernel /kernel --initrd /initrd --cmdline x --no-rehearse
        nextkernel unstage
    done
";

pub fn bench() -> Result<(), String> {
    let test = Test { name: "bench".into(), image: Image::Debian13 };
    fs::create_dir_all(vm_directory().join("logs")).map_err(|e| format!("target/vm/logs: {e}"))?;
    let mut guest = Shutdown::new(&test, "poweroff");
    guest.host_file("/usr/bin/nextkernel", 0o755, &vm_directory().join("installed/usr/bin/nextkernel"))?;
    // Each copy begins at a multiple of 4.
    let initrd = Image::Debian13.files()?.initrd();
    let mut member = fs::read(&initrd).map_err(|e| format!("{}: {e}", initrd.display()))?;
    member.resize(member.len().next_multiple_of(4), 0);
    guest.file("/member", 0o644, member);
    guest.program("/usr/bin/cp")?.builders_program("/usr/sbin/kexec")?;
    guest.file("/usr/bin/count", 0o755, programs::count()?);
    // The kernel's own messages would interrupt ours.
    guest.scenario = "dmesg -n 1\necho \"versions $(date -I), Linux $(uname -r), $(kexec --version), \
        $(nextkernel --version)\"\n"
        .into();
    let measure = MEASURE.replace("ROUNDS", &ROUNDS.to_string());
    guest.scenario.extend(INITRDS.map(|size| measure.replace("SIZE", &size.to_string())));
    (guest.memory, guest.counting, guest.limit) = (2048, true, LIMIT);
    guest.real = true;
    eprintln!(
        "bench: one guest, one instruction after the other: four minutes, more where others are at work"
    );
    let ended = guest.run()?;
    ended.expect(End::PoweredOff)?;
    print(&ended)
}

/// Costs of one program, for each round.
struct Counted {
    instructions: Vec<f64>,
    kilobytes: Vec<f64>,
}

impl Counted {
    fn find(ended: &Ended, name: &str) -> Result<Counted, String> {
        let start = format!("counted {name} ");
        let lines = ended.console.lines().filter_map(|line| line.strip_prefix(&start));
        let numbers = lines.filter_map(|line| {
            let mut numbers = line.split(' ');
            let (instructions, kilobytes) = (numbers.next()?, numbers.next()?);
            Some::<(f64, f64)>((instructions.parse().ok()?, kilobytes.parse().ok()?))
        });
        let (mut instructions, mut kilobytes): (Vec<_>, Vec<_>) = numbers.unzip();
        if instructions.len() != ROUNDS {
            return Err(with_last_lines(&format!("{name} was not measured"), &ended.console));
        }
        instructions.sort_by(f64::total_cmp);
        kilobytes.sort_by(f64::total_cmp);
        Ok(Counted { instructions, kilobytes })
    }

    /// Returns the median, in thousand millions of instructions.
    fn median(&self) -> f64 {
        let middle = self.instructions.get(self.instructions.len() / 2);
        middle.copied().unwrap_or(f64::NAN) / 1e9
    }

    /// Returns the least and the most, in thousand millions of instructions.
    fn range(&self) -> (f64, f64) {
        let at = |one: Option<&f64>| one.copied().unwrap_or(f64::NAN) / 1e9;
        (at(self.instructions.first()), at(self.instructions.last()))
    }

    /// Returns the most memory, in MB.
    fn memory(&self) -> f64 {
        self.kilobytes.last().copied().unwrap_or(f64::NAN) * 1024.0 / 1e6
    }
}

fn print(ended: &Ended) -> Result<(), String> {
    println!("{}\n", ended.line("versions ")?.trim_start_matches("versions ").trim_end());
    let mut table =
        "| initrd | `cp` | `kexec -s -l` | both | `nextkernel stage` | ratio | at worst | `--no-rehearse` | \
                     memory of `kexec` | of `nextkernel` |\n|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for size in INITRDS {
        let counted = |name| Counted::find(ended, &format!("{size}.{name}"));
        let (cp, kexec, stage, copy) =
            (counted("cp")?, counted("kexec")?, counted("stage")?, counted("copy")?);
        let both = cp.median() + kexec.median();
        let bytes: f64 = {
            let line = ended.line(&format!("{size}.size "))?;
            line.split(' ').next_back().and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(f64::NAN)
        };
        let _ = writeln!(
            table,
            "| {:.0} MB | {:.2} G | {:.2} G | {both:.2} G | {:.2} G | {:.2} | {:.2} | {:.2} G | {:.1} MB | {:.1} MB |",
            bytes / 1e6,
            cp.median(),
            kexec.median(),
            stage.median(),
            stage.median() / both,
            stage.range().1 / (cp.range().0 + kexec.range().0),
            copy.median(),
            kexec.memory(),
            stage.memory(),
        );
    }
    println!("{table}");
    write_between("staging", &table)
}
