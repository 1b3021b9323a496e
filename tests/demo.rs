//! Runs the demo: a Debian 13 with an updated kernel goes from the old kernel to the new one before your eyes,
//! and is then checked for lost data.
//!
//! `demo [DIRECTORY]`: the directory holds the installed product, `target/vm/installed` by default.

use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::image::Image;
use bed::machine::feed::{Feed, Silence};
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Writes a file; run before staging, and again at the last moment.
const WITNESS: &str = "head -c 1M /dev/urandom >/root/NAME && sha256sum /root/NAME";
/// Messages of ext4 about a root that was not left clean.
const UNCLEAN: [&str; 3] = ["recovering journal", "recovery complete", "orphan inode"];

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<(), String> {
    let test = Test { name: "demo".into(), image: Image::Demo };
    fs::create_dir_all(bed::host::paths::vm_directory().join("logs"))
        .map_err(|e| format!("target/vm/logs: {e}"))?;
    let mut spec = Spec { cold: true, ..Spec::new(&test) };
    if let Some(directory) = env::args_os().nth(1) {
        spec.installed = Some(directory.into());
    }
    test.image.files()?;
    say("a Debian 13 boots in QEMU, without KVM: half a minute");
    let mut guest = Guest::start(&spec)?;
    show(guest.machine().console.clone());
    let before = guest.await_boot()?;

    let link = guest.ok("readlink /vmlinuz")?;
    let installed = link.trim_end().rsplit_once("vmlinuz-").map_or("", |(_, release)| release);
    say(&format!("Linux {} runs, and an update has installed Linux {installed}", before.release));
    say("a job writes a file, the next kernel is staged, the job writes another");
    let first = guest.ok(&WITNESS.replace("NAME", "first"))?;
    for line in guest.ok("nextkernel stage 2>&1")?.lines() {
        println!("    {line}");
    }
    let second = guest.ok(&WITNESS.replace("NAME", "second"))?;
    let seen = guest.console().len();
    say("systemctl kexec");
    let verb = Instant::now();
    guest.send("systemctl kexec")?;
    // The first boot's line is still ahead of the console's cursor, and is skipped.
    guest.await_console("Linux version")?;
    guest.await_console("Linux version")?;
    let passage = verb.elapsed();
    let after = guest.await_boot()?;

    let sums = guest.ok("sha256sum /root/first /root/second")?;
    let cmdline = guest.ok("cat /proc/cmdline")?;
    let messages = guest.ok("dmesg")? + guest.console().get(seen..).unwrap_or_default();
    let unclean = UNCLEAN.iter().find(|text| messages.contains(**text));
    let facts = [
        ("it is the kernel of the update", after.release == installed && after.release != before.release),
        ("it is another boot, and no firmware ran", after.jumped() && after.boot_id != before.boot_id),
        ("both files are intact", sums == first + &second),
        ("the root was left clean", unclean.is_none()),
    ];
    say("summary");
    println!("    from   Linux {}  boot {}", before.release, before.boot_id);
    println!("    to     Linux {}  boot {}", after.release, after.boot_id);
    println!("    with   {}", cmdline.trim_end());
    println!("    after  {:.1} s, from the verb to the next kernel's first line", passage.as_secs_f64());
    for (fact, so) in facts {
        println!("    {}  {fact}", if so { "yes" } else { "NO " });
    }
    if facts.iter().all(|(_, so)| *so) {
        return Ok(());
    }
    Err(guest.tell("the handoff is not what it should be"))
}

fn say(what: &str) {
    println!("==> {what}");
}

/// Prints the console's output as it arrives, with the product's own lines highlighted.
fn show(console: Feed) {
    let bright = stdout().is_terminal();
    let mut shown = 0;
    thread::spawn(move || {
        loop {
            let more = console.wait(Duration::from_secs(60), |text| {
                let lines = text.get(shown..)?;
                lines.get(..=lines.rfind('\n')?).map(str::to_owned)
            });
            let lines = match more {
                Ok(lines) => lines,
                Err(Silence::Deadline) => continue,
                Err(Silence::Closed) => return,
            };
            shown += lines.len();
            for line in lines.lines().map(plain) {
                if line.contains("nextkernel: ") && bright {
                    println!("  \x1b[1;32m┃ {line}\x1b[0m");
                } else if line.contains("nextkernel: ") {
                    println!("  ┃ {line}");
                } else {
                    println!("  │ {line}");
                }
            }
        }
    });
}

/// Returns the line without escape sequences, because some make a terminal answer.
fn plain(line: &str) -> String {
    let mut pieces = line.trim_end().split('\x1b');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let mut after = piece.char_indices();
        let end = match after.next() {
            Some((_, '[')) => after.find(|(_, c)| ('@'..='~').contains(c)),
            Some((_, ']')) => after.find(|(_, c)| *c == '\x07'),
            one => one,
        };
        let rest = end.and_then(|(at, c)| piece.get(at + c.len_utf8()..));
        text += rest.unwrap_or_default();
    }
    text
}
