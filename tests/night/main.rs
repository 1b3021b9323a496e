//! What happens when the filesystems are gone: properties of the hook under the real
//! systemd-shutdown.

mod day;
mod failures;
mod hooks;
mod pid1;
mod staged;
mod verbs;
mod watchdogs;

use bed::harness::{self, Property};
use bed::image::Image::{self, Debian12, Debian13};
use std::process::ExitCode;

/// On both, in the quick set.
const BOTH: &[Image] = &[Debian13, Debian12];
/// What depends on the kernel and the tool alone.
const ONE: &[Image] = &[Debian13];

const PROPERTIES: &[Property] = bed::properties![
    Quick BOTH hooks::systemd_shutdown_runs_the_hooks_with_the_verb
    Quick BOTH verbs::kexec_jumps_with_the_image_kept
    Quick BOTH verbs::kexec_jumps_with_nothing_loaded_by_day
    Quick BOTH verbs::reboot_jumps_when_the_plan_covers_it
    Quick BOTH verbs::reboot_reboots_when_the_plan_does_not_cover_it
    Quick ONE verbs::poweroff_and_halt_are_untouched
    Quick ONE verbs::with_nothing_staged_all_is_left_to_the_init
    Quick ONE verbs::an_image_that_somebody_else_loaded_is_left_to_systemd
    Quick ONE verbs::what_was_staged_last_replaces_what_is_loaded
    Quick ONE verbs::a_reboot_that_is_meant_for_the_firmware_is_left_to_it
    Quick ONE verbs::a_line_that_is_reused_does_not_grow
    Full ONE verbs::what_is_the_inits_stays_behind_the_record
    Quick ONE failures::a_plan_of_another_version_is_told_and_survived
    Full ONE failures::a_plan_cut_short_is_told_and_survived
    Quick ONE failures::a_truncated_image_is_told_and_survived
    Quick ONE failures::an_image_replaced_after_staging_is_told_and_survived
    Full ONE failures::an_image_written_to_after_staging_is_told_and_survived
    Full ONE failures::an_image_that_is_gone_is_told_and_survived
    Quick ONE failures::kexec_load_disabled_is_told_and_survived
    Quick ONE failures::a_kernel_that_is_not_one_is_told_and_survived
    Quick BOTH hooks::the_jump_waits_for_the_other_hooks
    Full ONE hooks::a_hook_that_never_ends_is_waited_for_no_longer_than_its_deadline
    Quick ONE hooks::when_another_hook_dies_by_a_signal_the_machine_ends_in_a_kernel
    Quick ONE hooks::every_step_is_said_before_it_is_done_even_on_a_quiet_console
    Quick ONE pid1::as_pid_1_it_hands_over
    Full ONE pid1::as_pid_1_it_carries_out_what_the_plan_does_not_cover
    Quick ONE pid1::as_pid_1_with_nothing_at_all_it_restarts_the_machine
    Full ONE watchdogs::at_reboot_the_watchdog_is_stopped_before_the_jump
    Full ONE watchdogs::at_kexec_a_watchdog_that_somebody_armed_stays_armed
    Quick ONE day::what_the_kernel_refuses_is_told_by_day_and_what_was_staged_stays
    Full ONE day::the_longest_command_line_that_fits_by_day_fits_at_night
    Quick ONE day::too_little_room_is_told_with_need_room_and_way_out
    Full ONE day::too_little_memory_is_told_before_anything_is_killed_for_it
    Full ONE day::a_limit_on_loads_that_the_night_would_meet_is_told
    Quick ONE day::several_initrds_are_joined_on_four_bytes
    Quick ONE day::unstaging_unloads_and_leaves_nothing
    Full ONE day::late_unloads_what_was_kept_before
];

fn main() -> ExitCode {
    harness::run(PROPERTIES)
}
