//! Whether the staged images fit into this machine, and the cost of their size.

use std::fs::File;

use nextkernel_plan::{Direct, Image, Plan, Segment};
use nix::sys::statvfs::statvfs;

use crate::check::answers::Answers;
use crate::check::finding::{Findings, Verdict};
use crate::image::digest;
use crate::image::header::Header;
use crate::loading::policy::Against;
use crate::loading::prepare::memory::Memory;
use crate::machine::memory;
use crate::machine::root::Root;
use crate::staging::directory;
use crate::words::size::Size;

/// Reports on the images of the plan.
pub(super) fn staged(root: &Root, plan: &Plan<'_>, answers: &Answers, findings: &mut Findings) {
    if let Some(image) = directory::images(plan).find(|image| !directory::is_as_staged(root, image)) {
        let why = format!(
            "/run/nextkernel/{} is not as it was staged, and would not be loaded: stage again",
            image.name
        );
        findings.say(Verdict::Bad, "images", why);
        return;
    }
    let size: u64 = directory::named(plan).map(|image| image.size).sum();
    // kexec_file_load reads the files whole before it fills the segments; kexec_load copies from mapped files.
    let (takes, beside) = if let Some(direct) = &plan.direct {
        (Segment::memory(direct.segments.iter()), 0)
    } else {
        let initrd = plan.initrd.map_or(0, |initrd| initrd.size);
        (kernel_takes(root, &plan.kernel).saturating_add(initrd), size)
    };
    if plan.preload.starts_what_is_loaded() && root.kexec_loaded() {
        findings.say(
            Verdict::Ok,
            "memory",
            format!("kernel and initrd take {}, and are loaded already", Size(takes)),
        );
    } else {
        fits(root, beside, takes, findings);
    }
    if let Some(direct) = &plan.direct {
        stays(root, direct, findings);
    }
    room(root, size, findings);
    if digest::is_made_here() && plan.direct.is_none() {
        let rate = (answers.hash_rate)();
        cost(root, answers, takes, rate, findings);
    }
}

/// Checks that the segments for `kexec_load` still lie in usable memory, because memory can be removed from a
/// running machine. If memory was added, the next kernel finds it as this one did. Says nothing if the user may
/// not see addresses.
fn stays(root: &Root, direct: &Direct<'_>, findings: &mut Findings) {
    let Ok(memory) = Memory::usable(root, 1) else { return };
    let within = |segment: Segment| {
        let end = segment.at.saturating_add(segment.takes);
        memory.free().iter().any(|free| free.start <= segment.at && end <= free.end)
    };
    if let Some(segment) = direct.segments.iter().find(|segment| !within(*segment)) {
        let gone = format!(
            "{:#x} is no longer memory that a kernel may lie in (/proc/iomem), and the {} would be loaded there: stage \
             again",
            segment.at, segment.part
        );
        findings.say(Verdict::Bad, "segments", gone);
    }
}

/// Returns the memory that the kernel takes. It is more than its file, because the kernel unpacks itself in
/// place.
fn kernel_takes(root: &Root, kernel: &Image<'_>) -> u64 {
    let header =
        File::open(directory::path(root, kernel)).map_or(Header::Unknown, |file| Header::read(&file));
    header.takes(kernel.size)
}

/// Reports whether there is enough memory for the load. The kernel takes no image that is larger than half of
/// the memory (`sanity_check_segment_list`, `kernel/kexec_core.c`). A load takes `beside` more for a moment. A
/// preloaded image is in memory until then, too, and is no longer counted as free.
fn fits(root: &Root, beside: u64, takes: u64, findings: &mut Findings) {
    let Some(half) = memory::total(root).map(|total| total / 2) else { return };
    if takes > half {
        let why = format!(
            "kernel and initrd take {}, more than half of this machine's memory ({}), and no kernel loads that: stage \
             a smaller initrd",
            Size(takes),
            Size(half)
        );
        findings.say(Verdict::Bad, "memory", why);
        return;
    }
    match memory::available(root) {
        Some(available) if available < beside.saturating_add(takes) => {
            let why = format!(
                "the night's load takes {} for a moment, and {} can be had now; services that have ended leave more, \
                 but a smaller initrd is the safe way",
                Size(beside.saturating_add(takes)),
                Size(available)
            );
            findings.say(Verdict::Warn, "memory", why);
        }
        _ => findings.say(
            Verdict::Ok,
            "memory",
            format!("kernel and initrd take {}, and a kernel may take {}", Size(takes), Size(half)),
        ),
    }
}

/// Reports if there is no room to stage again beside the staged set.
fn room(root: &Root, size: u64, findings: &mut Findings) {
    let Ok(tmpfs) = statvfs(&root.path("/run")) else { return };
    let free = tmpfs.blocks_available().saturating_mul(tmpfs.fragment_size());
    if free < size {
        let why = format!(
            "/run has {} free, and what is staged takes {}: to stage as much again `nextkernel unstage` first, or \
             enlarge it (mount -o remount,size=SIZE /run)",
            Size(free),
            Size(size)
        );
        findings.say(Verdict::Info, "room", why);
    }
}

/// Reports how long the digest between the two kernels takes.
fn cost(root: &Root, answers: &Answers, bytes: u64, rate: u64, findings: &mut Findings) {
    let tenths = bytes.saturating_mul(10).div_ceil(rate.max(1));
    let costs = format!(
        "some {}.{} s of the jump are a digest over {}, an estimate from what this processor does now ({} in a second)",
        tenths / 10,
        tenths % 10,
        Size(bytes),
        Size(rate)
    );
    let spared = match Against::find(root, answers.calls) {
        None => "; the direct loader makes none (--loader direct, --thaw)",
        Some(_) => "",
    };
    findings.say(Verdict::Info, "digest", costs + spared);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::tests::{answers, finding, machine, says, says_when_asked, staged};
    use crate::machine::scratch::Scratch;

    #[test]
    fn of_what_is_not_staged_no_size_is_told() {
        let scratch = machine();
        for what in ["images", "memory", "room", "digest"] {
            assert!(finding(&scratch, &answers(), what).is_none());
        }
    }

    #[test]
    fn what_is_staged_and_was_changed_or_does_not_fit_is_bad() {
        let scratch = machine();
        staged(&scratch, "preload = yes");
        // The staged kernel has 1000 bytes, its initrd 500.
        scratch.put("/proc/meminfo", "MemTotal: 2 kB\nMemAvailable: 100 kB\n");
        says(&scratch, "memory", Verdict::Bad, "more than half of this machine's memory (1024 bytes)");
        scratch.put("/proc/meminfo", "MemTotal: 4 kB\nMemAvailable: 2 kB\n");
        says(&scratch, "memory", Verdict::Warn, "3000 bytes for a moment");
        scratch.put("/proc/meminfo", "MemTotal: 4 kB\nMemAvailable: 3 kB\n");
        says(&scratch, "memory", Verdict::Ok, "take 1500 bytes");
        scratch.put("/run/nextkernel/0000000000000007/initrd", "another");
        says(&scratch, "images", Verdict::Bad, "0000000000000007/initrd is not as it was staged");
    }

    #[test]
    fn the_load_at_shutdown_takes_what_the_kernel_is_unpacked_to_beside_its_file() {
        let scratch = machine();
        let verdict = |available: u64| {
            scratch.put("/proc/meminfo", &format!("MemTotal: 99 kB\nMemAvailable: {available} kB\n"));
            let mut findings = Findings::default();
            fits(&scratch.root, 1024, 4096, &mut findings);
            findings.0.first().map(|found| found.verdict)
        };
        assert_eq!((verdict(4), verdict(5)), (Some(Verdict::Warn), Some(Verdict::Ok)));
    }

    #[test]
    fn the_digest_is_told_with_its_cost_and_what_spares_it() {
        let scratch = machine();
        staged(&scratch, "preload = yes");
        let says = |words: &str| {
            let answers = Answers { hash_rate: || 500, ..answers() };
            says_when_asked(&scratch, &answers, "digest", Verdict::Info, words);
        };
        if !digest::is_made_here() {
            return;
        }
        says("some 3.0 s of the jump are a digest over 1500 bytes, an estimate");
        says("the direct loader makes none (--loader direct, --thaw)");
        scratch.put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        let (_, sentence) = finding(&scratch, &answers(), "digest").unwrap();
        assert!(!sentence.contains("--thaw"), "{sentence}");
    }

    /// Turns the staged set into one for `kexec_load`, with a kernel that takes 12 KiB at 2 MiB.
    fn directly(scratch: &Scratch) {
        let name = "0000000000000007/parameters";
        scratch.put(&format!("/run/nextkernel/{name}"), &"p".repeat(200));
        let found = scratch.root.path("/run/nextkernel").join(name).metadata().unwrap();
        let direct = format!(
            "parameters = {}\nstart = 0x200000\nsegment = kernel 0x0+1000 at=0x200000 takes=12288\n\
             segment = initrd 0x0+500 at=0x203000 takes=4096\ncmdline-at = 0x10+100\nend\n",
            directory::measured(&found, name).unwrap()
        );
        let plan = std::fs::read_to_string(scratch.root.path("/run/nextkernel/plan")).unwrap();
        scratch.put("/run/nextkernel/plan", &plan.replace("end\n", &direct));
    }

    #[test]
    fn the_direct_loader_takes_its_segments_alone_and_makes_no_digest() {
        let scratch = machine();
        staged(&scratch, "preload = yes");
        directly(&scratch);
        scratch.put("/proc/meminfo", "MemTotal: 40 kB\nMemAvailable: 16 kB\n");
        says(&scratch, "memory", Verdict::Ok, "take 16384 bytes");
        scratch.put("/proc/meminfo", "MemTotal: 40 kB\nMemAvailable: 15 kB\n");
        says(&scratch, "memory", Verdict::Warn, "16384 bytes for a moment");
        assert!(finding(&scratch, &answers(), "digest").is_none());
        scratch.put("/run/nextkernel/0000000000000007/parameters", "another");
        says(&scratch, "images", Verdict::Bad, "parameters is not as it was staged");
    }

    #[test]
    fn memory_that_was_taken_out_of_the_machine_is_missed_where_a_segment_goes() {
        let scratch = machine();
        staged(&scratch, "preload = yes");
        directly(&scratch);
        let segments = |iomem: &str| {
            scratch.put("/proc/iomem", iomem);
            finding(&scratch, &answers(), "segments")
        };
        assert!(segments("00200000-00203fff : System RAM\n").is_none());
        assert!(segments("00000000-00000000 : System RAM\n").is_none(), "who may not look is told nothing");
        let (verdict, why) = segments("00100000-00202fff : System RAM\n").unwrap();
        assert!(
            verdict == Verdict::Bad && why.starts_with("0x203000 is no longer") && why.contains("the initrd")
        );
        assert!(segments("00200000-00203fff : System RAM\n  00201000-00201fff : reserved\n").is_some());
    }
}
