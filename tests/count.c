// Runs a program and says what it took: count NAME PROGRAM [ARGUMENT...]
// prints "counted NAME INSTRUCTIONS KILOBYTES", where the time-stamp counter counts instructions; the
// kilobytes are the most memory that the program itself ever had (ru_maxrss, getrusage(2)).
#include <err.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

int main(int argc, char **argv)
{
	struct rusage used;
	int status;
	if (argc < 3)
		errx(2, "count NAME PROGRAM [ARGUMENT...]");
	unsigned long long before = __rdtsc();
	pid_t child = vfork();
	if (child < 0)
		err(1, "vfork");
	if (child == 0) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (wait4(child, &status, 0, &used) < 0)
		err(1, "wait4");
	unsigned long long after = __rdtsc();
	if (status)
		errx(1, "%s ended with %#x", argv[2], (unsigned)status);
	printf("counted %s %llu %ld\n", argv[1], after - before, used.ru_maxrss);
	return 0;
}
