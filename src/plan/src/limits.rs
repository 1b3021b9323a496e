//! All limits of the plan, with their reasons. They are in bytes unless they say otherwise.

/// A whole plan: one command line and the paths that it came from. The hook reads it into a buffer on its
/// stack that is one byte larger, to notice a longer plan.
pub const PLAN_MAX: usize = 16 * 1024 - 1;

/// The kernel command line as staged, without the record and without the final NUL. No architecture takes
/// more than 4096 (loongarch). The limit of the running architecture is [`LOADER_CMDLINE_MAX`].
pub const CMDLINE_MAX: usize = 4095;

/// The longest command line that `kexec_file_load(2)` takes on this architecture, without the final NUL.
///
/// On x86 `COMMAND_LINE_SIZE` is 2048. `bzImage64_load` reserves 30 bytes for `elfcorehdr=`, also for normal
/// images, and counts the NUL (arch/x86/kernel/kexec-bzimage64.c).
#[cfg(target_arch = "x86_64")]
pub const LOADER_CMDLINE_MAX: usize = 2047 - 30 - 1;
/// The longest command line that the next kernel takes on this architecture, without the final NUL.
/// `kexec_file_load(2)` takes any length there, and the rest is silently cut off (`COMMAND_LINE_SIZE`,
/// arch/arm64/include/uapi/asm/setup.h; `early_init_dt_scan_chosen`, drivers/of/fdt.c).
#[cfg(target_arch = "aarch64")]
pub const LOADER_CMDLINE_MAX: usize = 2047;
/// The longest command line that the next kernel takes on this architecture, without the final NUL:
/// `COMMAND_LINE_SIZE`, which is 1024 on riscv64 (arch/riscv/include/uapi/asm/setup.h; 512 before Linux 6.4),
/// and more elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const LOADER_CMDLINE_MAX: usize = 1023;

/// The record that the hook adds to the command line, with the space before it. The test load uses one of
/// this length, so that a command line that fits at staging fits at the end of shutdown, too.
pub const RECORD_MAX: usize = 128;

/// The name of an image in the plan's directory. The tool makes these names itself.
pub const NAME_MAX: usize = 64;

/// The name of the entry for people: a version, or the name of a boot entry.
pub const ENTRY_MAX: usize = 255;

/// The path of a file from which an image was made (`PATH_MAX` without its NUL, limits.h).
pub const PATH_MAX: usize = 4095;

/// The number of files that an initrd is joined from. Boot entries with microcode have two or three.
pub const INITRDS_MAX: usize = 16;

/// The name of a module (`MODULE_NAME_LEN`, include/linux/module.h: 64 bytes less a pointer, NUL included).
pub const MODULE_NAME_MAX: usize = 55;

/// The number of GPU drivers for which a plan has a line. One machine has two or three.
pub const GPU_POLICIES_MAX: usize = 8;

/// The number of further modules to unload.
pub const MODULES_MAX: usize = 16;

/// The number of other devices to unbind. Each takes a process, and all run at the same time.
pub const UNBIND_MAX: usize = 32;

/// The shortest time that the guard may give the jump, in seconds.
pub const GUARD_MIN: u16 = 5;

/// The number of segments that `kexec_load(2)` takes (`KEXEC_SEGMENT_MAX`, include/linux/kexec.h).
pub const SEGMENTS_MAX: usize = 16;

/// The number of random places in the parameters. An arm64 kernel takes two.
pub const SEEDS_MAX: usize = 4;
