//! The kexec program of Debian's kexec-tools, for guests that need it after all.

use crate::host::command;
use crate::image::Image;
use std::process::Command;

/// Returns an archive of kexec and its libraries, to be unpacked at /.
pub fn archive(image: Image) -> Result<Vec<u8>, String> {
    let files = image.files()?;
    let (builder, tree) = (files.builder(), files.tree());
    let libraries = command::run(Command::new("chroot").arg(&builder).args(["ldd", "/usr/sbin/kexec"]))?;
    let libraries = libraries.split_whitespace().filter_map(|word| word.strip_prefix("/lib/"));
    // /lib is a link, which the archive must not replace. Files that the guest has already are left out.
    let paths = libraries.map(|path| format!("usr/lib/{path}")).chain(["usr/sbin/kexec".into()]);
    let missing: Vec<_> = paths.filter(|path| !tree.join(path).exists()).collect();
    let mut tar = Command::new("tar");
    command::run_bytes(tar.args(["--dereference", "-cf", "-", "-C"]).arg(builder).args(missing))
}

/// Returns an archive of the whole package as it is installed, without its libraries.
pub fn package(image: Image) -> Result<Vec<u8>, String> {
    let builder = image.files()?.builder();
    let list = "cd \"$1\" && { find var/lib/dpkg/info -name 'kexec-tools.*'; echo etc/default/kexec; \
        sed 's|^/||' var/lib/dpkg/info/kexec-tools.list | while read -r path; do \
        [ -z \"$path\" ] || [ -d \"$path\" ] || ! [ -e \"$path\" ] || echo \"$path\"; done; } | tar -cf - -T -";
    command::run_bytes(Command::new("sh").args(["-c", list, "sh"]).arg(builder))
}

/// Returns the package's entry in the status file of dpkg(1).
pub fn status(image: Image) -> Result<String, String> {
    let builder = image.files()?.builder();
    let status = command::run(Command::new("chroot").arg(builder).args(["dpkg", "-s", "kexec-tools"]))?;
    Ok(format!("\n{status}\n"))
}
