//! Measures the time that a person waits for with a whole Debian: from the command to the next system's default
//! target.

use crate::images::Images;
use crate::report::write_between;
use bed::disk::disks::Disks;
use bed::guest::whole::{Guest, Spec};
use bed::harness::Test;
use bed::host::paths::installed;
use bed::host::programs;
use bed::host::scratch::Scratch;
use bed::image::{self, Image};
use bed::initramfs;
use bed::initramfs::cpio::Cpio;
use std::fmt::Write;
use std::fs;

/// A method of getting to the next system.
pub struct Way {
    /// Name for the table.
    name: &'static str,
    /// Shell lines that prepare it while the system runs. The images are in /images, as they are and
    /// decompressed.
    prepares: &'static str,
    /// The command to hand over.
    command: &'static str,
    /// Whether the guest is without nextkernel.
    is_bare: bool,
}

/// The method to compare with.
const USUAL: usize = 0;

/// All methods. Debian's own systemd, if it loads the image, also does `kexec -s -l` and `systemctl kexec`.
pub const WAYS: [Way; 6] = [
    Way {
        name: "`kexec -s -l`, then `systemctl kexec`",
        prepares: "kexec -s -l /images/vmlinuz --initrd=/images/debians.img --reuse-cmdline",
        command: "systemctl kexec",
        is_bare: true,
    },
    Way {
        name: "`kexec -c -i --args-linux -l`, both decompressed by hand, then `systemctl kexec`",
        prepares: "kexec -c -i --args-linux -l /images/vmlinux --initrd=/images/debians.cpio --reuse-cmdline",
        command: "systemctl kexec",
        is_bare: true,
    },
    Way {
        name: "nextkernel as it comes",
        prepares: "nextkernel stage --kernel /images/vmlinuz --initrd /images/debians.img --reuse-cmdline",
        command: "systemctl kexec",
        is_bare: false,
    },
    Way {
        name: "nextkernel `--thaw`",
        prepares: "nextkernel stage --kernel /images/vmlinuz --initrd /images/debians.img --reuse-cmdline --thaw",
        command: "systemctl kexec",
        is_bare: false,
    },
    Way {
        name: "nextkernel `--thaw --preload no`",
        prepares: "nextkernel stage --kernel /images/vmlinuz --initrd /images/debians.img --reuse-cmdline --thaw --preload no",
        command: "systemctl start --no-block --job-mode=replace-irreversibly kexec.target",
        is_bare: false,
    },
    Way {
        name: "a full reboot, by QEMU's firmware, with that initrd",
        prepares: "true",
        command: "systemctl reboot",
        is_bare: true,
    },
];

/// Measures all methods, and writes the table.
pub fn bench() -> Result<(), String> {
    let rows: Vec<f64> = (0..WAYS.len()).map(row).collect::<Result<_, _>>()?;
    let usual = rows.get(USUAL).copied().unwrap_or(f64::NAN);
    let mut table =
        "| from the command to the default target | a person waits for | of `kexec -s` |\n|---|---|---|\n"
            .to_owned();
    for (way, waits) in WAYS.iter().zip(rows) {
        let _ = writeln!(table, "| {} | {:.2} G | {:.3} |", way.name, waits / 1e9, waits / usual);
    }
    println!("{table}");
    write_between("whole", &table)
}

/// Measures one method, in instructions.
pub fn row(number: usize) -> Result<f64, String> {
    let way = WAYS.get(number).ok_or_else(|| format!("there is no row {number}"))?;
    let images = Images::make()?;
    let test = Test { name: format!("bench.whole.{number}"), image: Image::Debian13 };
    let _ = fs::remove_file(test.log());
    let scratch = Scratch::new()?;
    let disk = scratch.path("images");
    image::disk(&images.directory, &disk, "images")?;
    let files = test.image.files()?;
    let spec = Spec {
        installed: (!way.is_bare).then(installed),
        adds: programs,
        disks: Some(Disks {
            disks: vec![test.image.root(&files)],
            initrd: images.debians.packed.clone(),
            root: "/dev/vda".into(),
            are_shared: true,
        }),
        qemu: vec!["-drive".into(), format!("if=virtio,format=raw,readonly=on,file={}", disk.display())],
        counting: true,
        memory: 2048,
        ..Spec::new(&test)
    };
    let mut guest = Guest::boot(&spec)?;
    guest.ok("systemctl is-system-running --wait")?;
    guest.ok(&format!(
        "mkdir /images && mount -o ro LABEL=images /images && {{ {}; }} && umount /images && sync",
        way.prepares
    ))?;
    let command = format!("count now >/dev/console; {} >/dev/console 2>&1", way.command);
    guest.skip_console();
    guest.send(&command)?;
    let [begun, _] = numbers(&guest.await_console("now ")?)?;
    let boot = guest.await_boot()?;
    if boot.jumped() == (way.command == "systemctl reboot") {
        return Err(guest.tell(&format!("it came another way: {boot:?}")));
    }
    guest.ok("systemctl is-system-running --wait")?;
    let [counter, up] = numbers(&guest.ok("count now")?)?;
    let reached = guest.ok("systemctl show default.target --value -p ActiveEnterTimestampMonotonic")?;
    let reached: f64 = reached.trim().parse().map_err(|e| guest.tell(&format!("{reached:?}: {e}")))?;
    let waits = counter - (up - reached * 1e3) - begun;
    eprintln!("bench: whole.{number}, {}: {:.3} G", way.name, waits / 1e9);
    Ok(waits)
}

fn programs(to: &mut Cpio) -> Result<(), String> {
    to.file("/usr/bin/count", 0o755, &programs::count()?);
    initramfs::program(to, &Image::Debian13.files()?.builder(), "/usr/sbin/kexec")
}

fn numbers(line: &str) -> Result<[f64; 2], String> {
    let mut numbers = line.split("now ").nth(1).unwrap_or_default().split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(counter)), Some(Ok(up))) => Ok([counter, up]),
        _ => Err(format!("{line:?} is not what count prints")),
    }
}
