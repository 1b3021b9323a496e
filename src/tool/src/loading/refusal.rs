//! Explains a refusal to load or unload, from the kernel's answer and from the system's restrictions.

use std::fs::File;
use std::io;

use crate::image::header::{Flat, Header};
use crate::loading::policy::{Against, hands_memory_over};
use crate::loading::restriction::Restriction;
use crate::loading::syscall::no_call;
use crate::machine::root::Root;
use crate::machine::{memory, processor};
use crate::words::size::Size;

/// Bytes that the kernel adds to the length of a command line before it compares that with the image's maximum
/// (`MAX_ELFCOREHDR_STR_LEN`, arch/x86/kernel/kexec-bzimage64.c).
const HEAD_ROOM: u64 = 30;

/// The image that was to be loaded.
#[derive(Debug)]
pub struct Image {
    /// The facts in the kernel image's header.
    pub header: Header,
    /// The sizes in bytes of the kernel's file and of the initrd's.
    pub sizes: (u64, u64),
    /// The length of the command line in bytes, including the final NUL.
    pub cmdline: u64,
}

impl Image {
    /// Describes the image in these open files.
    #[must_use]
    pub fn of(kernel: &File, initrd: Option<&File>, cmdline: u64) -> Image {
        let size = |file: &File| file.metadata().map_or(0, |found| found.len());
        Image { header: Header::read(kernel), sizes: (size(kernel), initrd.map_or(0, size)), cmdline }
    }

    /// Returns how many bytes of memory the image's segments take while it is loaded.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.header.takes(self.sizes.0).saturating_add(self.sizes.1)
    }

    /// Returns how many bytes of memory the load itself takes: the kernel first reads the files as a whole,
    /// then fills the segments from them (`kimage_file_alloc_init`, `kernel/kexec_file.c`).
    #[must_use]
    pub fn to_load(&self) -> u64 {
        self.sizes.0.saturating_add(self.sizes.1).saturating_add(self.memory())
    }
}

/// Explains an error of `kexec_file_load` in one sentence (`kernel/kexec_file.c`, `kernel/kexec_core.c`,
/// `fs/kernel_read_file.c`, arch/x86/kernel/kexec-bzimage64.c, `crypto/asymmetric_keys/verify_pefile.c`). A
/// restriction that already held before the call comes first.
#[must_use]
pub fn of_load(root: &Root, errno: &io::Error, before: Option<Restriction>, image: &Image) -> String {
    match errno.raw_os_error().unwrap_or(0) {
        libc::EPERM => forbidden(before.or_else(|| Restriction::to_images(root))),
        libc::EACCES => "IMA or a security module (SELinux, IPE) refused this kernel file; its policy must allow it, or \
                         the file needs the signature that it asks for (the kernel log has more: dmesg, ausearch)"
            .into(),
        libc::EBUSY => busy(root),
        libc::EINVAL => invalid(root, image),
        libc::ENOEXEC => wrong_image(root, &image.header).unwrap_or_else(|| match image.header {
            // Older kernels have no loader for an Image (`kexec_file_loaders`,
            // arch/riscv/kernel/machine_kexec_file.c).
            Header::Flat(Flat { machine: "riscv64", .. }) => {
                "older kernels for RISC-V load no Image, but their ELF file (vmlinux) alone; name that, or run a newer \
                 kernel"
                    .into()
            }
            _ => "it is no kernel image that this kernel can load; name a kernel (on x86 a bzImage, as in /boot/vmlinuz-*)".into(),
        }),
        libc::EADDRNOTAVAIL if hands_memory_over(root) => {
            "the kernel hands memory over (kho=on), places images in the memory kept for that alone, and it is too \
             small; start this kernel with a larger kho_scratch=, or without kho=on"
                .into()
        }
        libc::EADDRNOTAVAIL => "there is no free place in memory where it could lie; a smaller initrd may fit".into(),
        libc::ENOMEM => {
            let size = Size(image.sizes.0 + image.sizes.1);
            format!("there is not enough free memory for another {size}; free some")
        }
        libc::ETXTBSY => "the file is open for writing; stage again when it is complete".into(),
        libc::EFBIG => "it is larger than this kernel loads, which is 4 GiB, and 2 GiB before Linux 6.0; a smaller one is needed".into(),
        libc::EIO => "it could not be read whole; check the disk it is on".into(),
        libc::ENODATA => "it carries no signature, and this kernel demands one; stage a signed kernel".into(),
        libc::ENOKEY => "it is signed by a key that this kernel does not know; enrol the key (mokutil --import) or stage \
                         another kernel"
            .into(),
        libc::EKEYREJECTED => {
            "its signature is bad or revoked (dbx), or this kernel cannot verify this form of image; install the kernel \
             package again, or stage another kernel"
                .into()
        }
        libc::EKEYREVOKED | libc::EKEYEXPIRED => {
            "the key that signed it is no longer valid; stage a kernel that is signed anew".into()
        }
        libc::ELIBBAD | libc::EBADMSG => {
            "it is no signed PE file, and this kernel demands one; stage a signed kernel".into()
        }
        libc::ENOPKG => "this kernel lacks the algorithm of its signature; stage another kernel".into(),
        libc::EMSGSIZE => "its signature has a form that this kernel does not read; stage another kernel".into(),
        libc::ENOSYS => no_call(Against::find(root, None)),
        libc::EOPNOTSUPP => this_machine_cannot(),
        _ => unknown(),
    }
}

/// Explains an error of `kexec_load`, for segments that take that much memory, in one sentence (kernel/kexec.c,
/// `do_kexec_load`; `sanity_check_segment_list`, `kernel/kexec_core.c`). A restriction that already held before
/// the call comes first.
#[must_use]
pub fn of_segment_load(root: &Root, errno: &io::Error, before: Option<Restriction>, takes: u64) -> String {
    const INSTEAD: &str = "leave --loader and --thaw out, and the verified loader takes its place";
    match errno.raw_os_error().unwrap_or(0) {
        libc::EPERM => match before {
            Some(restriction) => restriction.to_string(),
            None => match Against::find(root, None).filter(|against| against.forbids()) {
                Some(against) => format!("{against}; {INSTEAD}"),
                None => forbidden(Restriction::to_unload(root)),
            },
        },
        libc::EACCES => format!(
            "IMA or a security module (SELinux, AppArmor) wants to see the kernel's file, and kexec_load shows it none; \
             {INSTEAD}"
        ),
        libc::EBUSY if std::env::consts::ARCH == "aarch64" && crate::loading::policy::calls_left(root).is_none() => {
            "another load has been under way for some seconds, or a processor cannot be stopped (the kernel log says so: \
             dmesg); try again"
                .into()
        }
        libc::EBUSY => busy(root),
        libc::EINVAL => too_large(root, takes).unwrap_or_else(|| {
            "the segments overlap, or are more than this kernel takes, which should not be: please report it with \
             /proc/iomem; --loader verified does without them"
                .into()
        }),
        libc::EADDRNOTAVAIL => {
            "a segment lies where this kernel reaches no memory: please report it with /proc/iomem; --loader verified \
             does without"
                .into()
        }
        libc::ENOMEM => format!("there is not enough free memory for another {}; free some", Size(takes)),
        libc::EFAULT => "a staged file shrank meanwhile; is another program at work in /run/nextkernel? stage again".into(),
        libc::ENOSYS => format!("{}; {INSTEAD}", Against::NoCall),
        libc::EOPNOTSUPP => this_machine_cannot(),
        _ => unknown(),
    }
}

/// Explains an error of an unloading in one sentence.
#[must_use]
pub fn of_unload(root: &Root, errno: &io::Error, before: Option<Restriction>) -> String {
    match errno.raw_os_error().unwrap_or(0) {
        libc::EPERM => forbidden(before.or_else(|| Restriction::to_unload(root))),
        libc::EBUSY => busy(root),
        libc::ENOSYS => no_call(Some(Against::NoCall)),
        _ => unknown(),
    }
}

/// Says that the image takes more than half of the memory, which is the most the kernel accepts, if it does.
#[must_use]
pub fn too_large(root: &Root, takes: u64) -> Option<String> {
    let half = memory::total(root).unwrap_or(0) / 2;
    (takes > half && half > 0).then(|| {
        format!(
            "kernel and initrd take {}, more than half of this machine's memory ({}); a smaller initrd is needed",
            Size(takes),
            Size(half)
        )
    })
}

/// Explains EOPNOTSUPP: with TDX, some processors leave memory behind that stays poisoned
/// (`machine_kexec_prepare`, `arch/x86/kernel/machine_kexec_64.c`).
fn this_machine_cannot() -> String {
    "this machine cannot start a kernel from a kernel: with TDX enabled some processors leave memory that the next one may not \
     touch (the kernel log says so: dmesg); use `reboot`"
        .into()
}

fn unknown() -> String {
    "for a reason that is not known; the kernel log may say more (dmesg)".into()
}

fn forbidden(restriction: Option<Restriction>) -> String {
    restriction.map_or_else(
        || "a security module is the likely reason; the kernel log may say which (dmesg, ausearch)".into(),
        |restriction| restriction.to_string(),
    )
}

fn busy(root: &Root) -> String {
    match crate::loading::policy::calls_left(root) {
        Some(left) => format!(
            "another load is under way, and each attempt costs one of the {left} that kernel.kexec_load_limit_reboot \
             still allows; try again when it is over"
        ),
        None => "another load has been under way for some seconds; try again".into(),
    }
}

fn invalid(root: &Root, image: &Image) -> String {
    if let Some(foreign) = foreign(&image.header) {
        return foreign;
    }
    if let Some(too_large) = too_large(root, image.memory()) {
        return too_large;
    }
    if let Header::Bz(bz) = &image.header {
        if image.cmdline + HEAD_ROOM > bz.cmdline_max {
            let most = bz.cmdline_max.saturating_sub(HEAD_ROOM + 1);
            let over = image.cmdline.saturating_sub(most + 1);
            return format!(
                "this kernel takes {most} bytes of command line, the handoff's record included; leave out {over}"
            );
        }
    }
    wrong_image(root, &image.header).unwrap_or_else(|| {
        "it is no kernel image for this machine, or does not fit into its memory; name a kernel".into()
    })
}

/// Says that the image is for another architecture, if it is.
fn foreign(header: &Header) -> Option<String> {
    let here = std::env::consts::ARCH;
    let machine = match header {
        Header::Bz(_) if matches!(here, "x86_64" | "x86") => return None,
        Header::Bz(_) => "x86",
        Header::For(machine) | Header::Flat(Flat { machine, .. }) => machine,
        Header::Unknown => return None,
    };
    (machine != here).then(|| {
        format!("it is a kernel for {machine}, and this machine is {here}; name one for this machine")
    })
}

/// Explains why this image cannot be loaded, if its first bytes show the reason.
fn wrong_image(root: &Root, header: &Header) -> Option<String> {
    if let Some(foreign) = foreign(header) {
        return Some(foreign);
    }
    match header {
        Header::Flat(Flat { memory: 0, .. }) => {
            Some("it is older than Linux 3.17, and such kernels are not loaded; stage a newer one".into())
        }
        Header::Bz(bz) if bz.is_too_old() => {
            Some("it is older than Linux 3.8, and such kernels are not loaded; stage a newer one".into())
        }
        Header::Bz(bz) if !bz.is_64_bit => {
            Some("it is a 32-bit kernel, or not relocatable, and this kernel loads 64-bit ones alone; name one of these".into())
        }
        Header::Bz(bz) if !bz.five_levels && processor::uses_five_levels(root) => Some(
            "this kernel uses five levels of page tables, and the image was built without (CONFIG_X86_5LEVEL); stage \
             one that has them, or start this kernel with no5lvl"
                .into(),
        ),
        Header::Bz(_) if root.fact("/sys/firmware/efi/fw_platform_size").as_deref() == Some("32") => Some(
            "the firmware is 32-bit UEFI, and there this kernel loads no other; restart through firmware".into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::header::Bz;
    use crate::machine::efi;
    use crate::machine::scratch::Scratch;

    const ALL: &str = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n";

    fn image(header: Header) -> Image {
        Image { header, sizes: (400, 200), cmdline: 100 }
    }

    fn bz() -> Bz {
        Bz { protocol: 0x20f, is_64_bit: true, five_levels: true, cmdline_max: 2047, memory: 0 }
    }

    fn sentence(scratch: &Scratch, errno: i32, header: Header) -> String {
        let errno = io::Error::from_raw_os_error(errno);
        of_load(&scratch.root, &errno, Restriction::to_calls(&scratch.root), &image(header))
    }

    #[test]
    fn what_forbids_a_load_is_told_apart() {
        for (path, text, named) in [
            ("/proc/self/status", "Uid:\t0\t1000\t0\t0\nCapEff:\t0\n", "sudo"),
            ("/proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffbfffff\n", "CAP_SYS_BOOT"),
            ("/proc/self/uid_map", "         0     100000      65536\n", "user namespace"),
            ("/proc/sys/kernel/kexec_load_disabled", "1\n", "kexec_load_disabled"),
            ("/proc/sys/kernel/kexec_load_limit_reboot", "0\n", "kexec_load_limit_reboot"),
            ("/proc/sys/kernel/loadpin/enforce", "1\n", "LoadPin"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n", "without Secure Boot"),
            ("/proc/self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t2\n", "SystemCallFilter"),
            ("/proc/self/uid_map", "         0          0 4294967295\n", "security module"),
        ] {
            let scratch = Scratch::new();
            scratch.put("/proc/self/status", ALL);
            scratch.put(path, text);
            let said = sentence(&scratch, libc::EPERM, Header::Unknown);
            assert!(said.contains(named), "{path}: {said}");
        }
        let scratch = Scratch::new();
        scratch.put("/sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
        efi::tests::set_secure_boot(&scratch, 1);
        assert!(sentence(&scratch, libc::EPERM, Header::Unknown).contains("by Secure Boot"));
        // Neither lockdown nor Secure Boot forbids unloading.
        let errno = io::Error::from_raw_os_error(libc::EPERM);
        assert!(of_unload(&scratch.root, &errno, None).contains("security module"));
    }

    #[test]
    fn a_limit_that_the_call_itself_has_spent_is_not_what_forbade_it() {
        let scratch = Scratch::new();
        scratch.put("/proc/sys/kernel/kexec_load_limit_reboot", "1\n");
        let before = Restriction::to_calls(&scratch.root);
        scratch.put("/proc/sys/kernel/kexec_load_limit_reboot", "0\n");
        scratch.put("/sys/kernel/security/lockdown", "[integrity]\n");
        let errno = io::Error::from_raw_os_error(libc::EPERM);
        assert!(of_load(&scratch.root, &errno, before, &image(Header::Unknown)).contains("lockdown"));
    }

    #[test]
    fn what_may_be_behind_an_invalid_argument_is_told_apart() {
        let scratch = Scratch::new();
        let invalid = |header| sentence(&scratch, libc::EINVAL, header);
        assert!(invalid(Header::Unknown).contains("no kernel image for this machine"));
        assert!(invalid(Header::For("s390x")).contains("a kernel for s390x"));
        let foreign = if cfg!(target_arch = "aarch64") { "riscv64" } else { "aarch64" };
        let flat = |machine, memory| invalid(Header::Flat(Flat { machine, offset: 0, flags: 0, memory }));
        assert!(flat(foreign, 4096).contains(&format!("a kernel for {foreign}")));
        assert!(flat(std::env::consts::ARCH, 0).contains("older than Linux 3.17"));
        let short = Bz { cmdline_max: 120, ..bz() };
        assert!(invalid(Header::Bz(short)).contains("takes 89 bytes of command line"));
        scratch.put("/proc/meminfo", "MemTotal: 1 kB\n");
        assert!(invalid(Header::Unknown).contains("half"));
        scratch.put("/proc/meminfo", "MemTotal: 10 kB\n");
        assert!(!invalid(Header::Unknown).contains("half"));
        let large = Bz { memory: 6000, ..bz() };
        assert!(invalid(Header::Bz(large)).contains("half"));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_image_itself_says_against_being_loaded_is_told() {
        let scratch = Scratch::new();
        let refused = |header| sentence(&scratch, libc::ENOEXEC, header);
        assert!(refused(Header::Unknown).contains("no kernel image that this kernel can load"));
        assert!(refused(Header::For("aarch64")).contains("a kernel for aarch64"));
        assert!(refused(Header::Bz(Bz { is_64_bit: false, ..bz() })).contains("32-bit"));
        assert!(refused(Header::Bz(Bz { protocol: 0x20b, ..bz() })).contains("older"));
        let four = || Header::Bz(Bz { five_levels: false, ..bz() });
        assert!(!refused(four()).contains("five"));
        scratch.put("/proc/cpuinfo", "flags\t\t: fpu la57\n");
        assert!(refused(four()).contains("five"));
        scratch.put("/sys/firmware/efi/fw_platform_size", "32\n");
        assert!(refused(Header::Bz(bz())).contains("32-bit UEFI"));
    }

    #[test]
    fn no_room_in_what_is_handed_over_is_told_from_no_room() {
        let scratch = Scratch::new();
        assert!(sentence(&scratch, libc::EADDRNOTAVAIL, Header::Unknown).contains("smaller initrd"));
        scratch.put("/proc/cmdline", "root=x kho=on\n");
        assert!(sentence(&scratch, libc::EADDRNOTAVAIL, Header::Unknown).contains("kho_scratch="));
    }

    #[test]
    fn every_answer_to_segments_has_a_sentence_of_its_own_and_a_way_out() {
        let (scratch, mut sentences) = (Scratch::new(), Vec::new());
        scratch.put("/proc/self/status", ALL);
        let said = |scratch: &Scratch, errno, takes| {
            let errno = io::Error::from_raw_os_error(errno);
            of_segment_load(&scratch.root, &errno, Restriction::to_calls(&scratch.root), takes)
        };
        for errno in [
            libc::EPERM,
            libc::EACCES,
            libc::EBUSY,
            libc::EINVAL,
            libc::EADDRNOTAVAIL,
            libc::ENOMEM,
            libc::EFAULT,
            libc::ENOSYS,
            libc::ENFILE,
        ] {
            let new = said(&scratch, errno, 4096);
            assert!(!sentences.contains(&new), "{new}");
            sentences.push(new);
        }
        scratch.put("/proc/meminfo", "MemTotal: 4 kB\n");
        assert!(said(&scratch, libc::EINVAL, 4096).contains("more than half"));
        for (path, text, named) in [
            ("/proc/sys/kernel/loadpin/enforce", "1\n", "LoadPin"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n", "lockdown"),
            ("/proc/sys/kernel/kexec_load_disabled", "1\n", "kexec_load_disabled"),
        ] {
            scratch.put(path, text);
            let why = said(&scratch, libc::EPERM, 4096);
            assert!(why.contains(named), "{path}: {why}");
        }
    }

    #[test]
    fn every_answer_of_the_kernel_has_a_sentence_of_its_own() {
        let (scratch, mut sentences) = (Scratch::new(), Vec::new());
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
            libc::EKEYREVOKED,
            libc::ELIBBAD,
            libc::ENOPKG,
            libc::EMSGSIZE,
            libc::ENOSYS,
            libc::ENFILE,
        ] {
            let new = sentence(&scratch, errno, Header::Unknown);
            assert!(!sentences.contains(&new), "{new}");
            sentences.push(new);
        }
    }
}
