// Hides from who looks for processes, or is too many for them, and keeps a file open:
// hide nobody|root|@ WAY FILE [NUMBER]
// thread: in a process whose first thread has gone. apart: in a thread that has descriptors of its own.
// nameless: in a process whose command line cannot be read. named: in one whose name holds a newline.
// deep: NUMBER processes, each the child of the one before; the last one keeps it open.
// crowd: NUMBER processes. many: the same, and all in one memory, which is cheaper; the first is their parent.
// flee: a process that makes another one and ends, and so on. multiply: processes that make others, NUMBER at a time.
// Returns as soon as the file is kept open. Nobody of them minds SIGTERM.
// hide careless PROGRAM ARGUMENTS: does not wait for children, and becomes that program.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <ucontext.h>
#include <unistd.h>

#define NOBODY 65534

static int file, begun[2], number, is_spared;
static char *name, *user;
static char stack[65536] __attribute__((aligned(4096)));
static ucontext_t elsewhere;
static sem_t is_apart;

static void say_begun(void)
{
	if (write(begun[1], "", 1) != 1)
		err(1, "cannot say so");
	close(begun[0]);
	close(begun[1]);
}

static int stay(void *unused)
{
	(void)unused;
	while (pause() < 0)
		;
	return 0;
}

static void begin_and_stay(void)
{
	say_begun();
	stay(NULL);
}

static int child(void)
{
	int id = fork();

	if (id < 0)
		err(1, "fork");
	return !id;
}

static void *outlive(void *first)
{
	pthread_join(*(pthread_t *)first, NULL);
	if (!is_spared)
		say_begun();
	stay(NULL);
	return NULL;
}

static void *go_apart(void *unused)
{
	if (unshare(CLONE_FILES))
		err(1, "unshare");
	sem_post(&is_apart);
	stay(NULL);
	return unused;
}

static void start(void *(*run)(void *), void *with)
{
	static pthread_t thread;

	if (pthread_create(&thread, NULL, run, with))
		errx(1, "no thread");
}

static void thread(void)
{
	static pthread_t self;
	struct statvfs root;

	self = pthread_self();
	start(outlive, &self);
	if (is_spared) {
		// The name goes with the first thread. systemd makes the root read-only when it has ended the others.
		say_begun();
		while (!statvfs("/", &root) && !(root.f_flag & ST_RDONLY))
			usleep(1000);
	}
	pthread_exit(NULL);
}

static void apart(void)
{
	start(go_apart, NULL);
	sem_wait(&is_apart);
	close(file);
	begin_and_stay();
}

// On another stack: the first one may begin on the same page.
static void cover_name(void)
{
	char *page = (char *)((uintptr_t)name & ~(uintptr_t)4095);

	if (mprotect(page, 4096, PROT_NONE))
		_exit(1);
	begin_and_stay();
}

static void nameless(void)
{
	if (getcontext(&elsewhere))
		err(1, "getcontext");
	elsewhere.uc_stack.ss_sp = stack;
	elsewhere.uc_stack.ss_size = sizeof(stack);
	makecontext(&elsewhere, cover_name, 0);
	setcontext(&elsewhere);
}

static void named(void)
{
	prctl(PR_SET_NAME, "x\nforged");
	begin_and_stay();
}

static void be(const char *who)
{
	if (!strcmp(who, "nobody") && (setgid(NOBODY) || setuid(NOBODY)))
		err(1, "cannot be nobody");
}

// The deeper, the smaller is its number: who takes them one after the other finds the deepest first.
static void deep(void)
{
	char before[16];
	int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);

	while (--number > 0) {
		snprintf(before, sizeof(before), "%d", getpid() > 20000 ? getpid() - 2 : 30000);
		if (pwrite(last, before, strlen(before), 0) < 0)
			err(1, "ns_last_pid");
		if (!child()) {
			close(file);
			close(begun[1]);
			be(user);
			stay(NULL);
		}
	}
	be(user);
	begin_and_stay();
}

static void crowd(void)
{
	while (--number > 0)
		if (child())
			stay(NULL);
	begin_and_stay();
}

static void many(void)
{
	int shared = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND;

	// All may stand on one stack, for all write the same to it.
	while (--number > 0)
		if (clone(stay, stack + sizeof(stack), shared | SIGCHLD, NULL) < 0)
			err(1, "clone");
	begin_and_stay();
}

static void flee(void)
{
	say_begun();
	for (;;)
		if (fork() > 0)
			_exit(0);
}

static void multiply(void)
{
	say_begun();
	for (;;)
		if (fork() < 0)
			sched_yield();
}

static const struct {
	const char *name;
	void (*go)(void);
} ways[] = {
	{ "thread", thread }, { "apart", apart }, { "nameless", nameless }, { "named", named }, { "deep", deep },
	{ "crowd", crowd }, { "many", many }, { "flee", flee }, { "multiply", multiply },
};

int main(int argc, char **argv)
{
	char byte;
	size_t way = 0;
	struct rlimit limit;

	if (argc > 2 && !strcmp(argv[1], "careless")) {
		signal(SIGCHLD, SIG_IGN);
		execv(argv[2], argv + 2);
		err(1, "%s", argv[2]);
	}
	if (argc < 4)
		errx(2, "hide nobody|root|@ WAY FILE [NUMBER]");
	while (way < sizeof(ways) / sizeof(*ways) && strcmp(ways[way].name, argv[2]))
		way++;
	if (way == sizeof(ways) / sizeof(*ways))
		errx(2, "%s is no way", argv[2]);
	file = open(argv[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0)
		err(1, "%s", argv[3]);
	if (pipe2(begun, O_CLOEXEC))
		err(1, "pipe");
	number = argc > 4 ? atoi(argv[4]) : 1;
	name = argv[0];
	signal(SIGTERM, SIG_IGN);
	// Of the same user, with this one, which waits: who multiplies does so up to there.
	limit.rlim_cur = limit.rlim_max = (rlim_t)number + 1;
	if (number > 1 && setrlimit(RLIMIT_NPROC, &limit))
		err(1, "setrlimit");
	user = argv[1];
	if (ways[way].go != deep)
		be(user);
	// What systemd-shutdown leaves alive: https://systemd.io/ROOT_STORAGE_DAEMONS
	is_spared = !strcmp(argv[1], "@");
	if (is_spared)
		argv[0][0] = '@';
	if (child()) {
		// As what is started in a session or as a service: it has its share of the processor, however many it becomes.
		setsid();
		ways[way].go();
		return 1;
	}
	close(begun[1]);
	if (read(begun[0], &byte, 1) != 1)
		errx(1, "%s: failed", argv[2]);
	return 0;
}
