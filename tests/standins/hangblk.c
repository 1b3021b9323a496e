/* A disk that takes every request and answers none: sync(2) waits for it for ever. */
#include "standin.h"
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include <linux/version.h>

static void swallow(struct bio *bio)
{
}

static const struct block_device_operations operations = {
	.owner = THIS_MODULE,
	.submit_bio = swallow,
};

static int __init begin(void)
{
	int error, major = register_blkdev(0, "hangblk");
	struct gendisk *disk;

	if (major < 0)
		return major;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	disk = blk_alloc_disk(NUMA_NO_NODE) ?: ERR_PTR(-ENOMEM);
#else
	disk = blk_alloc_disk(NULL, NUMA_NO_NODE);
#endif
	if (IS_ERR(disk)) {
		error = PTR_ERR(disk);
		goto unregister;
	}
	strscpy(disk->disk_name, "hangblk", DISK_NAME_LEN);
	disk->major = major;
	disk->minors = 1;
	disk->fops = &operations;
	/* Looking for partitions would read, and wait. */
	disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, SZ_16M >> SECTOR_SHIFT);
	error = add_disk(disk);
	if (!error)
		return 0;
	put_disk(disk);
unregister:
	unregister_blkdev(major, "hangblk");
	return error;
}

module_init(begin);
MODULE_DESCRIPTION("a disk that never answers");
