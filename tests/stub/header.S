// The setup header of the stub's bzImage, and what is packed in it. Fields are named as in
// Documentation/arch/x86/boot.rst; what depends on sizes comes from bzimage.lds.
#define __ASSEMBLY__
#include <asm/bootparam.h>

#define ALIGNMENT_BITS 21

	.section .setup, "a"
	.org 0x1f1
	.byte 7			// setup_sects: one page with the boot sector
	.word 1			// root_flags: read-only
	.long syssize
	.word 0			// ram_size
	.word 0xffff		// vid_mode: normal
	.word 0			// root_dev
	.word 0xaa55		// boot_flag
	.byte 0xeb, real_mode - header	// jump
header:	.ascii "HdrS"
	.word 0x020f		// version
	.long 0			// realmode_swtch
	.word 0x1000		// start_sys_seg
	.word version - 0x200	// kernel_version
	.byte 0			// type_of_loader
	.byte LOADED_HIGH	// loadflags
	.word 0x8000		// setup_move_size
	.long 0x100000		// code32_start
	.long 0, 0		// ramdisk_image, ramdisk_size
	.long 0			// bootsect_kludge
	.word 0			// heap_end_ptr
	.byte 0, 0		// ext_loader_ver, ext_loader_type
	.long 0			// cmd_line_ptr
	.long 0x7fffffff	// initrd_addr_max
	.long 1 << ALIGNMENT_BITS	// kernel_alignment
	.byte 1			// relocatable_kernel
	.byte ALIGNMENT_BITS	// min_alignment
	// xloadflags. The stub makes its page tables of as many levels as it finds, and calls nothing of UEFI.
	.word XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G | XLF_EFI_KEXEC | XLF_5LEVEL
	.long 2047		// cmdline_size
	.long 0			// hardware_subarch
	.quad 0			// hardware_subarch_data
	.long payload_offset
	.long payload_length
	.quad 0			// setup_data
	.quad 0x1000000		// pref_address
	.long init_size
	.long 0			// handover_offset
	.long kernel_info_offset

// No real mode starts it.
	.code16
real_mode:
	cli
1:	hlt
	jmp 1b

version:
	.asciz "0.0.0-stub (bed@nextkernel) #1"

	.section .payload, "a"
	.incbin "payload"

	.section .note.GNU-stack, "", @progbits
