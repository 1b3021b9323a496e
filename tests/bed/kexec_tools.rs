//! The kexec of Debian's kexec-tools, for guests that are to have it after all.

use crate::image::Image;
use crate::{host, host_bytes};
use std::process::Command;

/// An archive of it and its libraries, to be unpacked at /.
pub fn archive(image: Image) -> Result<Vec<u8>, String> {
    let files = image.files()?;
    let (builder, tree) = (files.builder(), files.tree());
    let libraries = host(Command::new("chroot").arg(&builder).args(["ldd", "/usr/sbin/kexec"]))?;
    let libraries = libraries.split_whitespace().filter_map(|word| word.strip_prefix("/lib/"));
    // /lib is a link, which the archive must not replace; and what the guest has stays.
    let paths = libraries.map(|path| format!("usr/lib/{path}")).chain(["usr/sbin/kexec".into()]);
    let missing: Vec<_> = paths.filter(|path| !tree.join(path).exists()).collect();
    let mut tar = Command::new("tar");
    host_bytes(tar.args(["--dereference", "-cf", "-", "-C"]).arg(builder).args(missing))
}
