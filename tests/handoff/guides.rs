//! Runs the README's installation steps and the guides of docs/guides literally, in a Debian without nextkernel:
//! the text is the test.

use bed::disk::storage::Storage;
use bed::guest::whole::{Guest, Spec};
use bed::guest::{kexec_tools, standins};
use bed::harness::Test;
use bed::host::command;
use bed::host::scratch::Scratch;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kexec::hand_over;
use super::packages;

/// Guides for which one guest has everything they need, in this order.
const IN_ONE_GUEST: [&str; 5] =
    ["migrating.md", "separate-boot.md", "several-initrds.md", "nvidia.md", "it-hangs.md"];
/// Guides for the guest whose root is in LUKS.
const IN_LUKS: [&str; 1] = ["luks-root.md"];

/// Commands that hand over to the next kernel, as the last line of a block.
const GOES_DOWN: [&str; 2] = ["systemctl kexec", "nextkernel reboot"];

/// Turns the guest into the machine that the guides assume: it used kexec-tools and a unit for it, has microcode
/// beside its initrd, and loads NVIDIA's modules at every boot. Does not run depmod, which takes minutes here.
const SITUATION: &str = "set -e
    tar -xf /root/kexec-tools.tar -C / 2>/dev/null
    cat /root/kexec-tools.status >>/var/lib/dpkg/status
    dpkg -s kexec-tools >/dev/null
    printf '%s\n' '[Service]' 'Type=oneshot' \
        'ExecStart=kexec -l /boot/vmlinuz-%i --initrd=/boot/initrd.img-%i --reuse-cmdline' \
        '[Install]' 'WantedBy=kexec.target' >/etc/systemd/system/kexec-load@.service
    systemctl enable \"kexec-load@$(uname -r)\"
    cd /tmp && mkdir -p kernel/x86/microcode etc && echo none >kernel/x86/microcode/AuthenticAMD.bin && echo one >etc/extra
    find kernel | cpio -o -H newc >/boot/amd-ucode.img
    find etc | cpio -o -H newc >/boot/extra.img
    cd /usr/lib/modules/$(uname -r)/updates
    load='for name in nvidia nvidia_modeset nvidia_drm nvidia_uvm; do insmod '$PWD'/$name.ko; done'
    echo \"install nvidia_drm $load\" >/etc/modprobe.d/nvidia.conf
    echo nvidia_drm >/etc/modules-load.d/nvidia.conf
    modprobe nvidia_drm
    lsmod | grep '^nvidia_uvm'";

/// A step of a guide.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Commands, the last of which may take the machine down.
    Commands(String),
    /// Lines expected in the output of the commands before, in this order.
    Says(String),
}

pub fn every_guide_is_walked_through_as_it_is_written(test: &Test) -> Result<(), String> {
    let known: BTreeSet<String> =
        ["README.md"].iter().chain(&IN_ONE_GUEST).chain(&IN_LUKS).map(|&name| name.into()).collect();
    let entries = fs::read_dir(docs("guides")).map_err(|e| format!("docs/guides: {e}"))?;
    let there: BTreeSet<String> =
        entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into()).collect();
    if there != known {
        return Err(format!(
            "the guides that are there, {there:?}, are not those that are walked: {known:?}"
        ));
    }

    let installed = Scratch::new()?;
    with_package(&installed)?;
    with_situation(test, &installed)?;
    let qemu = vec!["-device".into(), "edu".into()];
    let installed = Some(installed.path(""));
    let mut guest = newly_installed(&Spec { installed, qemu, ..Spec::new(test) })?;
    walk(&mut guest, &docs("../README.md"))?;
    guest.ok(SITUATION)?;
    for guide in IN_ONE_GUEST {
        walk(&mut guest, &docs("guides").join(guide))?;
    }
    walk(&mut guest, &docs("fleets.md"))
}

pub fn the_guide_for_a_root_in_luks_is_walked_through(test: &Test) -> Result<(), String> {
    let installed = Scratch::new()?;
    with_package(&installed)?;
    let disks = Some(Storage::Luks.disks()?);
    let mut guest = newly_installed(&Spec { disks, installed: Some(installed.path("")), ..Spec::new(test) })?;
    for guide in IN_LUKS {
        walk(&mut guest, &docs("guides").join(guide))?;
    }
    Ok(())
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Copies Debian's package to the directory where README.md builds it.
pub fn with_package(installed: &Scratch) -> Result<(), String> {
    let directory = installed.path("root/target/package");
    fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    command::run(Command::new("cp").arg(packages::deb()?).arg(&directory)).map(drop)
}

/// Adds the files that [`SITUATION`] uses.
fn with_situation(test: &Test, installed: &Scratch) -> Result<(), String> {
    let modules = Path::new("usr/lib/modules").join(test.image.files()?.release()?).join("updates");
    let modules = installed.path(&modules.to_string_lossy());
    let failed = |e| format!("{}: {e}", modules.display());
    fs::create_dir_all(&modules).map_err(failed)?;
    for name in ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"] {
        fs::write(modules.join(format!("{name}.ko")), standins::read(test.image, name)?).map_err(failed)?;
    }
    fs::write(installed.path("root/kexec-tools.tar"), kexec_tools::package(test.image)?).map_err(failed)?;
    fs::write(installed.path("root/kexec-tools.status"), kexec_tools::status(test.image)?).map_err(failed)
}

/// Boots a guest without nextkernel, and installs the package as README.md says. Uses `kexec_load`, which is
/// fastest in an emulated machine; the choice of the system call is not tested here.
pub fn newly_installed(spec: &Spec) -> Result<Guest, String> {
    let readme = docs("../README.md");
    let text = fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let install = text.lines().find_map(|line| {
        let (_, row) = line.split_once("| Debian")?;
        row.split('`').nth(1)?.strip_prefix("make deb && ")
    });
    let install = install.ok_or_else(|| format!("{}: no line installs on Debian", readme.display()))?;
    let mut guest = Guest::boot(spec)?;
    guest.ok("! command -v nextkernel && echo 'loader = direct' >/etc/nextkernel.conf")?;
    guest.ok(&typed(install))?;
    Ok(guest)
}

/// Returns commands as for the shell of a person who has logged in.
fn typed(commands: &str) -> String {
    format!("set -e\ncd\n{commands}")
}

/// Runs a page's commands in order, and compares their output with the page.
fn walk(guest: &mut Guest, page: &Path) -> Result<(), String> {
    let text = fs::read_to_string(page).map_err(|e| format!("{}: {e}", page.display()))?;
    let failed = |what: &str| format!("{}: {what}", page.display());
    let mut output = String::new();
    for step in steps(&text) {
        match step {
            Step::Commands(commands) => {
                let (day, last) = commands.rsplit_once('\n').unwrap_or(("", &commands));
                let last = last.split(" #").next().unwrap_or_default().trim_end();
                if GOES_DOWN.iter().any(|command| last.ends_with(command)) {
                    guest.ok(&typed(day)).map_err(|e| failed(&e))?;
                    hand_over(guest, last, "kexec").map_err(|e| failed(&e))?;
                    output = String::new();
                } else {
                    output = guest.ok(&typed(&commands)).map_err(|e| failed(&e))?;
                }
            }
            Step::Says(said) if says(&output, &said) => {}
            Step::Says(said) => return Err(failed(&format!("{said:?} is not said here:\n{output}"))),
        }
    }
    Ok(())
}

/// Returns the blocks of a page that are to be run, and those that show output.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let kind = match line {
            "```sh" => Step::Commands,
            "```text" => Step::Says,
            _ => continue,
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        steps.push(kind(block.join("\n")));
    }
    steps
}

/// Returns whether the output has all these lines, in order; `...` and white space match anything within a line.
fn says(output: &str, said: &str) -> bool {
    let mut output = output.lines();
    said.lines().all(|line| output.any(|told| is_of(told, line)))
}

/// Returns whether a line of output contains these words, in order.
fn is_of(told: &str, line: &str) -> bool {
    let mut rest = told;
    let mut words = line.split_whitespace().map(|word| word.trim_end_matches("..."));
    words.all(|word| rest.split_once(word).map(|(_, after)| rest = after).is_some())
}
