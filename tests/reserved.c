// Counts the reserved pages of memory: reserved <SEGMENTS, where each line has the address of one and its size. Prints how many there are
// and of how many pages. An image's own are, while it is loaded.
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define PAGE 4096
#define RESERVED 32 // KPF_RESERVED of include/linux/kernel-page-flags.h

int main(void)
{
	int file = open("/proc/kpageflags", O_RDONLY);
	long at, size, all = 0, reserved = 0;
	if (file < 0)
		err(1, "/proc/kpageflags");
	while (scanf("%li %li", &at, &size) == 2) {
		for (long page = at / PAGE; page < (at + size) / PAGE; page++, all++) {
			uint64_t flags;
			if (pread(file, &flags, sizeof flags, page * (long)sizeof flags) != sizeof flags)
				err(1, "/proc/kpageflags: page %ld", page);
			reserved += flags >> RESERVED & 1;
		}
	}
	printf("%ld %ld\n", reserved, all);
	return 0;
}
