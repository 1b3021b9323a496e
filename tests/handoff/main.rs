//! From one kernel to the next: properties of the whole passage in whole Debian guests.

mod kexec;
mod loaders;
mod reboot;
mod stands;
mod units;
mod whole;

use bed::harness::{self, Property};
use bed::image::Image::{self, Debian12, Debian13, Debian13SeparateBoot};
use std::process::ExitCode;

const BOTH: &[Image] = &[Debian13, Debian12];
const ONE: &[Image] = &[Debian13];
const SEPARATE_BOOT: &[Image] = &[Debian13SeparateBoot];

const PROPERTIES: &[Property] = bed::properties![
    Quick BOTH kexec::kexec_jumps_with_the_image_kept_and_with_nothing_loaded
    Full BOTH kexec::reboot_jumps_or_reboots_as_the_plan_says
    Quick SEPARATE_BOOT units::with_a_separate_boot_the_unit_stages_and_kexec_jumps
    Full BOTH kexec::poweroff_is_untouched
    Full BOTH kexec::halt_is_untouched
    Full ONE kexec::a_root_that_is_still_written_to_is_jumped_from_by_nobody
    Full ONE units::a_change_in_boot_stages_again_and_a_stop_or_a_removal_unstages
    Full ONE units::enabling_another_instance_replaces_the_first
    Full ONE whole::stage_killed_at_each_of_its_calls_leaves_the_old_plan_or_the_new_one
    Full ONE whole::at_night_the_hook_asks_for_no_memory
    Full ONE loaders::what_systemd_boot_booted_is_staged_and_arrives_with_all_its_initrds
    Full ONE loaders::the_entry_that_is_marked_is_the_one_that_systemd_boot_boots_next
    Full ONE stands::what_carries_the_root_is_never_unbound
    Full BOTH reboot::a_reboot_is_seen_as_a_firmware_reset
    Full BOTH reboot::nextkernel_reboot_stages_and_hands_over_and_an_inhibitor_stops_it
    Full SEPARATE_BOOT reboot::what_is_written_lasts_over_a_reboot_and_power_off_is_seen
];

fn main() -> ExitCode {
    harness::run(PROPERTIES)
}
