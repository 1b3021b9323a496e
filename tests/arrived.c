// The next system's /init. Its first instruction reads the time-stamp counter; then it prints
// "arrived COUNTER", "told COMMAND LINE", "memory MemTotal MemFree" in kB, and the kernel's log, and powers off.
// Without a C library, which would run before it.
#include <asm/unistd.h>
#include <linux/reboot.h>

__asm__(".globl _start\n"
	"_start:\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	lea (%rdx, %rax), %rdi\n"
	"	and $-16, %rsp\n"
	"	call arrived\n");

static char buffer[1 << 20];

static long call(long number, const void *a, const void *b, long c, long d, long e)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	long answer;
	__asm__ volatile("syscall"
			 : "=a"(answer)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
			 : "rcx", "r11", "memory");
	return answer;
}

static void write_all(const char *text, long size)
{
	while (size > 0) {
		long written = call(__NR_write, (void *)1, text, size, 0, 0);
		if (written <= 0)
			return;
		text += written;
		size -= written;
	}
}

static void say(const char *text)
{
	long size = 0;
	while (text[size])
		size++;
	write_all(text, size);
}

static void say_number(unsigned long number)
{
	char digits[24], *at = digits + sizeof digits;
	*--at = 0;
	do
		*--at = (char)('0' + number % 10);
	while (number /= 10);
	say(at);
}

static void say_file(const char *path, long most)
{
	long file = call(__NR_open, path, 0, 0, 0, 0);
	long size = file < 0 ? 0 : call(__NR_read, (void *)file, buffer, most, 0, 0);
	write_all(buffer, size);
}

void arrived(unsigned long counter)
{
	// Nothing of the kernel's own in between.
	call(__NR_syslog, (void *)6, 0, 0, 0, 0);
	say("\narrived ");
	say_number(counter);
	call(__NR_mkdir, "/proc", (void *)0755, 0, 0, 0);
	call(__NR_mount, "proc", "/proc", (long)"proc", 0, 0);
	say("\ntold ");
	say_file("/proc/cmdline", 4096);
	// The first two lines.
	say_file("/proc/meminfo", 56);
	say("\n");
	write_all(buffer, call(__NR_syslog, (void *)3, buffer, sizeof buffer, 0, 0));
	call(__NR_reboot, (void *)LINUX_REBOOT_MAGIC1, (void *)LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0, 0);
	for (;;)
		;
}
