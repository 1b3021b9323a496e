// Counts what a program and its children do in user mode: steps PROGRAM [ARGUMENT...]
// Runs it one instruction after the other, and prints "steps INSTRUCTIONS CALLS FAULTS KILOBYTES" before it starts another
// kernel: instructions (a string instruction is one, however often it repeats) and system calls of them all, the page faults (minflt of proc_pid_stat(5)) and the most memory
// (VmHWM) of the program itself.
#define _GNU_SOURCE
#include <err.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long steps, calls, each[512];

static void tell(pid_t program)
{
	char path[64], line[256];
	unsigned long faults = 0, kilobytes = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", program);
	FILE *file = fopen(path, "r");
	if (!file || fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %lu", &faults) != 1)
		err(1, "%s", path);
	fclose(file);
	snprintf(path, sizeof path, "/proc/%d/status", program);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "VmHWM: %lu", &kilobytes) == 1)
			break;
	FILE *console = fopen("/dev/console", "w");
	if (!console)
		err(1, "/dev/console");
	fprintf(console, "\nsteps %lu %lu %lu %lu\n", steps, calls, faults, kilobytes);
	for (int call = 0; call < 512; call++)
		if (each[call])
			fprintf(console, "call %d: %lu\n", call, each[call]);
	fclose(console);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		errx(2, "steps PROGRAM [ARGUMENT...]");
	pid_t program = fork();
	if (program < 0)
		err(1, "fork");
	if (program == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[1], argv + 1);
		_exit(127);
	}
	int status, ours = 1;
	pid_t last = 0;
	unsigned long long at = 0;
	if (waitpid(program, &status, 0) < 0)
		err(1, "waitpid");
	long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	if (ptrace(PTRACE_SETOPTIONS, program, 0, options) || ptrace(PTRACE_CONT, program, 0, 0))
		err(1, "ptrace");
	for (;;) {
		pid_t it = waitpid(-1, &status, __WALL);
		if (it < 0)
			return ours;
		if (!WIFSTOPPED(status)) {
			if (it == program)
				ours = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			continue;
		}
		int signal = WSTOPSIG(status);
		if (signal == SIGTRAP || signal == SIGSTOP)
			signal = 0;
		struct user_regs_struct now;
		if (status >> 16 == 0 && ptrace(PTRACE_GETREGS, it, 0, &now) == 0) {
			if (it == last && now.rip == at)
				goto step;
			last = it, at = now.rip;
			steps++;
			long next = ptrace(PTRACE_PEEKTEXT, it, (void *)now.rip, 0);
			if ((next & 0xffff) == 0x050f) {
				calls++;
				each[now.rax & 511]++;
				if (now.rax == SYS_reboot && (unsigned)now.rdx == LINUX_REBOOT_CMD_KEXEC)
					tell(program);
			}
		}
step:
		ptrace(PTRACE_SINGLESTEP, it, 0, signal);
	}
}
