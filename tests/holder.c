// Holds a graphics device as programs do: holder [@] open|map|share DEVICE
// open: by a descriptor. map: by a mapping alone. share: by an exported buffer alone.
// Returns as soon as the device is held, by a process that stays behind.
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// Of the kernel's include/uapi/drm/drm.h and drm_mode.h, which Debian has in no package of its C library.
struct dumb { uint32_t height, width, bpp, flags, handle, pitch; uint64_t size; };
struct place { uint32_t handle, pad; uint64_t offset; };
struct shared { uint32_t handle, flags; int32_t fd; };
#define CREATE_DUMB _IOWR('d', 0xb2, struct dumb)
#define MAP_DUMB _IOWR('d', 0xb3, struct place)
#define HANDLE_TO_FD _IOWR('d', 0x2d, struct shared)

static struct dumb buffer(int card)
{
	struct dumb dumb = { .width = 64, .height = 64, .bpp = 32 };
	if (ioctl(card, CREATE_DUMB, &dumb))
		err(1, "no buffer");
	return dumb;
}

static void map(int device, int is_card)
{
	struct place at = { 0 };
	size_t size = 4096;
	if (is_card) {
		struct dumb dumb = buffer(device);
		at.handle = dumb.handle;
		size = dumb.size;
		if (ioctl(device, MAP_DUMB, &at))
			err(1, "a buffer that cannot be mapped");
	}
	if (mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)at.offset) == MAP_FAILED)
		err(1, "no mapping");
}

static void share(int card)
{
	struct shared shared = { .handle = buffer(card).handle };
	if (ioctl(card, HANDLE_TO_FD, &shared))
		err(1, "a buffer that cannot be shared");
}

int main(int argc, char **argv)
{
	// What systemd-shutdown leaves alive: https://systemd.io/ROOT_STORAGE_DAEMONS
	if (argc == 4 && !strcmp(argv[1], "@")) {
		argv[0][0] = '@';
		argv++;
		argc--;
	}
	if (argc != 3)
		errx(2, "holder [@] open|map|share DEVICE");
	int device = open(argv[2], O_RDWR | O_CLOEXEC);
	if (device < 0)
		err(1, "%s", argv[2]);
	if (!strcmp(argv[1], "map"))
		map(device, strstr(argv[2], "card") != NULL);
	if (!strcmp(argv[1], "share"))
		share(device);
	if (strcmp(argv[1], "open"))
		close(device);
	switch (fork()) {
	case -1:
		err(1, "fork");
	case 0:
		for (;;)
			pause();
	}
	return 0;
}
