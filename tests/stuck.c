// Gets stuck, and stays behind, as nobody can end it:
// stuck read DEVICE: in its driver. stuck load MODULE PARAMETERS: in its init. stuck unload
// /sys/module/NAME: in its exit.
// stuck contend KERNEL INITRD: keeps the kernel's lock for loads for half a second, by loads that fail when both are read.
// They are for a crash: the same lock, and another limit.
// stuck listen FILE: is asked before somebody reads FILE, and does not answer: the reader is stuck.
// stuck unload-image: unloads what is loaded for a kexec, and ends.
#include <err.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void listen_to(const char *file)
{
	int listener = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
	if (listener < 0 || fanotify_mark(listener, FAN_MARK_ADD, FAN_ACCESS_PERM, AT_FDCWD, file))
		err(1, "cannot listen to %s", file);
}

static void contend(int kernel, const char *initrd)
{
	int second = open(initrd, O_RDONLY);
	if (second < 0)
		err(1, "%s", initrd);
	// A command line without its end is refused when the files are read: nothing is ever loaded.
	struct timespec begun, now;
	clock_gettime(CLOCK_MONOTONIC, &begun);
	do {
		syscall(SYS_kexec_file_load, kernel, second, 1UL, "x", (unsigned long)KEXEC_FILE_ON_CRASH);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000 < 500);
}

int main(int argc, char **argv)
{
	char byte;
	if (argc == 2 && !strcmp(argv[1], "unload-image")) {
		if (syscall(SYS_kexec_load, 0UL, 0UL, NULL, 0UL))
			err(1, "cannot unload the image");
		return 0;
	}
	if (argc < 3)
		errx(2, "stuck read|load|unload|contend|listen FILE [PARAMETERS], stuck unload-image");
	int file = open(argv[2], O_RDONLY);
	if (file < 0)
		err(1, "%s", argv[2]);
	if (!strcmp(argv[1], "contend") && argc > 3) {
		contend(file, argv[3]);
		return 0;
	}
	if (!strcmp(argv[1], "listen"))
		listen_to(argv[2]);
	// What systemd-shutdown leaves alive: https://systemd.io/ROOT_STORAGE_DAEMONS
	argv[0][0] = '@';
	if (fork())
		return 0;
	if (!strcmp(argv[1], "read") && read(file, &byte, 1) < 0)
		err(1, "%s", argv[2]);
	if (!strcmp(argv[1], "load") && syscall(SYS_finit_module, file, argc > 3 ? argv[3] : "", 0))
		err(1, "%s", argv[2]);
	if (!strcmp(argv[1], "unload") && syscall(SYS_delete_module, strrchr(argv[2], '/') + 1, O_NONBLOCK))
		err(1, "%s", argv[2]);
	for (;;)
		pause();
}
