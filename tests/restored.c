/*
 * What a guest runs when it has booted and before it is told what to do. Here it is saved, and from here it is restored.
 *
 * Says so on ttyS1, waits for a line there, takes the time and fresh randomness from that line, and writes the archive
 * that the machine's own memory device holds to its standard output: `restored | cpio -idmu`.
 *
 * It waits without sleeping. Under -icount, idle time costs nothing, and the guest's clock would run away.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"

static void fail(const char *what)
{
	dprintf(2, "restored: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Reads a line without sleeping, and without an echo. */
static void read_line(int tty, char *line, size_t size)
{
	struct termios before, raw;
	size_t length = 0;

	if (tcgetattr(tty, &before))
		fail("ttyS1");
	raw = before;
	cfmakeraw(&raw);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(tty, TCSANOW, &raw))
		fail("ttyS1");
	dprintf(tty, "@waits\n");
	for (;;) {
		ssize_t got = read(tty, line + length, 1);

		if (got == 1 && line[length] == '\n')
			break;
		if (got == 1 && length < size - 1)
			length++;
		if (got != 1)
			sched_yield();
	}
	line[length] = 0;
	if (tcsetattr(tty, TCSANOW, &before))
		fail("ttyS1");
}

/* Makes the kernel's random numbers others than those of every guest restored from the same state. */
static void seed(const char *text)
{
	struct {
		int bits;
		int size;
		char bytes[64];
	} entropy = { .bits = 256, .size = sizeof(entropy.bytes) };
	int random = open("/dev/urandom", O_WRONLY);

	strncpy(entropy.bytes, text, sizeof(entropy.bytes));
	if (random < 0 || ioctl(random, RNDADDENTROPY, &entropy) || ioctl(random, RNDRESEEDCRNG))
		fail("/dev/urandom");
	close(random);
}

static unsigned int number(const char *device, const char *name)
{
	char path[256], text[16] = "";
	int file;

	snprintf(path, sizeof(path), DEVICES "/%.100s/%s", device, name);
	file = open(path, O_RDONLY);
	if (file >= 0 && read(file, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(file);
	return strtoul(text, NULL, 16);
}

/* Opens the memory of QEMU's ivshmem-plain (docs/specs/ivshmem-spec.rst). */
static int open_channel(void)
{
	DIR *all = opendir(DEVICES);
	struct dirent *entry;

	while (all && (entry = readdir(all))) {
		char path[256];

		if (number(entry->d_name, "vendor") != 0x1af4 || number(entry->d_name, "device") != 0x1110)
			continue;
		snprintf(path, sizeof(path), DEVICES "/%.100s/resource2", entry->d_name);
		return open(path, O_RDONLY);
	}
	errno = ENODEV;
	return -1;
}

/* Writes as many bytes as the first eight say. */
static void write_archive(void)
{
	int channel = open_channel();
	struct stat found;
	const char *memory;
	uint64_t length, written = 0;

	if (channel < 0 || fstat(channel, &found))
		fail("the channel");
	memory = mmap(NULL, found.st_size, PROT_READ, MAP_SHARED, channel, 0);
	if (memory == MAP_FAILED)
		fail("the channel");
	memcpy(&length, memory, sizeof(length));
	memory += sizeof(length);
	while (written < length) {
		/* The kernel copies from such a mapping for no file system. */
		static char part[65536];
		size_t size = length - written < sizeof(part) ? length - written : sizeof(part);

		memcpy(part, memory + written, size);
		for (size_t at = 0; at < size;) {
			ssize_t wrote = write(1, part + at, size - at);

			if (wrote < 0)
				fail("standard output");
			at += wrote;
		}
		written += size;
	}
}

int main(void)
{
	char line[128], *rest;
	int tty = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	struct timeval now = { 0 };

	if (tty < 0)
		fail("ttyS1");
	read_line(tty, line, sizeof(line));
	close(tty);
	now.tv_sec = strtoll(line, &rest, 10);
	if (settimeofday(&now, NULL))
		fail("the time");
	seed(rest);
	write_archive();
	return 0;
}
