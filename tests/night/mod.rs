//! Tests the hook after the file systems are unmounted, under the real systemd-shutdown.

mod boards;
mod cost;
mod day;
mod drivers;
mod exitrds;
mod failures;
mod faults;
mod hooks;
mod inits;
mod leftovers;
mod loaders;
mod nvidia;
mod old_root;
mod pid1;
mod preload;
mod refusals;
mod slow;
mod staged;
mod verbs;
mod watchdogs;

use bed::harness::Property;
use bed::image::Image::{self, Debian12, Debian13, Forky};

/// Debian 13 and Debian 12.
const BOTH: &[Image] = &[Debian13, Debian12];
/// For properties that depend only on the kernel and the tool.
const ONE: &[Image] = &[Debian13];
/// The newest systemd-shutdown and kernel.
const NEWEST: &[Image] = &[Forky];

/// All properties of this suite.
pub const PROPERTIES: &[Property] = bed::properties![
    Full ONE boards::on_arm64_the_hook_as_pid_1_hands_over_by_the_verified_loader
    Full BOTH boards::debians_arm64_kernel_hands_over_by_the_direct_loader
    Full ONE boards::debians_riscv64_kernel_hands_over_by_the_direct_loader
    Full ONE boards::processors_are_taken_offline_before_the_kernel_would
    Quick BOTH hooks::systemd_shutdown_runs_the_hooks_with_the_verb
    Quick BOTH verbs::kexec_jumps_with_the_image_kept
    Quick BOTH verbs::kexec_jumps_with_nothing_loaded_by_day
    Quick BOTH verbs::reboot_jumps_when_the_plan_covers_it
    Quick BOTH verbs::reboot_reboots_when_the_plan_does_not_cover_it
    Quick ONE verbs::poweroff_and_halt_are_untouched
    Quick ONE verbs::with_nothing_staged_all_is_left_to_the_init
    Quick ONE verbs::a_containers_own_shutdown_is_left_alone_and_what_is_typed_in_one_is_refused
    Quick ONE verbs::an_image_that_somebody_else_loaded_is_left_to_systemd
    Quick ONE preload::what_is_preloaded_is_started_without_another_load_by_either_loader
    Quick ONE preload::where_somebody_has_unloaded_the_image_it_is_loaded_from_its_copies
    Full ONE preload::what_somebody_has_loaded_since_is_what_was_asked_for_last
    Full ONE preload::where_a_unit_loads_another_image_as_the_system_goes_down_the_staged_one_replaces_it
    Full ONE preload::what_a_killed_stage_has_left_loaded_is_not_taken_for_the_staged_image
    Full ONE preload::where_no_copies_are_kept_the_preloaded_image_is_started_and_nothing_where_it_is_gone
    Full ONE preload::as_pid_1_the_hook_starts_what_is_preloaded
    Quick ONE verbs::a_reboot_that_is_meant_for_the_firmware_is_left_to_it
    Full ONE verbs::whoever_asks_for_the_firmware_in_its_variables_gets_it_and_nothing_stays_loaded
    Full ONE verbs::where_the_configuration_says_so_a_request_in_the_firmwares_variables_is_passed_over
    Quick ONE verbs::a_line_that_is_reused_does_not_grow
    Full ONE verbs::where_the_plan_says_so_the_jump_is_systemds
    Full NEWEST verbs::kexec_jumps_with_the_image_kept
    Full NEWEST verbs::kexec_jumps_with_nothing_loaded_by_day
    Full NEWEST verbs::reboot_jumps_when_the_plan_covers_it
    Full NEWEST verbs::poweroff_and_halt_are_untouched
    Full NEWEST verbs::where_the_plan_says_so_the_jump_is_systemds
    Full ONE verbs::where_systemd_tells_its_hooks_no_verb_its_command_line_does
    Quick ONE loaders::the_direct_loader_hands_over_and_tells_the_whole_night
    Full NEWEST loaders::where_memory_is_kept_for_devices_each_loader_hands_over
    Full NEWEST loaders::memory_that_was_added_is_not_the_next_kernels_from_its_start
    Quick ONE loaders::what_is_thawed_hands_over_with_nothing_loaded_by_day
    Full ONE loaders::each_loader_hands_over_time_and_again_and_no_memory_is_lost
    Full BOTH loaders::what_the_hook_will_load_goes_where_the_kernel_hands_out_nothing_for_it
    Full BOTH loaders::an_image_that_the_direct_loader_kept_is_jumped_to_by_systemd
    Full ONE loaders::without_an_initrd_and_after_unstaging_the_direct_loader_does_as_the_other
    Full ONE loaders::a_load_that_somebody_else_is_making_is_waited_for
    Quick ONE failures::a_plan_of_another_version_is_told_and_survived
    Full ONE failures::a_plan_cut_short_is_told_and_survived
    Quick ONE failures::a_truncated_image_is_told_and_survived
    Quick ONE failures::an_image_replaced_after_staging_is_told_and_survived
    Full ONE failures::an_image_written_to_after_staging_is_told_and_survived
    Full ONE failures::an_image_that_is_gone_is_told_and_survived
    Quick ONE failures::kexec_load_disabled_is_told_and_survived
    Quick ONE failures::a_kernel_that_is_not_one_is_told_and_survived
    Quick ONE old_root::what_lies_on_each_other_is_closed_whatever_its_name_and_what_is_left_is_named
    Full ONE exitrds::an_exitrd_of_somebody_else_is_passed_by_at_a_jump_alone_and_that_is_told
    Full ONE exitrds::in_an_exitrd_of_systemd_shutdown_the_hook_runs_when_the_root_is_gone
    Full ONE exitrds::in_dracuts_exitrd_the_jump_waits_until_the_storage_is_closed
    Quick BOTH hooks::the_jump_waits_for_the_other_hooks
    Full ONE hooks::a_hook_that_never_ends_is_waited_for_no_longer_than_its_deadline
    Quick ONE hooks::when_another_hook_dies_by_a_signal_the_machine_ends_in_a_kernel
    Full ONE hooks::the_guard_ends_with_the_hook
    Quick ONE hooks::every_step_is_said_before_it_is_done_even_on_a_quiet_console
    Full ONE inits::s6_linux_init_runs_it_as_it_is_told_by_the_stage_it_ends_in
    Full ONE inits::dinit_runs_it_by_its_shutdown_hook
    Full ONE inits::nitro_runs_it_by_sys_final
    Full ONE inits::procd_runs_it_last_of_its_scripts
    Quick ONE pid1::as_pid_1_it_hands_over
    Full ONE pid1::as_pid_1_it_carries_out_what_the_plan_does_not_cover
    Quick ONE pid1::as_pid_1_with_nothing_at_all_it_restarts_the_machine
    Full ONE pid1::as_pid_1_with_an_empty_plan_or_a_full_run_it_restarts_the_machine
    Full ONE pid1::an_initramfs_of_one_program_starts_the_kernel_that_it_holds
    Full ONE watchdogs::at_reboot_the_watchdog_is_stopped_before_the_jump
    Full ONE watchdogs::at_kexec_a_watchdog_that_somebody_armed_stays_armed
    Full ONE watchdogs::at_kexec_it_is_stopped_where_the_plan_says_so
    Full ONE watchdogs::on_probation_a_next_kernel_that_hangs_is_reset
    Full ONE watchdogs::on_probation_a_next_kernel_that_ends_in_time_is_not_reset
    Full ONE watchdogs::on_probation_a_next_kernel_with_the_driver_is_not_reset
    Full ONE watchdogs::where_the_driver_stops_it_at_restarts_there_is_no_probation
    Quick BOTH drivers::bochs_is_freed_of_a_process_that_systemd_spares
    Full ONE drivers::by_day_the_hook_and_the_tool_tell_of_the_same_gpu
    Full ONE drivers::virtio_gpu_is_freed_of_a_mapping_alone
    Full ONE drivers::cirrus_is_freed_of_a_mapping_of_its_framebuffer
    Full ONE drivers::qxl_is_freed_by_the_hook_as_pid_1_of_whatever_still_runs
    Quick ONE drivers::cirrusfb_is_freed_of_its_console
    Full ONE drivers::a_card_without_vga_gives_the_console_back
    Full ONE drivers::a_buffer_that_somebody_else_was_given_keeps_the_driver_and_the_jump_is_made
    Full ONE drivers::a_driver_that_is_stuck_in_its_probe_resets_the_machine
    Full ONE drivers::a_driver_that_is_to_be_left_is_left
    Full ONE drivers::a_driver_that_is_to_be_unbound_is_unbound_from_each_of_its_cards
    Full ONE drivers::a_driver_on_virtio_is_unbound_from_the_device_that_is_its_own
    Full ONE drivers::a_driver_that_is_for_the_firmware_alone_restarts_through_it
    Full ONE drivers::a_module_that_the_plan_names_is_unloaded_with_what_stands_on_it
    Full ONE drivers::what_is_left_for_the_boot_loader_stays_as_it_is
    Quick ONE drivers::where_there_is_no_gpu_nothing_is_said_of_one_and_little_is_asked
    Full ONE day::the_longest_command_line_that_fits_by_day_fits_at_night
    Quick ONE day::several_initrds_are_joined_on_four_bytes
    Quick ONE day::unstaging_unloads_and_leaves_nothing_and_so_does_late_of_what_was_kept
    Quick ONE day::what_the_configuration_says_is_staged_shown_and_carried_out
    Full ONE day::check_tells_what_is_done_with_gpu_and_watchdog_and_what_forbids_it
    Quick ONE day::check_asks_the_kernel_without_spending_a_load
    Full ONE day::what_is_left_out_of_the_command_line_does_not_arrive_and_what_is_the_inits_stays_behind_the_record
    Quick ONE refusals::files_that_are_no_images_and_lines_that_do_not_fit_are_refused
    Quick ONE refusals::a_damaged_kernel_or_initrd_is_refused_and_what_was_staged_hands_over
    Full ONE refusals::an_entry_whose_files_are_missing_is_refused
    Quick ONE refusals::a_configuration_that_is_wrong_is_refused
    Quick ONE refusals::a_full_run_is_told_with_need_room_and_way_out
    Full ONE refusals::too_little_memory_is_told_before_anything_is_killed_for_it
    Full ONE refusals::a_limit_on_loads_that_the_night_would_meet_is_told
    Full ONE refusals::kexec_load_disabled_by_day_leaves_the_image_that_is_kept
    Full ONE refusals::under_lockdown_alone_no_kernel_can_be_verified_and_every_one_is_refused
    Full ONE refusals::under_secure_boot_a_bad_signature_is_told_from_none_and_debians_own_is_good
    Full ONE refusals::where_shim_verifies_nothing_secure_boot_forbids_nothing
    Quick ONE nvidia::the_stack_is_unloaded_leaf_first
    Quick ONE nvidia::processes_that_keep_the_gpu_open_past_systemds_killing_are_ended
    Full ONE nvidia::a_process_that_holds_the_gpu_by_a_mapping_alone_is_ended
    Full ONE nvidia::a_module_that_is_still_loading_is_waited_for
    Full ONE nvidia::a_module_that_is_permanent_is_told_keeps_no_other_branch_and_the_plan_decides
    Full ONE nvidia::what_another_hook_runs_is_never_ended
    Full ONE nvidia::where_no_module_may_be_unloaded_it_is_told_and_the_plan_decides
    Full ONE nvidia::an_nvidia_gpu_is_never_unbound_but_unloaded_however_long_that_takes
    Full ONE faults::a_holder_that_cannot_be_ended_is_named_and_the_plan_decides
    Full ONE faults::a_module_whose_exit_hangs_is_left_behind_and_the_plan_decides
    Full ONE faults::an_unloading_that_hangs_since_before_is_found_and_the_plan_decides
    Full ONE faults::a_device_lock_that_is_held_since_before_is_found_and_resets_the_machine
    Quick ONE faults::a_device_whose_remove_hangs_resets_the_machine
    Quick ONE faults::a_device_whose_remove_dies_resets_the_machine
    Full ONE faults::a_device_whose_remove_runs_for_ever_resets_the_machine
    Full ONE faults::a_device_whose_remove_goes_in_circles_resets_the_machine
    Full ONE faults::where_an_oops_is_a_panic_the_panic_restarts_the_machine
    Full ONE faults::a_probe_that_never_ends_resets_the_machine
    Quick ONE faults::a_driver_that_hangs_in_its_shutdown_is_ended_by_the_guard
    Full ONE faults::a_reboot_notifier_that_hangs_is_ended_by_the_guard
    Full ONE faults::a_disk_that_never_answers_prevents_the_jump_and_the_machine_restarts
    Full ONE faults::a_restart_that_hangs_is_ended_by_the_guard
    Full ONE faults::a_disk_that_stops_answering_later_prevents_the_jump
    Full ONE faults::a_load_that_hangs_is_given_up_and_the_machine_restarts
    Full ONE faults::consoles_whose_lock_is_held_for_ever_hold_up_neither_jump_nor_guard
    Full ONE faults::other_devices_are_unbound_all_at_the_same_time
    Full ONE faults::another_device_that_hangs_while_it_is_unbound_is_ended_by_the_guard
    Full ONE faults::where_the_plan_wants_firmware_for_a_gpu_nothing_jumps
    Full ONE faults::the_hooks_memory_does_not_grow_with_what_it_finds
    Full ONE slow::a_gpus_driver_that_makes_progress_is_waited_for_beyond_its_deadline
    Full ONE slow::a_gpus_driver_whose_one_device_comes_on_step_by_step_is_waited_for
    Full ONE slow::a_probe_that_takes_long_is_waited_for
    Full ONE slow::a_remove_that_hangs_after_a_long_sync_is_left_to_the_guard
    Full ONE slow::where_nobody_may_read_stacks_a_driver_that_hangs_resets_the_machine
    Full ONE slow::many_devices_that_hang_while_they_are_unbound_have_one_deadline_together
    Full ONE slow::an_image_that_nobody_may_jump_to_is_unloaded_before_the_other_hooks_are_waited_for
    Full ONE slow::the_gpu_is_freed_for_the_kept_image_when_the_staged_one_was_replaced
    Full ONE slow::nothing_stays_loaded_when_the_staged_image_was_replaced_and_the_gpu_cannot_be_freed
    Full ONE slow::a_jump_that_fails_leaves_no_watchdog_armed
    Full ONE slow::five_hundred_modules_that_stand_on_a_driver_are_unloaded
    Full ONE slow::a_limit_on_loads_is_not_spent_while_somebody_else_loads
    Full ONE slow::an_unknown_option_is_no_verb_to_pid_1
    Full ONE slow::in_an_initrd_the_hook_leaves_nothing_to_an_exitrd
    Full ONE leftovers::a_process_that_lives_on_without_its_first_thread_is_ended
    Full ONE leftovers::a_process_whose_command_line_reads_as_empty_is_ended
    Full ONE leftovers::a_process_that_stands_deep_below_others_is_ended
    Full ONE leftovers::the_gpu_is_freed_of_a_process_that_lives_on_without_its_first_thread
    Full ONE leftovers::the_gpu_is_freed_of_a_thread_that_has_descriptors_of_its_own
    Full ONE leftovers::the_gpu_is_freed_of_a_process_that_stands_deep_below_others
    Full ONE leftovers::a_crowd_is_ended_first_and_told_of_in_one_line_after_it
    Full ONE leftovers::a_process_that_is_another_one_at_each_look_is_ended
    Full ONE leftovers::processes_that_multiply_are_ended
    Full ONE leftovers::where_no_process_can_be_made_room_is_made_first
    Full ONE leftovers::where_sigchld_is_ignored_it_hands_over_all_the_same
    Full ONE leftovers::two_thousand_processes_are_ended
    Full ONE leftovers::thousands_of_processes_that_systemd_spares_hold_up_nothing
    Full ONE leftovers::a_name_from_outside_never_begins_a_line_of_the_log
    Full ONE leftovers::a_mount_that_has_a_long_line_is_closed_with_all_others
    Full ONE leftovers::thousands_of_mounts_are_closed
    Full ONE cost::without_a_gpu_the_hook_does_little_itself
];
