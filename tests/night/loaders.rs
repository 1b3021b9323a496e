//! Tests that both kexec system calls lead to the next kernel, and so do images decompressed while the system
//! runs.

use super::staged::{AGAIN, handed_over, shutdown, stage, systemd_jumped_itself};
use bed::guest::chain::{self, By, Memory};
use bed::guest::shutdown::{Boots, Ended};
use bed::harness::Test;
use bed::host::programs;
use bed::image::Image;
use bed::initramfs;
use bed::machine::{End, with_last_lines};

/// Prints whether an image is loaded.
const LOADED: &str = "read -r loaded </sys/kernel/kexec_loaded; echo \"loaded: $loaded\"\n";

/// Proves that the next kernel came with a record of all steps: with `kexec_load` the command line is completed
/// last of all.
fn handed_over_with_all_marks(ended: &Ended) -> Result<(), String> {
    handed_over(ended, "kexec")?;
    has_all_marks(ended)
}

fn has_all_marks(ended: &Ended) -> Result<(), String> {
    let line = ended.line("NEXT KERNEL UP: ")?;
    let marks = line.trim_end().split(':').find(|field| field.starts_with('s') && field.contains(".t"));
    match marks {
        Some(marks) if marks.contains(".o") && marks.contains(".l") => Ok(()),
        _ => Err(format!("a mark is missing: {line}")),
    }
}

pub fn the_direct_loader_hands_over_and_tells_the_whole_night(test: &Test) -> Result<(), String> {
    let ended = shutdown(test, "kexec", &(stage("--loader direct --preload no") + LOADED))?.run()?;
    ended.line("  loader          direct: as asked for (--loader)")?;
    ended.line("loaded: 0")?;
    handed_over_with_all_marks(&ended)
}

/// QEMU options for memory that is added while the system runs, which the kernel sees as an ACPI device.
const ADDED: [&str; 4] =
    ["-object", "memory-backend-ram,id=added,size=512M", "-device", "pc-dimm,memdev=added"];

pub fn memory_that_was_added_is_not_the_next_kernels_from_its_start(test: &Test) -> Result<(), String> {
    let seen = "grep -i 'system ram' /proc/iomem\n".to_owned();
    let mut guest = shutdown(test, "kexec", &(seen + &stage("--loader direct")))?;
    // A guest with more memory than its `memory` field says cannot be restored.
    guest.boots = Boots::Each;
    guest.qemu = ["-m", "1024,slots=1,maxmem=4G"].into_iter().chain(ADDED).map(Into::into).collect();
    let ended = guest.run()?;
    ended.line("100000000-11fffffff : System RAM")?;
    handed_over(&ended, "kexec")?;
    let map = ended.line("NEXT KERNEL GOT: ")?;
    let usable = map.split(", ").find_map(|size| size.strip_suffix(" KiB usable")?.parse::<u64>().ok());
    if usable.is_some_and(|usable| (900 << 10..1025 << 10).contains(&usable)) {
        return Ok(());
    }
    Err(with_last_lines(map, &ended.console))
}

/// Makes the kernel allow two loads: one while the system runs and one by the hook.
const TWO_LOADS: &str = "echo 2 >/proc/sys/kernel/kexec_load_limit_reboot\n";

/// Prints how much of the memory reserved for devices (CMA) is free.
const FREE_FOR_DEVICES: &str = "grep CmaFree /proc/meminfo\n";

pub fn where_memory_is_kept_for_devices_each_loader_hands_over(test: &Test) -> Result<(), String> {
    for loader in ["verified", "direct"] {
        let stage = stage(&format!("--loader {loader}"));
        let scenario = [TWO_LOADS, FREE_FOR_DEVICES, &stage, LOADED, FREE_FOR_DEVICES, AGAIN].concat();
        let mut guest = shutdown(test, "kexec", &scenario)?;
        guest.append += " cma=256M";
        // Debian's own kernel can move itself if it must not run at the address where it was loaded.
        (guest.real, guest.memory) = (loader == "verified", 1024);
        let ended = guest.run()?;
        ended.line("loaded: 1")?;
        let free: Vec<_> = ended.console.lines().filter(|line| line.starts_with("CmaFree:")).collect();
        if free.len() != 2
            || free.first() != free.last()
            || free.first().is_some_and(|free| free.ends_with(" 0 kB"))
        {
            return Err(with_last_lines(
                &format!("free for devices, before and after: {free:?}"),
                &ended.console,
            ));
        }
        handed_over(&ended, "kexec")?;
    }
    Ok(())
}

pub fn what_is_thawed_hands_over_with_nothing_loaded_by_day(test: &Test) -> Result<(), String> {
    let scenario = stage("--thaw --preload no") + LOADED + "nextkernel status --json";
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    for line in [
        "nextkernel: the kernel is thawed: ",
        "  loader          direct: for the kernel is thawed",
        "\"loader\": \"direct\"",
        "loaded: 0",
    ] {
        ended.line(line)?;
    }
    handed_over_with_all_marks(&ended)
}

/// Size of an initrd larger than any block of memory likely to be free in one piece.
const LARGE: usize = 60 << 20;

/// Saves the addresses and sizes of the plan's segments, and prints the initrd's address.
const SEGMENTS: &str = r"sed -n 's/^segment = .* at=\(.*\) takes=\(.*\)/\1 \2/p' /run/nextkernel/plan >/segments
echo initrd $(sed -n 's/^segment = initrd .* at=\(.*\) takes=.*/\1/p' /run/nextkernel/plan)
";

pub fn what_the_hook_will_load_goes_where_the_kernel_hands_out_nothing_for_it(
    test: &Test,
) -> Result<(), String> {
    let stage = |preload: &str| stage(&format!("--loader direct --preload {preload}"));
    let say = |when: &str| format!("echo \"{when}: $(reserved </segments)\"\n");
    let large = format!("truncate -s {LARGE} /next.cpio\n");
    // A preloaded image goes to the first place found, the highest; the kernel hands out some of that memory
    // while loading it.
    let preloaded = [&stage("yes"), SEGMENTS, "nextkernel unstage\n"].concat();
    let moved = [&stage("no"), SEGMENTS, &say("before"), &stage("yes"), &say("loaded")].concat();
    // The image also replaces one that is loaded: memory handed out to that one is handed out next.
    let scenario = [large, preloaded, moved, stage("no"), SEGMENTS.into(), say("at last")].concat();
    let mut guest = shutdown(test, "kexec", &scenario)?;
    guest.file("/usr/bin/reserved", 0o755, programs::reserved()?);
    (guest.memory, guest.boots) = (2048, Boots::Each);
    let ended = guest.run()?;
    let reserved = |when: &str| {
        let line = ended.line(when)?;
        let mut numbers = line.trim_start_matches(when).split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(reserved)), Some(Ok(all))) if all > 15_000 => Ok((reserved, all)),
            _ => Err(with_last_lines(line, &ended.console)),
        }
    };
    let ((before, all), (loaded, _)) = (reserved("before: ")?, reserved("loaded: ")?);
    if loaded.saturating_sub(before) > 500 {
        return Err(format!(
            "of {all} pages {before} were reserved before, and {loaded} while it was loaded"
        ));
    }
    let places: Vec<_> = ended.console.lines().filter(|line| line.starts_with("initrd ")).collect();
    match places.as_slice() {
        [preloaded, moved, at_last] if preloaded != moved && preloaded != at_last => {}
        _ => return Err(with_last_lines(&format!("it was not moved: {places:?}"), &ended.console)),
    }
    if ended.console.contains("STAGE FAILED") {
        return Err(with_last_lines("it was not staged", &ended.console));
    }
    ended.expect(End::PoweredOff)?;
    has_all_marks(&ended)?;
    let mut whole = initramfs::next()?;
    whole.resize(LARGE, 0);
    ended.handed(&whole)
}

pub fn an_image_that_the_direct_loader_kept_is_jumped_to_by_systemd(test: &Test) -> Result<(), String> {
    // The kernel is passed the same data for either; tests/handoff/loaders.rs shows a decompressed image with a
    // whole Debian 13.
    let options = if test.image == Image::Debian13 { "--loader direct" } else { "--thaw" };
    let ended = shutdown(test, "kexec", &(stage(options) + "rm -r /run/nextkernel"))?.run()?;
    ended.line("nextkernel: kexec: nothing is staged, left to the init")?;
    systemd_jumped_itself(&ended)
}

pub fn without_an_initrd_and_after_unstaging_the_direct_loader_does_as_the_other(
    test: &Test,
) -> Result<(), String> {
    let scenario = "nextkernel stage --kernel /kernel --cmdline x --loader direct && nextkernel unstage\n"
        .to_owned()
        + LOADED
        + &stage("--loader direct --preload no");
    let ended = shutdown(test, "kexec", &scenario)?.run()?;
    ended.line("loaded: 0")?;
    handed_over_with_all_marks(&ended)
}

pub fn a_load_that_somebody_else_is_making_is_waited_for(test: &Test) -> Result<(), String> {
    let scenario = "truncate -s 16M /big\n".to_owned() + &stage("--preload no");
    let mut guest = shutdown(test, "kexec", &scenario)?;
    let beside = "#!/bin/sh\necho another hook loads >/dev/kmsg\nexec /stuck contend /kernel /big\n";
    guest.file("/usr/lib/systemd/system-shutdown/beside", 0o755, beside);
    guest.file("/stuck", 0o755, programs::stuck()?);
    (guest.memory, guest.counting) = (768, true);
    let ended = guest.run()?;
    ended.line("another hook loads")?;
    handed_over(&ended, "kexec")
}

/// Largest expected difference in free memory between two starts of the same kernel, in kB; 7 MB were seen.
const BY_CHANCE: u64 = 10_000;

pub fn each_loader_hands_over_time_and_again_and_no_memory_is_lost(test: &Test) -> Result<(), String> {
    let systems = chain::run(test, By::Nextkernel, 6)?;
    let most = |systems: &[Memory]| systems.iter().map(|memory| memory.free).max().unwrap_or(0);
    let (first, last) = (systems.get(1..4).unwrap_or_default(), systems.get(4..).unwrap_or_default());
    let total: Vec<_> = systems.iter().map(|memory| memory.total).collect();
    let is_lost = total.iter().min().zip(total.iter().max()).is_none_or(|(least, most)| most - least > 64);
    if is_lost || most(last) + BY_CHANCE < most(first) {
        return Err(format!("memory is lost: {systems:?}"));
    }
    // Every third kernel is a decompressed one, and only the decompressing program chooses its address.
    let decompressed: Vec<_> = systems.iter().skip(3).step_by(3).map(|memory| memory.place).collect();
    if decompressed.iter().min() == decompressed.iter().max() {
        return Err(format!("a thawed kernel's place is not random: {decompressed:x?}"));
    }
    Ok(())
}
