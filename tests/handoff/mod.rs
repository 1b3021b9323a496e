//! Tests complete handoffs from one kernel to the next in whole Debian guests.

mod bootctl;
mod esp;
mod extlinux;
mod grub;
mod guides;
mod inits;
mod kexec;
mod loader;
mod loaders;
mod packages;
mod reboot;
mod refusals;
mod report;
mod stands;
mod storage;
mod systemd_boot;
mod uki;
mod units;
mod updates;
mod whole;

use bed::harness::Property;
use bed::image::Image::{self, Debian12, Debian12SeparateBoot, Debian13, Debian13SeparateBoot, Forky};

const BOTH: &[Image] = &[Debian13, Debian12];
const ONE: &[Image] = &[Debian13];
const BOTH_SEPARATE_BOOT: &[Image] = &[Debian13SeparateBoot, Debian12SeparateBoot];
const SEPARATE_BOOT: &[Image] = &[Debian13SeparateBoot];
const NEWEST: &[Image] = &[Forky];

/// All properties of this suite.
pub const PROPERTIES: &[Property] = bed::properties![
    Full ONE storage::a_root_in_luks_on_lvm_is_closed_before_the_jump_and_at_reboot
    Full ONE inits::under_sysvinit_the_staged_kernel_starts_and_nothing_else_starts_it
    Full ONE whole::stage_killed_at_each_call_that_changes_anything_leaves_the_old_plan_or_the_new_one
    Full ONE storage::a_root_in_luks_on_lvm_is_closed_in_dracuts_exitrd
    Full ONE storage::a_root_on_a_mirror_is_closed_before_the_jump_and_at_halt
    Full ONE storage::a_root_on_btrfs_is_closed_before_the_jump_and_at_poweroff
    Full ONE inits::under_openrc_and_sysvinit_the_staged_kernel_starts_and_nothing_else_starts_it
    Full ONE inits::under_openrc_init_the_staged_kernel_starts_and_nothing_else_starts_it
    Full ONE inits::under_runit_the_staged_kernel_starts_and_nothing_else_starts_it
    Full ONE inits::under_finit_the_staged_kernel_starts_and_nothing_else_starts_it
    Full ONE inits::under_busybox_the_staged_kernel_starts_and_nothing_else_starts_it
    Quick BOTH kexec::kexec_jumps_with_the_image_kept_and_with_nothing_loaded
    Full NEWEST kexec::kexec_jumps_with_the_image_kept_and_with_nothing_loaded
    Full NEWEST storage::where_the_plan_says_so_the_jump_is_systemds_and_in_our_exitrd_a_plain_root_is_closed
    Quick ONE loaders::what_is_thawed_is_handed_over_to
    Full ONE loaders::by_the_direct_loader_the_staged_kernel_arrives_and_a_kept_one_by_systemd
    Full ONE loaders::every_loaders_kernel_finds_the_same_machine_under_a_bios
    Full ONE loaders::every_loaders_kernel_finds_the_same_machine_under_uefi
    Full ONE loaders::a_thawed_kernel_that_panics_is_dumped_as_any_other
    Full ONE kexec::reboot_jumps_or_reboots_as_the_plan_says
    Quick SEPARATE_BOOT units::with_a_separate_boot_the_unit_stages_and_kexec_jumps
    Full ONE kexec::a_root_that_is_still_written_to_is_jumped_from_by_nobody
    Full ONE units::a_change_in_boot_stages_again_and_a_stop_or_a_removal_unstages
    Full ONE updates::after_a_kernel_update_a_plain_reboot_starts_the_new_kernel_and_a_removed_one_is_unstaged
    Full ONE updates::after_apt_has_upgraded_the_kernel_a_reboot_starts_the_new_one_by_kexec
    Full ONE units::enabling_another_instance_replaces_the_first
    Full ONE whole::at_night_the_hook_asks_for_no_memory
    Quick ONE systemd_boot::an_entry_with_two_initrds_that_systemctl_refuses_is_staged_and_arrives
    Full BOTH systemd_boot::what_is_marked_is_what_systemd_boot_boots_by_default_once_and_past_one_counted_bad
    Quick ONE bootctl::entries_and_their_order_are_those_of_systemd_boot_and_of_bootctl
    Full ONE uki::what_is_marked_is_the_profile_of_an_image_that_systemd_boot_boots
    Full BOTH_SEPARATE_BOOT grub::what_is_marked_is_what_grub_boots_from_a_submenu_and_once
    Full ONE grub::what_is_marked_is_what_debians_grub_boots_under_uefi
    Full SEPARATE_BOOT extlinux::what_is_marked_is_the_label_that_extlinux_boots
    Full BOTH_SEPARATE_BOOT guides::every_guide_is_walked_through_as_it_is_written
    Full ONE guides::the_guide_for_a_root_in_luks_is_walked_through
    Full ONE stands::what_carries_the_root_is_never_unbound_and_halt_is_untouched
    Full ONE refusals::a_plain_system_has_nothing_bad_and_what_a_shutdown_would_not_find_is_refused
    Full ONE refusals::in_a_chroot_a_container_or_where_nobody_may_look_nothing_is_staged
    Full ONE refusals::swap_in_memory_is_no_room_for_an_image
    Full ONE report::a_handoff_that_failed_is_told_and_leaves_restarts_to_the_firmware_where_that_is_wanted
    Full ONE reboot::nextkernel_reboot_stages_and_hands_over_and_an_inhibitor_stops_it
    Full ONE reboot::nextkernel_reboot_full_goes_through_the_firmware_whatever_is_staged
    Full SEPARATE_BOOT reboot::a_reboot_is_a_firmware_reset_that_keeps_what_was_written_and_poweroff_is_untouched
    Full BOTH packages::installed_used_updated_and_purged_by_apt_nothing_is_left
];
