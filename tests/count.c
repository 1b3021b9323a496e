// Counts what programs take, where the time-stamp counter counts instructions.
// count NAME PROGRAM [ARGUMENT...]   runs it and prints "counted NAME INSTRUCTIONS KILOBYTES SYSTEM": the kilobytes are
//                                    the most memory that the program itself ever had (ru_maxrss, getrusage(2)), and
//                                    the most by which the free memory of the system ever fell, looked at every 10 ms
// count clock                        says the counter in the kernel's log, so that its time stamps can be converted
// count now                          prints "now COUNTER NANOSECONDS", the counter and the time since the kernel's start
// count jump                         prints "leaves COUNTER" and starts the loaded kernel
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define LOOK_MS 10

static unsigned long free_kilobytes(void)
{
	struct sysinfo system;
	if (sysinfo(&system))
		err(1, "sysinfo");
	return system.freeram * system.mem_unit / 1024;
}

static int count(char **argv)
{
	struct rusage used;
	int status;
	unsigned long before_it = free_kilobytes(), least = before_it;
	unsigned long long before = __rdtsc();
	pid_t child = vfork();
	if (child < 0)
		err(1, "vfork");
	if (child == 0) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	struct pollfd ended = { .fd = (int)syscall(SYS_pidfd_open, child, 0), .events = POLLIN };
	if (ended.fd < 0)
		err(1, "pidfd_open");
	while (poll(&ended, 1, LOOK_MS) == 0) {
		unsigned long now = free_kilobytes();
		if (now < least)
			least = now;
	}
	if (wait4(child, &status, 0, &used) < 0)
		err(1, "wait4");
	unsigned long long after = __rdtsc();
	if (status)
		errx(1, "%s ended with %#x", argv[2], (unsigned)status);
	printf("counted %s %llu %ld %lu\n", argv[1], after - before, used.ru_maxrss, before_it - least);
	return 0;
}

static int clock_in_log(void)
{
	// In one write, and without the seek that dprintf makes before it.
	int log = open("/dev/kmsg", O_WRONLY);
	char line[64];
	int size = snprintf(line, sizeof line, "<1>count: counter %llu\n", __rdtsc());
	if (log < 0 || write(log, line, (size_t)size) != size)
		err(1, "/dev/kmsg");
	return 0;
}

static int now(void)
{
	struct timespec up;
	unsigned long long counter = __rdtsc();
	if (clock_gettime(CLOCK_MONOTONIC, &up))
		err(1, "clock_gettime");
	printf("now %llu %llu\n", counter, up.tv_sec * 1000000000ULL + (unsigned long long)up.tv_nsec);
	return 0;
}

static int jump(void)
{
	printf("leaves %llu\n", __rdtsc());
	fflush(stdout);
	if (reboot(0x45584543)) // LINUX_REBOOT_CMD_KEXEC
		err(1, "reboot");
	return 1;
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return count(argv);
	if (argc == 2 && !strcmp(argv[1], "clock"))
		return clock_in_log();
	if (argc == 2 && !strcmp(argv[1], "now"))
		return now();
	if (argc == 2 && !strcmp(argv[1], "jump"))
		return jump();
	errx(2, "count NAME PROGRAM [ARGUMENT...] | clock | now | jump");
}
