// Mounts more than anybody looks for: mounts WAY FOLDER NUMBER
// layers: an overlay of so many layers, each of which its line in mountinfo names. many: so many mounts.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[256];

static void make(const char *directory, int number, int width)
{
	snprintf(path, sizeof(path), "%s/%0*d", directory, width, number);
	if (mkdir(path, 0755))
		err(1, "%s", path);
}

static void layers(const char *directory, int number)
{
	// One layer is told after the other: mount(2) takes one page of options.
	int overlay = fsopen("overlay", FSOPEN_CLOEXEC);

	if (overlay < 0)
		err(1, "fsopen");
	for (int layer = 0; layer < number; layer++) {
		make(directory, layer, 100);
		if (fsconfig(overlay, FSCONFIG_SET_STRING, "lowerdir+", path, 0))
			err(1, "layer %d", layer);
	}
	if (fsconfig(overlay, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		err(1, "no overlay");
	overlay = fsmount(overlay, FSMOUNT_CLOEXEC, 0);
	make(directory, number, 1);
	if (overlay < 0 || move_mount(overlay, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH))
		err(1, "the overlay cannot be mounted");
}

static void many(const char *directory, int number)
{
	while (number-- > 0) {
		make(directory, number, 1);
		if (mount(path, path, NULL, MS_BIND, NULL))
			err(1, "%s", path);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		errx(2, "mounts layers|many FOLDER NUMBER");
	(strcmp(argv[1], "many") ? layers : many)(argv[2], atoi(argv[3]));
	return 0;
}
