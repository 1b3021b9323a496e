//! Tests refusals while the system runs: each prints one plain sentence and exits with status 1. The image set
//! staged before stays unchanged to the byte, and is the one handed over to.

use super::day::conf;
use super::staged::{handed_over, shutdown, stage};
use bed::guest::shutdown::{Boots, Ended, Shutdown};
use bed::harness::Test;
use bed::initramfs::modules::Modules;
use bed::kernel::signed;
use std::fs;

/// A command line to type, and the sentence expected for it.
type Wrong<'a> = (&'a str, &'a str);

/// Prints all state of the staged image set that could change: names, inodes, sizes, times and content, and whether it
/// is loaded.
const STATE: &str = "state() {
    ls -lin --full-time /run/nextkernel /run/nextkernel/*/
    cat /run/nextkernel/plan /sys/kernel/kexec_loaded
    sha256sum /run/nextkernel/*/*
}
";

/// Runs shell lines, and prints their exit status and output in one line.
const TRY: &str = "try() {
    sh >/said 2>&1
    echo \"status $? in $(wc -l </said) lines: $(cat /said)\"
}
";

/// Locks the kernel down through securityfs, where lockdown can be raised at any time.
const LOCK_DOWN: &str =
    "mount -t securityfs securityfs /sys/kernel/security; echo integrity >/sys/kernel/security/lockdown";

/// Log line of a kernel that has been given Debian's key.
const SIGNER: &str = "Loaded X.509 cert 'Debian Secure Boot CA";

/// Returns a guest that stages a kernel, runs these lines, and then tries the wrong commands.
fn trying(test: &Test, lines: &str, wrong: &[Wrong]) -> Result<Shutdown, String> {
    // The kernel's own messages would interrupt ours.
    let mut scenario = format!("dmesg -n 1\n{TRY}{STATE}{}state >/before\n{lines}\n", stage(""));
    for (typed, _) in wrong {
        scenario.extend(["try <<'TRIED'\n", typed, "\nTRIED\n"]);
    }
    scenario += "state >/after; cmp /before /after && echo \"as it was: $(wc -l </after) lines\"\n";
    shutdown(test, "kexec", &scenario)
}

/// Proves that each command was refused with its sentence and exit status 1, and that the staged image set is
/// unchanged.
fn refused(guest: Shutdown, wrong: &[Wrong]) -> Result<Ended, String> {
    let ended = guest.run()?;
    let mut said = ended.console.lines().filter(|line| line.starts_with("status "));
    for (typed, sentence) in wrong {
        let said = said.next().unwrap_or_default();
        if !said.starts_with("status 1 in 1 lines: nextkernel: ") || !said.contains(sentence) {
            return Err(format!("{typed}\nsays: {said}\nand not: {sentence}\n{}", ended.console));
        }
    }
    let lines = ended.line("as it was: ")?.split(' ').nth(3).and_then(|count| count.parse().ok());
    // The lines describe the directory, the image set, the plan and the two images.
    if lines.is_some_and(|count: u32| count > 20) {
        return Ok(ended);
    }
    Err(format!("too little was compared:\n{}", ended.console))
}

/// Proves the same in a guest with nothing else to do, and that the image set staged before is handed over.
fn refused_and_handed_over(test: &Test, lines: &str, wrong: &[Wrong]) -> Result<Ended, String> {
    let ended = refused(trying(test, lines, wrong)?, wrong)?;
    handed_over(&ended, "kexec")?;
    Ok(ended)
}

/// Makes damaged copies of the images.
const DAMAGE: &str = "size=$(wc -c </kernel)
    head -c $((size / 12)) /kernel >/twelfth
    head -c $((size - 4096)) /kernel >/page
    cp /kernel /changed && printf 'oops' | dd of=/changed bs=1 seek=$((size - 1500)) conv=notrunc 2>/dev/null
    gzip -c /next.cpio >/whole.gz
    gzipped=$(wc -c </whole.gz)
    head -c $((gzipped / 3)) /whole.gz >/third
    head -c $((gzipped - 9)) /whole.gz >/nine
    cp /whole.gz /other && printf 'oops' | dd of=/other bs=1 seek=$((gzipped / 2)) conv=notrunc 2>/dev/null
    head -c 5000 /next.cpio >/plain";

pub fn a_damaged_kernel_or_initrd_is_refused_and_what_was_staged_hands_over(
    test: &Test,
) -> Result<(), String> {
    let wrong = [
        ("nextkernel stage --kernel /twelfth --cmdline x", "the kernel /twelfth is damaged: it is cut off: "),
        ("nextkernel stage --kernel /page --cmdline x", "the kernel /page is damaged: it is cut off: "),
        (
            "nextkernel stage --kernel /changed --cmdline x",
            "the kernel /changed is damaged: what is packed in it ",
        ),
        (
            "nextkernel stage --kernel /changed --cmdline x --thaw",
            "the kernel /changed is damaged: what is packed in it ",
        ),
        (
            "nextkernel stage --kernel /kernel --initrd /third --cmdline x",
            "the initrd /third is damaged: at byte 0: as gzip ",
        ),
        (
            "nextkernel stage --kernel /kernel --initrd /nine --cmdline x",
            "the initrd /nine is damaged: at byte 0: as gzip ",
        ),
        (
            "nextkernel stage --kernel /kernel --initrd /other --cmdline x",
            "the initrd /other is damaged: at byte 0: as gzip ",
        ),
        (
            "nextkernel stage --kernel /kernel --initrd /whole.gz /other --cmdline x --thaw",
            "the initrd /other is damaged: at byte 0: ",
        ),
        (
            "nextkernel stage --kernel /kernel --initrd /plain --cmdline x",
            "the initrd /plain is damaged: at byte 0: its archive ends",
        ),
    ];
    refused_and_handed_over(test, DAMAGE, &wrong).map(drop)
}

pub fn files_that_are_no_images_and_lines_that_do_not_fit_are_refused(test: &Test) -> Result<(), String> {
    // day.rs tests the longest line that fits.
    let line = "Q".repeat(1889);
    let too_long = format!("nextkernel stage --kernel /kernel --cmdline {line}");
    let ended = refused_and_handed_over(
        test,
        "truncate -s 5G /five\nnextkernel stage --kernel; echo \"usage status $?\"",
        &[
            (
                "nextkernel stage --kernel /next.cpio --cmdline x",
                "the kernel refuses to load the image: it is no kernel image that this kernel can load; name a kernel \
                 (on x86 a bzImage, as in /boot/vmlinuz-*) (ENOEXEC); what was staged before is as it was",
            ),
            (
                "nextkernel stage --kernel /missing --cmdline x",
                "the kernel /missing cannot be read: No such file or directory; is its file system mounted?",
            ),
            (
                "nextkernel stage --kernel /kernel --initrd /next.cpio /missing --cmdline x",
                "the initrd /missing cannot be read: No such file or directory; is its file system mounted?",
            ),
            (
                "nextkernel stage --kernel /kernel --initrd /run --cmdline x",
                "the initrd /run is a directory; name the image itself",
            ),
            (
                "nextkernel stage --kernel /kernel --initrd /five --cmdline x",
                "the initrd is 5369 MB large, and no kernel loads more than 4295 MB; leave something out",
            ),
            (
                &too_long,
                "the command line has 1889 bytes, and this loader takes 1888 beside the handoff's record; leave out 1",
            ),
            (
                "nextkernel stage --kernel /kernel",
                "/kernel says nothing about its command line; add --reuse-cmdline, or --cmdline TEXT",
            ),
            (
                "nextkernel stage --kernel /next.cpio --cmdline x --loader direct",
                "the kernel cannot be loaded by segments: ",
            ),
            ("nextkernel stage", "no kernel is found as /vmlinuz or /boot/vmlinuz-VERSION; name one with"),
        ],
    )?;
    ended.line("usage status 2").map(drop)
}

pub fn an_entry_whose_files_are_missing_is_refused(test: &Test) -> Result<(), String> {
    // Boot loader entries are on a partition that is mounted at one of three places.
    let partition =
        "mkdir /efi; mount -t tmpfs tmpfs /efi; mkdir -p /efi/EFI /efi/loader/entries; cp /kernel /efi/linux
        printf 'linux /linux\\ninitrd /gone.img\\noptions x\\n' >/efi/loader/entries/half.conf
        printf 'linux /gone\\noptions x\\n' >/efi/loader/entries/nothing.conf";
    refused_and_handed_over(
        test,
        partition,
        &[
            (
                "nextkernel stage half",
                "the initrd /efi/gone.img cannot be read: No such file or directory; is its file system mounted?",
            ),
            (
                "nextkernel stage nothing.conf",
                "/efi/loader/entries/nothing.conf names the kernel /efi/gone, which is not there; install it again, or \
                 remove the entry",
            ),
            ("nextkernel stage neither", "no entry and no kernel is called 'neither': there are "),
        ],
    )
    .map(drop)
}

pub fn a_configuration_that_is_wrong_is_refused(test: &Test) -> Result<(), String> {
    let wrong = |text| format!("{}nextkernel stage --kernel /kernel --cmdline x", conf(text));
    let (unknown, unbound, on) =
        (wrong("guard = 300\ngpus = leave"), wrong("gpu.nvidia = unbind"), wrong("watchdog = on"));
    refused_and_handed_over(
        test,
        "",
        &[
            (&unknown, "/etc/nextkernel.conf, line 2: there is no key 'gpus'; the keys are gpu, gpu.DRIVER,"),
            (&unbound, "/etc/nextkernel.conf, line 1: nvidia must not be unbound"),
            (&on, "/etc/nextkernel.conf, line 1: watchdog = 'on' cannot be; it takes off, or"),
        ],
    )
    .map(drop)
}

pub fn a_full_run_is_told_with_need_room_and_way_out(test: &Test) -> Result<(), String> {
    // The staged image set takes some 14 MB: a second one does not fit into 20 MB, and nothing fits into none.
    let small = "mount -o remount,size=20M /run";
    let stage = "nextkernel stage --kernel /kernel --initrd /next.cpio --cmdline x";
    let fill = format!("cat /dev/zero >/run/fill 2>/dev/null; {stage}");
    let wrong =
        [(stage, " MB free, and staging needs "), (&*fill, "/run has 0 bytes free, and staging needs ")];
    let mut guest = trying(test, small, &wrong)?;
    guest.real = true;
    let ended = refused(guest, &wrong)?;
    handed_over(&ended, "kexec")?;
    ended.line("remount,size=")?;
    ended.line("`nextkernel unstage` frees ").map(drop)
}

pub fn too_little_memory_is_told_before_anything_is_killed_for_it(test: &Test) -> Result<(), String> {
    let big = "mount -o remount,size=90% /run; truncate -s 100M /big";
    let wrong =
        [("nextkernel stage --kernel /kernel --initrd /big --cmdline x", "of memory for a moment, and ")];
    let mut guest = trying(test, big, &wrong)?;
    (guest.memory, guest.real) = (320, true);
    handed_over(&refused(guest, &wrong)?, "kexec")
}

pub fn a_limit_on_loads_that_the_night_would_meet_is_told(test: &Test) -> Result<(), String> {
    refused_and_handed_over(
        test,
        "echo 2 >/proc/sys/kernel/kexec_load_limit_reboot",
        &[(
            "nextkernel stage --kernel /kernel --cmdline x --preload no",
            "kexec_load_limit_reboot allows 2 more loads until the next boot, and staging takes 3",
        )],
    )
    .map(drop)
}

pub fn kexec_load_disabled_by_day_leaves_the_image_that_is_kept(test: &Test) -> Result<(), String> {
    let why = "kernel.kexec_load_disabled is 1 and stays so until the next boot; find out who sets it ";
    let (load, unload) = (
        format!("the kernel refuses to load the image: {why}"),
        format!("the kernel refuses to unload the image: {why}"),
    );
    let wrong =
        [("nextkernel stage --kernel /kernel --cmdline x", load.as_str()), ("nextkernel unstage", &unload)];
    let disabled = "echo 1 >/proc/sys/kernel/kexec_load_disabled";
    let ended = refused(trying(test, disabled, &wrong)?, &wrong)?;
    // With loads disabled, the hook cannot load either; the image loaded before is started.
    handed_over(&ended, "kexec")
}

/// The refusal of `kexec_load` under lockdown: nextkernel does not even try it.
const DIRECT: Wrong = (
    "nextkernel stage --kernel /kernel --cmdline x --loader direct",
    "--loader direct is refused: lockdown is in force (/sys/kernel/security/lockdown), and forbids kexec_load; leave it \
     out",
);

/// Debian's kernels are signed, but know their signer's key only under Secure Boot, from the firmware. Without
/// it, lockdown forbids every load.
pub fn under_lockdown_alone_no_kernel_can_be_verified_and_every_one_is_refused(
    test: &Test,
) -> Result<(), String> {
    let wrong = ["/kernel", "/damaged", "/stripped"]
        .map(|kernel| format!("nextkernel stage --kernel {kernel} --cmdline x"));
    let sentence = "the kernel refuses to load the image: lockdown is in force (/sys/kernel/security/lockdown), without \
        Secure Boot, and the kernel image has no signature by a key that this kernel knows";
    let mut wrong = wrong.each_ref().map(|typed| (typed.as_str(), sentence)).to_vec();
    wrong.push(DIRECT);
    let kernel = kernel(test)?;
    let mut guest = trying(test, LOCK_DOWN, &wrong)?;
    guest.real = true;
    guest.file("/damaged", 0o644, signed::damaged(&kernel)?);
    guest.file("/stripped", 0o644, signed::stripped(&kernel)?);
    let ended = refused(guest, &wrong)?;
    if ended.console.contains(SIGNER) {
        return Err("this kernel does know the key".into());
    }
    // The image loaded before is started.
    handed_over(&ended, "kexec")
}

/// Under Secure Boot the kernel itself demands a signature (`CONFIG_IMA_ARCH_POLICY`), and reports the reason
/// for refusing one.
pub fn under_secure_boot_a_bad_signature_is_told_from_none_and_debians_own_is_good(
    test: &Test,
) -> Result<(), String> {
    let wrong = [
        (
            "nextkernel stage --kernel /damaged --cmdline x",
            "the kernel refuses to load the image: its signature is bad or revoked (dbx), or this kernel cannot verify \
             this form of image; install the kernel package again, or stage another kernel (EKEYREJECTED)",
        ),
        (
            "nextkernel stage --kernel /stripped --cmdline x",
            "the kernel refuses to load the image: it carries no signature, and this kernel demands one; stage a signed \
             kernel (ENODATA)",
        ),
        DIRECT,
    ];
    let mut guest = trying(test, "mount -t securityfs securityfs /sys/kernel/security", &wrong)?;
    // With `--thaw` only the initrd is decompressed: the kernel must stay as it was signed.
    guest.scenario += &stage("--thaw");
    let kernel = kernel(test)?;
    guest.file("/damaged", 0o644, signed::damaged(&kernel)?);
    guest.file("/stripped", 0o644, signed::stripped(&kernel)?);
    (guest.boots, guest.memory, guest.real) = (Boots::Verified, 1024, true);
    let ended = refused(guest, &wrong)?;
    ended.line("Secure boot enabled")?;
    ended.line("nextkernel: --thaw: the initrd is thawed, and the kernel is not: lockdown is in force")?;
    ended.line("  loader          verified: lockdown is in force")?;
    ended.line(SIGNER)?;
    handed_over(&ended, "kexec")
}

/// If shim does not verify the kernel, the kernel is not locked down either.
pub fn where_shim_verifies_nothing_secure_boot_forbids_nothing(test: &Test) -> Result<(), String> {
    let variables = "modprobe efivarfs && mount -t efivarfs none /sys/firmware/efi/efivars\n".to_owned();
    let mut guest = shutdown(test, "kexec", &(variables + &stage("--loader direct --thaw")))?;
    guest.modules(&Modules::of(&test.image.files()?, &["efivarfs"])?);
    (guest.boots, guest.memory) = (Boots::Unverified, 1024);
    let ended = guest.run()?;
    ended.line("Secure boot disabled")?;
    ended.line("  thawed          kernel and initrd")?;
    handed_over(&ended, "kexec")
}

fn kernel(test: &Test) -> Result<Vec<u8>, String> {
    let kernel = test.image.files()?.kernel();
    fs::read(&kernel).map_err(|e| format!("{}: {e}", kernel.display()))
}
