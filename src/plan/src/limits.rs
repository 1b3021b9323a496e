//! Every limit of the plan, in bytes unless it says otherwise, with its reason.

/// A whole plan: one command line and the paths it came from. The hook reads it into a buffer on
/// its stack, one byte larger, to see that there is no more.
pub const PLAN_MAX: usize = 16 * 1024 - 1;

/// The kernel command line as staged, without the record and without the final NUL.
/// No architecture takes more than 4096 (loongarch); what the running one takes is [`LOADER_CMDLINE_MAX`].
pub const CMDLINE_MAX: usize = 4095;

/// What `kexec_file_load(2)` takes as a command line on this architecture, without the final NUL.
///
/// On x86 `COMMAND_LINE_SIZE` is 2048, and `bzImage64_load` asks for 30 bytes of room for
/// `elfcorehdr=` of normal images, too, and counts the NUL (arch/x86/kernel/kexec-bzimage64.c).
#[cfg(target_arch = "x86_64")]
pub const LOADER_CMDLINE_MAX: usize = 2047 - 30 - 1;
/// What the next kernel takes as a command line on this architecture, without the final NUL: there
/// `kexec_file_load(2)` takes any, and what is too long is cut off unseen (`COMMAND_LINE_SIZE`,
/// arch/arm64/include/uapi/asm/setup.h; `early_init_dt_scan_chosen`, drivers/of/fdt.c).
#[cfg(target_arch = "aarch64")]
pub const LOADER_CMDLINE_MAX: usize = 2047;
/// What the next kernel takes as a command line on this architecture, without the final NUL: `COMMAND_LINE_SIZE`, which
/// is 1024 on riscv64 (arch/riscv/include/uapi/asm/setup.h; 512 before Linux 6.4), and more elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const LOADER_CMDLINE_MAX: usize = 1023;

/// The record that the hook appends to the command line, with the space before it. The rehearsal
/// uses one of this length, so that what fits by day fits at night.
pub const RECORD_MAX: usize = 128;

/// The name of an image in the staged folder. The tool makes these names itself.
pub const NAME_MAX: usize = 64;

/// What a person calls the entry: a version or the name of a boot entry.
pub const ENTRY_MAX: usize = 255;

/// A path that an image was made from (`PATH_MAX` without its NUL, limits.h).
pub const PATH_MAX: usize = 4095;

/// How many files an initrd is joined from; boot entries with microcode have two or three.
pub const INITRDS_MAX: usize = 16;

/// The name of a module (`MODULE_NAME_LEN`, include/linux/module.h: 64 bytes less a pointer, NUL included).
pub const MODULE_NAME_MAX: usize = 55;

/// How many drivers of GPUs a plan says something about; one machine has two or three.
pub const GPU_POLICIES_MAX: usize = 8;

/// How many further modules are unloaded.
pub const MODULES_MAX: usize = 16;

/// How many other devices are unbound; a process each, at the same time.
pub const UNBIND_MAX: usize = 32;

/// The least number of seconds that the guard may give the jump.
pub const GUARD_MIN: u16 = 5;

/// How many segments `kexec_load(2)` takes (`KEXEC_SEGMENT_MAX`, include/linux/kexec.h).
pub const SEGMENTS_MAX: usize = 16;

/// How many pieces of the parameters are random: an arm64 kernel takes two.
pub const SEEDS_MAX: usize = 4;
