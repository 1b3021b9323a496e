//! A unified kernel image and an addon for it, built by ukify in the builder and cached beside the image.

use crate::host::command;
use crate::image::Image;
use crate::initramfs::cpio::Cpio;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The addon's command line, which follows [`BASE`] or [`PROFILE`].
pub const ADDON: &str = "bed.addon=here";

/// The command line of the image and of its first profile.
pub const BASE: &str = "root=LABEL=root rw console=ttyS0 bed.profile=base";

/// The command line of its second profile.
pub const PROFILE: &str = "root=LABEL=root rw console=ttyS0 bed.profile=second";

/// Builds an image of two profiles, of which the second has its own command line (ukify(1), "Examples"); an
/// addon; and some images that are only listed.
const UKIFY: &str = "set -e
    cd /uki
    ukify build --profile='ID=second\nTITLE=Second' --cmdline=\"$PROFILE\" --output=second.efi
    ukify build --linux=/vmlinuz --initrd=/initrd.img --initrd=second.img --microcode=ucode.img \
        --os-release=@/usr/lib/os-release --uname=$(basename /usr/lib/modules/*) --cmdline=\"$BASE\" \
        --profile='ID=base\nTITLE=Base' --join-profile=second.efi --output=bed.efi
    ukify build --cmdline=\"$ADDON\" --output=bed.addon.efi
    echo tiny >tiny
    ukify build --linux=tiny --uname=6.9 --os-release='ID=bed\nPRETTY_NAME=Bed\nVERSION_ID=9' --output=tiny.efi
    ukify build --linux=tiny --uname=6.9 --output=named.efi \
        --os-release='ID=bed\nNAME=\"Named bed\"\nIMAGE_ID=app\nIMAGE_VERSION=2.5~rc1\nVERSION_ID=9'
    ukify build --profile='ID=rescue\nTITLE=Rescue' --cmdline=rescue --output=rescue.efi
    ukify build --profile='TITLE=Third' --cmdline=third --output=third.efi
    ukify build --linux=tiny --uname=6.9 --os-release='ID=app\nPRETTY_NAME=App\nVERSION_ID=2.5' \
        --profile='ID=base' --join-profile=rescue.efi --join-profile=third.efi --output=three.efi";

/// A file that Debian's initramfs sources when /dev is mounted, which is carried over to the root. Files that are
/// unpacked later replace those unpacked before.
const SOURCED: &str = "/conf/conf.d/bed";

/// The scripts that show in the next system which part of the initrd came last: `/dev/initrd-of-bed`.
const SECOND: &str = "echo second >/dev/initrd-of-bed; cat /ucode-of-bed >/dev/ucode-of-bed\n";
const UCODE: &str = "echo ucode >/dev/initrd-of-bed\n";

/// Returns the directory with `bed.efi` and `bed.addon.efi`, and with `tiny.efi`, `named.efi` and `three.efi`,
/// whose kernels would not start. Builds it first if it does not exist.
pub fn directory(image: Image) -> Result<PathBuf, String> {
    let files = image.files()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(include_bytes!("uki.rs"));
    let directory = files.made(&format!("uki-{:016x}", hasher.finish()));
    if directory.exists() {
        return Ok(directory);
    }
    let failed = |e| format!("{}: {e}", directory.display());
    let lock = File::create(files.made("uki.lock")).map_err(failed)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    if !directory.exists() {
        // If this process is killed, the next builder waits for the chroot, too, because its stdin is the lock.
        let stdin = lock.try_clone().map_err(failed)?;
        let inside = files.builder().join("uki");
        command::run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&inside))?;
        fs::create_dir(&inside).map_err(failed)?;
        initrds(&inside).map_err(failed)?;
        let mut ukify = Command::new("chroot");
        ukify.arg(files.builder()).args(["sh", "-c", UKIFY]).stdin(stdin);
        command::run(ukify.env("BASE", BASE).env("PROFILE", PROFILE).env("ADDON", ADDON))?;
        fs::rename(&inside, &directory).map_err(failed)?;
    }
    Ok(directory)
}

/// Writes the two parts of the initrd that can be told apart in the next system.
fn initrds(directory: &Path) -> std::io::Result<()> {
    let (mut ucode, mut second) = (Cpio::default(), Cpio::default());
    ucode.file("/ucode-of-bed", 0o644, b"here\n");
    ucode.file(SOURCED, 0o644, UCODE.as_bytes());
    second.file(SOURCED, 0o644, SECOND.as_bytes());
    fs::write(directory.join("ucode.img"), ucode.finish())?;
    fs::write(directory.join("second.img"), second.finish())
}
