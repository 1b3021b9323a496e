// The beginning of the stub, the same in its bzImage and in the vmlinux that is packed in that.
// Documentation/arch/x86/boot.rst, "64-bit Boot Protocol": rsi is the address of struct boot_params, interrupts are
// off, and what is mapped are that, the command line, and init_size bytes from the kernel's beginning on.
#define __ASSEMBLY__
#include <asm/bootparam.h>

	.section .head, "ax"
	.code32
// The 32-bit entry. Nobody uses it: kexec starts 64-bit kernels at the other one.
	cli
1:	hlt
	jmp 1b

// boot.rst, "The kernel_info": its magic, its size, the size with what follows it, the highest type of setup_data.
	.balign 16
	.globl kernel_info
kernel_info:
	.ascii "LToP"
	.long 16, 16, SETUP_TYPE_MAX

// The 64-bit entry of a bzImage is 0x200 behind its 32-bit entry. The vmlinux has one of its own, so that what was
// entered can be told.
	.code64
	.org 0x200
	.globl startup_64, startup_vmlinux
startup_64:
	xor %edx, %edx
	jmp 1f
startup_vmlinux:
	mov $1, %edx
1:	cli
	cld
	lea bss(%rip), %rdi
	lea bss_end(%rip), %rcx
	sub %rdi, %rcx
	xor %eax, %eax
	rep stosb
	lea stack_end(%rip), %rsp
	mov %rsi, %rdi
	mov %edx, %esi
	call stub

	.bss
	.balign 16
	.skip 16384
stack_end:

	.section .note.GNU-stack, "", @progbits
