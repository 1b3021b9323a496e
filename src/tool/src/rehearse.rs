//! Really loading the staged image by day, so that whatever the kernel has against it is said now.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nextkernel_plan::{Record, Recorded, limits};
use thiserror::Error;

use crate::errno::ByName;
use crate::memory;
use crate::root::Root;
use crate::size::Size;
use crate::sys;

/// How often a load is tried that another one is in the way of, and how far apart.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the kernel has against it, in one sentence with the way out.
#[derive(Debug, Error)]
#[error("the kernel refuses to {act} the image: {why} ({})", ByName(.errno))]
pub struct Error {
    act: &'static str,
    why: String,
    errno: io::Error,
}

/// Loads the image with a command line of the greatest length that the night may need. What was
/// loaded stays if this fails.
pub fn load(root: &Root, kernel: &File, initrd: Option<&File>, cmdline: &str) -> Result<(), Error> {
    // It has the record's name, so that whoever reuses the line drops it, and no handoff's id.
    let record = format!("{:x<1$}", format!("{}=", Record::KEY), limits::RECORD_MAX - 1);
    let longest = CString::new(Recorded { cmdline, record }.to_string()).unwrap_or_default();
    let initrd_fd = initrd.map(AsFd::as_fd);
    unless_busy(|| sys::kexec_file_load(kernel.as_fd(), initrd_fd, &longest)).map_err(|errno| {
        let size = |file: &File| file.metadata().map_or(0, |found| found.len());
        let why = explain(
            &errno,
            &Bar::find(root),
            size(kernel) + initrd.map_or(0, size),
            memory::total(root).unwrap_or(0),
        );
        Error { act: "load", why, errno }
    })
}

/// How many calls of `kexec_file_load(2)` the system allows until the next boot; `None` where there is no
/// limit. Failed ones and unloading count, too (Documentation/admin-guide/sysctl/kernel.rst).
#[must_use]
pub fn calls_left(root: &Root) -> Option<u64> {
    root.fact("/proc/sys/kernel/kexec_load_limit_reboot")?.parse().ok()
}

/// Unloads what is loaded.
pub fn unload(root: &Root) -> Result<(), Error> {
    unless_busy(sys::kexec_unload).map_err(|errno| {
        let why = explain(&errno, &Bar::find(root), 0, 0);
        Error { act: "unload", why, errno }
    })
}

fn unless_busy(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 0..BUSY_TRIES {
        match call() {
            Err(errno) if errno.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(BUSY_PAUSE),
            answer => return answer,
        }
    }
    call()
}

/// What the system has set against loading: of what may be behind an EPERM, the first that is so.
#[derive(Debug, PartialEq, Eq)]
enum Bar {
    NotRoot,
    Disabled,
    LimitSpent,
    Lockdown,
    NoCapability,
}

impl Bar {
    fn find(root: &Root) -> Bar {
        let is = |path, value| root.fact(path).as_deref() == Some(value);
        let lockdown = root.fact("/sys/kernel/security/lockdown").unwrap_or_default();
        if !nix::unistd::geteuid().is_root() {
            Bar::NotRoot
        } else if is("/proc/sys/kernel/kexec_load_disabled", "1") {
            Bar::Disabled
        } else if is("/proc/sys/kernel/kexec_load_limit_reboot", "0") {
            Bar::LimitSpent
        } else if lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]") {
            Bar::Lockdown
        } else {
            Bar::NoCapability
        }
    }
}

/// One sentence for each answer of `kexec_file_load(2)` (`kernel/kexec_file.c`, `kernel/kexec_core.c`,
/// arch/x86/kernel/kexec-bzimage64.c, `crypto/asymmetric_keys/verify_pefile.c`).
fn explain(errno: &io::Error, bar: &Bar, size: u64, memory: u64) -> String {
    let half = memory / 2;
    match errno.raw_os_error().unwrap_or(0) {
        libc::EPERM => match bar {
            Bar::NotRoot => "it takes root; run this with sudo",
            Bar::Disabled => {
                "kernel.kexec_load_disabled is 1 and stays so until the next boot; find out who sets it \
                 (grep -r kexec_load_disabled /etc/sysctl.d /usr/lib/sysctl.d)"
            }
            Bar::LimitSpent => {
                "kernel.kexec_load_limit_reboot is spent; each attempt costs one, and only a boot gives new ones"
            }
            Bar::Lockdown => {
                "lockdown is in force, and the kernel image has no signature by a key that this kernel knows; stage a \
                 kernel signed by the distribution, or start without lockdown= (Debian's kernels know their own \
                 signer's key under Secure Boot alone)"
            }
            Bar::NoCapability => "CAP_SYS_BOOT is missing; is this a container? run it on the machine itself",
        }
        .into(),
        libc::EACCES => "IMA or a security module refused it; its policy must allow this kernel file".into(),
        libc::EBUSY => "another load has been under way for some seconds; try again".into(),
        libc::EINVAL if size > half && half > 0 => format!(
            "kernel and initrd are {} large, more than half of this machine's memory ({}); a smaller initrd is needed",
            Size(size),
            Size(half)
        ),
        libc::EINVAL => "it is no kernel image for this machine, or does not fit into its memory; name a kernel".into(),
        libc::ENOEXEC => {
            "it is no kernel image that this kernel can load; name a kernel (on x86 a bzImage, as in /boot/vmlinuz-*)".into()
        }
        libc::EADDRNOTAVAIL => "there is no free place in memory where it could lie; a smaller initrd may fit".into(),
        libc::ENOMEM => format!("there is not enough free memory for another {}; free some", Size(size)),
        libc::ETXTBSY => "the file is open for writing; stage again when it is complete".into(),
        libc::EFBIG => "it is larger than 4 GiB; a smaller one is needed".into(),
        libc::EIO => "it could not be read whole; check the disk it is on".into(),
        libc::ENODATA => "it carries no signature, and this kernel demands one; stage a signed kernel".into(),
        libc::ENOKEY => {
            "it is signed by a key that this kernel does not know; enrol the key or stage another kernel".into()
        }
        libc::EKEYREJECTED => "its signature is bad; install the kernel package again".into(),
        libc::ELIBBAD => "it is no signed PE file, and this kernel demands one; stage a signed kernel".into(),
        libc::ENOPKG => "this kernel lacks the algorithm of its signature; stage another kernel".into(),
        libc::EMSGSIZE => "its signature has a form that this kernel does not read; stage another kernel".into(),
        libc::ENOSYS => {
            "this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE); no other loader is there yet".into()
        }
        _ => "for a reason that is not known; the kernel log may say more (dmesg)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(errno: i32, bar: &Bar, memory: u64) -> String {
        explain(&io::Error::from_raw_os_error(errno), bar, 600, memory)
    }

    #[test]
    fn what_forbids_a_load_is_told_apart() {
        for (bar, named) in [
            (Bar::NotRoot, "sudo"),
            (Bar::Disabled, "kexec_load_disabled"),
            (Bar::LimitSpent, "kexec_load_limit_reboot"),
            (Bar::Lockdown, "lockdown"),
            (Bar::NoCapability, "CAP_SYS_BOOT"),
        ] {
            assert!(sentence(libc::EPERM, &bar, 0).contains(named));
        }
    }

    #[test]
    fn too_little_memory_is_told_from_a_wrong_image() {
        assert!(sentence(libc::EINVAL, &Bar::NoCapability, 1000).contains("half"));
        assert!(sentence(libc::EINVAL, &Bar::NoCapability, 10_000).contains("no kernel image"));
    }

    #[test]
    fn every_answer_of_the_kernel_has_a_sentence_of_its_own() {
        let mut sentences = Vec::new();
        for errno in [
            libc::EPERM,
            libc::EACCES,
            libc::EBUSY,
            libc::EINVAL,
            libc::ENOEXEC,
            libc::EADDRNOTAVAIL,
            libc::ENOMEM,
            libc::ETXTBSY,
            libc::EFBIG,
            libc::EIO,
            libc::ENODATA,
            libc::ENOKEY,
            libc::EKEYREJECTED,
            libc::ELIBBAD,
            libc::ENOPKG,
            libc::EMSGSIZE,
            libc::ENOSYS,
            libc::ENFILE,
        ] {
            let new = sentence(errno, &Bar::NotRoot, 0);
            assert!(!sentences.contains(&new), "{new}");
            sentences.push(new);
        }
    }
}
