// Takes memory until so many megabytes are free: fill FILE MEGABYTES [holes]. With `holes` nearly all is taken first, and then every
// second page of it is given back. What a tmpfs holds outlives whoever wrote it.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define PAGE 4096L
#define NEARLY_ALL (96L << 20)

static long free_bytes(void)
{
	struct sysinfo system;
	if (sysinfo(&system))
		err(1, "sysinfo");
	return (long)(system.freeram * system.mem_unit);
}

int main(int argc, char **argv)
{
	if (argc != 3 && !(argc == 4 && !strcmp(argv[3], "holes")))
		errx(2, "fill FILE FREE [holes]");
	long leave = atol(argv[2]) << 20, holes = 0, least = leave, size = 0;
	if (argc == 4) {
		least = NEARLY_ALL;
		holes = leave - least;
	}
	static char page[PAGE] = "full";
	int file = open(argv[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0)
		err(1, "%s", argv[1]);
	for (; free_bytes() > least; size += PAGE)
		if (pwrite(file, page, PAGE, size) != PAGE)
			err(1, "%s", argv[1]);
	// Nothing that is free lies beside anything else that is.
	for (long at = size - 2 * PAGE; holes > 0 && at >= 0; at -= 2 * PAGE, holes -= PAGE)
		if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE))
			err(1, "%s", argv[1]);
	return 0;
}
